"""A problem as bytes that another machine can run, and what came of it, as bytes that come back.

Machines of a fleet need no common disk: a parcel holds the reference with the modules beside it, a
definition with its tensors, prices, and other people's kernels. What a reference reads from
elsewhere must be on the machines already.
"""

import io
import json
import shutil
import tarfile
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from eval.neighbours import neighbours
from eval.one import Arrangement
from eval.problem import Labels, Problem
from eval.rows import ROW, Row
from knowledge.opgraph import Frozen
from tools.task import Task

ORDER, ANSWER, FOLDER = "order.json", "row.json", "folder"
PATHS = ("reference", "definition", "prices")
# Of one problem's folder: more is left on the machine where it ran.
MOST_BYTES = 256 << 20

# Given a kind of file and the path that a task names it by, the path that is to stand there.
Change = Callable[[str, str], str]


class Order(Frozen):
    """What a machine is asked to do; paths are relative to the parcel's files."""

    task: dict[str, Any]
    labels: Labels
    number: int
    arrangement: Arrangement
    judge: str
    beside: int
    lane: str
    memory: bool


def wrap(problem: Problem, arrangement: Arrangement, **rest: Any) -> bytes:
    """A problem's parcel.

    Args:
        problem: what is to be run.
        arrangement: how.
        rest: the other fields of an `Order`: judge, beside, lane, memory.
    """
    files: dict[str, Path] = {}

    def taken(kind: str, path: str) -> str:
        name = f"{kind}/{Path(path).name}"
        files[name] = Path(path)
        return name

    task = problem.task.model_dump(mode="json", exclude_defaults=True)
    _change_paths(task, taken)
    if problem.task.reference is not None:
        home = problem.task.reference.parent
        for one in neighbours(problem.task.reference):
            files[f"reference/{one.relative_to(home).as_posix()}"] = one
    candidates = None
    if arrangement.candidates is not None:
        samples = arrangement.candidates.get(problem.task.name, ())
        # Files may share a name, and the folder's may say which sample one is.
        mine = tuple(
            Path(taken(f"candidates/{place}/{path.parent.name}", str(path)))
            for place, path in enumerate(samples)
        )
        candidates = {problem.task.name: mine}
    order = Order(
        task=task,
        labels=problem.labels,
        number=problem.number,
        arrangement=replace(arrangement, out=Path("out"), candidates=candidates),
        **rest,
    )
    return _tar({ORDER: order.model_dump_json().encode()}, files)


def unwrap(parcel: bytes, home: Path) -> tuple[Order, Problem, Arrangement]:
    """A parcel's order, and its problem with files in `home`, to be run in `home / "out"`."""
    with tarfile.open(fileobj=io.BytesIO(parcel)) as tar:
        tar.extractall(home, filter="data")
    order = Order.model_validate_json((home / ORDER).read_bytes())
    task = deepcopy(order.task)
    _change_paths(task, lambda kind, name: str(home / name))
    candidates = order.arrangement.candidates
    if candidates is not None:
        candidates = {
            name: tuple(home / path for path in samples) for name, samples in candidates.items()
        }
    arrangement = replace(
        order.arrangement, out=home / order.arrangement.out, candidates=candidates
    )
    return order, Problem(Task.model_validate(task), order.labels, order.number), arrangement


def _change_paths(task: dict[str, Any], change: Change) -> None:
    """Change every path that a task names, where it stands."""
    for key in PATHS:
        if key in task:
            task[key] = change(key, task[key])
    for number, workload in enumerate(task.get("workloads", ())):
        for name, given in workload.get("given", {}).items():
            if "path" in given:
                given["path"] = change(f"tensors/{number}/{name}", given["path"])


def wrap_answer(row: Row, folder: Path) -> bytes:
    """What came of a problem: its row, and its folder's files. Paths name the place they had."""
    files = {}
    left = MOST_BYTES
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if path.is_file() and not path.is_symlink() and (size := path.stat().st_size) <= left:
            left -= size
            files[f"{FOLDER}/{path.relative_to(folder).as_posix()}"] = path
    told = {"row": ROW.dump_python(row, mode="json"), "folder": str(folder)}
    return _tar({ANSWER: json.dumps(told).encode()}, files)


def unwrap_answer(answer: bytes, folder: Path) -> Row:
    """The row of an answer, whose files are laid into `folder`; paths name the place they have."""
    # Left by an earlier try.
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # As a stream, whose first file is the row: going back would decompress it all once more.
    with tarfile.open(fileobj=io.BytesIO(answer), mode="r|*") as tar:
        members = iter(tar)
        told = json.load(tar.extractfile(next(members)))  # type: ignore[arg-type]
        for one in members:
            one.name = one.name.removeprefix(f"{FOLDER}/")
            tar.extract(one, folder, filter="data")
    moved = _moved(told["row"], told["folder"], str(folder))
    return ROW.validate_python(moved)


def _moved(value: Any, old: str, new: str) -> Any:
    """JSON values, with every path that began in one folder beginning in the other."""
    match value:
        case str():
            return value.replace(old, new)
        case list():
            return [_moved(one, old, new) for one in value]
        case dict():
            return {key: _moved(one, old, new) for key, one in value.items()}
        case _:
            return value


def _tar(texts: Mapping[str, bytes], files: Mapping[str, Path]) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz", compresslevel=1, dereference=True) as tar:
        for name, content in texts.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        for name, path in files.items():
            tar.add(path, name, recursive=False)
    return held.getvalue()
