"""A problem as bytes that another machine can run, and what came of it, as bytes that come back.

Machines of a fleet need no common disk: a parcel holds the reference with the modules beside it, a
definition with its tensors, prices, and other people's kernels. What a reference reads from
elsewhere must be on the machines already.
"""

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import TypeAdapter

from eval.neighbours import neighbours
from eval.one import Arrangement
from eval.problem import Labels, Problem
from eval.rows import Row
from knowledge.opgraph import Frozen
from tools.task import Task

ORDER, ANSWER, FOLDER = "order.json", "row.json", "folder"
PATHS = ("reference", "definition", "prices")
# Of one problem's folder: more is left on the machine where it ran.
MOST_BYTES = 256 << 20

_ROW: TypeAdapter[Row] = TypeAdapter(Row)


class Order(Frozen):
    """What a machine is asked to do. Paths in `task` are relative to the parcel's files."""

    task: dict[str, Any]
    labels: Labels
    number: int
    judge: str
    memory_bytes: int | None
    scale_inputs: bool
    look_first: bool
    wall_s: float | None
    candidates: tuple[str, ...] | None
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
    task = problem.task.model_dump(mode="json", exclude_defaults=True)
    for key in PATHS:
        if (path := getattr(problem.task, key)) is not None:
            task[key] = _taken(files, path, key)
    if problem.task.reference is not None:
        home = problem.task.reference.parent
        for one in neighbours(problem.task.reference):
            files[str(PurePosixPath("reference", one.relative_to(home).as_posix()))] = one
    for workload in task.get("workloads", ()):
        for given in workload.get("given", {}).values():
            if "path" in given:
                given["path"] = _taken(files, Path(given["path"]), f"tensors/{len(files)}")
    samples = None
    if arrangement.candidates is not None:
        found = arrangement.candidates.get(problem.task.name, ())
        samples = tuple(_taken(files, path, "candidates") for path in found)
    order = Order(
        task=task,
        labels=problem.labels,
        number=problem.number,
        memory_bytes=arrangement.memory_bytes,
        scale_inputs=arrangement.scale_inputs,
        look_first=arrangement.look_first,
        wall_s=arrangement.wall_s,
        candidates=samples,
        **rest,
    )
    return _tar({ORDER: order.model_dump_json().encode()}, files)


def _taken(files: dict[str, Path], path: Path, under: str) -> str:
    name = str(PurePosixPath(under, path.name))
    files[name] = path
    return name


def unwrap(parcel: bytes, home: Path) -> tuple[Order, Problem, Arrangement]:
    """A parcel's order, and its problem with files in `home`, to be run in `home / "out"`."""
    _untar(parcel, home)
    order = Order.model_validate_json((home / ORDER).read_bytes())
    task = dict(order.task)
    for key in PATHS:
        if key in task:
            task[key] = str(home / task[key])
    for workload in task.get("workloads", ()):
        for given in workload.get("given", {}).values():
            if "path" in given:
                given["path"] = str(home / given["path"])
    problem = Problem(Task.model_validate(task), order.labels, order.number)
    candidates = None
    if order.candidates is not None:
        candidates = {problem.task.name: tuple(home / name for name in order.candidates)}
    arrangement = Arrangement(
        out=home / "out",
        memory_bytes=order.memory_bytes,
        scale_inputs=order.scale_inputs,
        look_first=order.look_first,
        wall_s=order.wall_s,
        candidates=candidates,
    )
    return order, problem, arrangement


def wrap_answer(row: Row, folder: Path) -> bytes:
    """What came of a problem: its row, and its folder's files. Paths name the place they had."""
    files = {}
    left = MOST_BYTES
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if path.is_file() and not path.is_symlink() and (size := path.stat().st_size) <= left:
            left -= size
            files[f"{FOLDER}/{path.relative_to(folder).as_posix()}"] = path
    told = {"row": _ROW.dump_python(row, mode="json"), "folder": str(folder)}
    return _tar({ANSWER: json.dumps(told).encode()}, files)


def unwrap_answer(answer: bytes, folder: Path) -> Row:
    """The row of an answer, whose files are laid into `folder`; paths name the place they have."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(answer)) as tar:
        told = json.load(tar.extractfile(ANSWER))  # type: ignore[arg-type]
        members = [one for one in tar.getmembers() if one.name.startswith(f"{FOLDER}/")]
        for one in members:
            one.name = one.name.removeprefix(f"{FOLDER}/")
        tar.extractall(folder, members=members, filter="data")
    moved = _moved(told["row"], told["folder"], str(folder))
    return _ROW.validate_python(moved)


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
    with tarfile.open(fileobj=held, mode="w:gz", compresslevel=1) as tar:
        for name, content in texts.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        for name, path in files.items():
            tar.add(path, name, recursive=False)
    return held.getvalue()


def _untar(parcel: bytes, home: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(parcel)) as tar:
        tar.extractall(home, filter="data")
