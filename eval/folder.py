"""A folder as a suite, as it comes: references, task files, and definitions, at any depth.

Nothing is imported: a file is a problem if its text says so. A problem that can't work is one
nonetheless, and gets a row that says why; what is none is listed with the reason.
"""

import ast
import json
import os
import re
from pathlib import Path
from typing import Any

import yaml

from eval.problem import Labels, NotAProblem, Problem
from knowledge.errors import BadInput
from tools.definition import read_workloads
from tools.task import MOST_WORKLOADS, SUBJECTS, Task, parse_task

_LEVEL = re.compile(r"(?:level|lvl|l)[\s_-]*(\d+)", re.IGNORECASE)
# What an evaluation writes beside the task of each problem, from its start on.
_OF_A_PROBLEM = frozenset({"footprint.log", "problem.log", "row.json"})
# What is larger is data, whatever its name ends in.
MOST_BYTES = 4 << 20
TOO_LARGE = "too large to be a problem's text"
# A definition's file in a data set that has a folder for each, as SOL-ExecBench does.
_ALONE = "definition.json"
# What a definition in flashinfer-bench's schema holds, among others.
_DEFINITION = frozenset({"name", "axes", "inputs", "outputs", "reference"})


def from_folder(
    folder: Path, overrides: tuple[str, ...]
) -> tuple[list[Problem], list[NotAProblem]]:
    """Every problem in a folder, in the order in which people count, and the files that are none.

    Task files come first; a reference or definition that one of them names is none of its own.

    Raises:
        BadInput: a task file that is no valid task, or an override that fits no task.
    """
    problems: list[Problem] = []
    files, written = _files(folder)
    others = [_other(folder, one, "written by an evaluation or a run") for one in written]
    for file in files:
        if file.suffix in (".yaml", ".yml"):
            raw = _task_in(file)
            if isinstance(raw, str):
                others.append(_other(folder, file, raw))
                continue
            named = {"name": file.relative_to(folder).with_suffix("").as_posix(), **raw}
            task = parse_task(named, str(file), file.resolve().parent, overrides)
            problems.append(Problem(task, _labels(folder, file)))
    tasks = [problem.task for problem in problems]
    spoken_for = {task.reference for task in tasks} | {task.definition for task in tasks}
    for file in files:
        if file.suffix in (".yaml", ".yml") or file.resolve() in spoken_for:
            continue
        found = _as_task(folder, file, overrides)
        if isinstance(found, str):
            others.append(_other(folder, file, found))
        else:
            problems.append(Problem(found, _labels(folder, file)))
    return problems, others


def _as_task(folder: Path, file: Path, overrides: tuple[str, ...]) -> Task | str:
    """A file's task, or why it has none: a definition may be at fault, an override never is.

    Raises:
        BadInput: an override that fits no task.
    """
    raw = _as_problem(folder, file)
    if isinstance(raw, str):
        return raw
    home = file.resolve().parent
    try:
        return parse_task(raw, file.name, home, overrides)
    except BadInput as error:
        try:
            parse_task(raw, file.name, home)
        except BadInput as alone:
            return f"no valid task: {alone}"
        raise error from None


def natural(text: str) -> list[tuple[int, int | str]]:
    """A key by which `2_relu` comes before `10_gelu`."""
    parts = re.split(r"(\d+)", text.lower())
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts if part]


def _files(folder: Path) -> tuple[list[Path], list[Path]]:
    """All files, and the folders that we wrote; hidden ones and what Python keeps in neither."""
    found: list[Path] = []
    written: list[Path] = []
    met: set[tuple[int, int]] = set()
    # A level may be a link to a data set's; one that leads back is not gone into again.
    for home, folders, names in os.walk(folder, followlinks=True):
        status = Path(home).stat()
        if (status.st_dev, status.st_ino) in met:
            folders.clear()
            continue
        met.add((status.st_dev, status.st_ino))
        if _is_ours(set(folders), set(names)) and Path(home) != folder:
            written.append(Path(home))
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith((".", "__pycache__"))]
        folders.sort(key=lambda name: Path(home, name).is_symlink())
        found += [Path(home) / name for name in names if not name.startswith(".")]

    def place(path: Path) -> list[tuple[int, int | str]]:
        return natural(path.relative_to(folder).as_posix())

    return sorted(found, key=place), sorted(written, key=place)


def _is_ours(folders: set[str], names: set[str]) -> bool:
    """Whether a folder is an evaluation's, one of its problems', or a run's."""
    if "task.yaml" in names:
        return "trials" in folders or not names.isdisjoint(_OF_A_PROBLEM)
    beside = "problems" in folders or not names.isdisjoint({"results.html", "results.md"})
    return "results.json" in names and beside


def _as_problem(folder: Path, file: Path) -> dict[str, Any] | str:
    """A file as a task, or why it is none."""
    try:
        if file.stat().st_size > MOST_BYTES:
            return TOO_LARGE
        match file.suffix:
            case ".py":
                return _reference(folder, file)
            case ".json":
                return _definition(file)
            case ".jsonl":
                return "workloads, read with their definition"
            case _:
                return "neither Python, nor a task, nor a definition"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except ValueError:
        return "not text in UTF-8"


def _reference(folder: Path, file: Path) -> dict[str, Any] | str:
    text = file.read_text(encoding="utf-8-sig")
    try:
        names = _top_level(ast.parse(text))
    except (SyntaxError, ValueError, RecursionError):
        # What can't be parsed and looks like one is a problem that fails.
        if not re.search(r"^(class Model\b|def get_inputs\b)", text, re.MULTILINE):
            return "not Python that can be parsed"
        names = {"Model"}
    if not names & {"Model", "get_inputs"}:
        if "ModelNew" in names:
            return "a candidate (ModelNew), not a problem: give its folder as --candidates"
        return "has no class Model"
    name = file.relative_to(folder).with_suffix("").as_posix()
    return {"name": name, "reference": str(file.resolve())}


def _top_level(tree: ast.Module) -> set[str]:
    """The names that a module binds at its top level."""
    names: set[str] = set()
    for node in tree.body:
        match node:
            case ast.ClassDef() | ast.FunctionDef():
                names.add(node.name)
            case ast.Import() | ast.ImportFrom():
                names |= {(alias.asname or alias.name) for alias in node.names}
            case ast.Assign():
                names |= {one.id for one in node.targets if isinstance(one, ast.Name)}
            case _:
                pass
    return names


def _definition(file: Path) -> dict[str, Any] | str:
    """A definition as a task, with its workloads where these lie as the schema's folders have it.

    `definitions/<op>/<name>.json` has them in `workloads/<op>/<name>.jsonl`; beside it will do.
    """
    try:
        raw = json.loads(file.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError:
        return "not JSON that can be parsed"
    if not isinstance(raw, dict) or not raw.keys() >= _DEFINITION:
        return "JSON, but not a definition (name, axes, inputs, outputs, reference)"
    task: dict[str, Any] = {"name": str(raw["name"]), "definition": str(file.resolve())}
    # In a cache of downloads each file may be a link, and what belongs to it lies beside the link.
    workloads = _workloads(file.absolute()) or _workloads(file.resolve())
    if workloads is not None:
        task["workloads"] = {"file": str(workloads), **_some_of(workloads, task["name"])}
    return task


def _workloads(definition: Path) -> Path | None:
    beside = [definition.with_suffix(".jsonl"), definition.with_suffix(".workloads.jsonl")]
    if definition.name == _ALONE:
        beside.append(definition.with_name("workload.jsonl"))
    parts = definition.parts
    if "definitions" in parts:
        at = len(parts) - 1 - parts[::-1].index("definitions")
        swapped = Path(*parts[:at], "workloads", *parts[at + 1 :])
        beside += [swapped.with_suffix(".jsonl"), swapped.with_suffix(".json")]
    return next((one for one in beside if one.is_file()), None)


def _some_of(file: Path, definition: str) -> dict[str, list[str]]:
    """Of more workloads than a task may have, so many, from all over the file."""
    try:
        names = [str(one.get("uuid", "")) for one in read_workloads(file, definition)]
    except BadInput:
        return {}  # Whoever reads the task says so.
    if len(names) <= MOST_WORKLOADS or not all(names):
        return {}
    return {"only": [names[at * len(names) // MOST_WORKLOADS] for at in range(MOST_WORKLOADS)]}


def _task_in(file: Path) -> dict[str, Any] | str:
    """What a YAML file says, if it means to be a task, or why it does not.

    Raises:
        BadInput: it names a subject like a task, and is not YAML.
    """
    try:
        if file.stat().st_size > MOST_BYTES:
            return TOO_LARGE
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except ValueError:
        return "not text in UTF-8"
    try:
        raw = yaml.safe_load(text)
    # A date of month 0 is a ValueError.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if not re.search(rf"^({'|'.join(SUBJECTS)}):", text, re.MULTILINE):
            return "not a task: not YAML that can be parsed"
        said = " ".join(str(error).split())[:160]
        raise BadInput(str(file), f"is not YAML ({said}).", "See examples/ for task files.") from (
            error
        )
    if isinstance(raw, dict) and any(key in raw for key in SUBJECTS):
        return raw
    return f"not a task: names none of {', '.join(SUBJECTS)}"


def _labels(folder: Path, file: Path) -> Labels:
    """What the names of the folders on the way say: a level, or else a family."""
    level: int | None = None
    family = ""
    # A definition's own folder, of its name, is no family.
    above = file.relative_to(folder).parts[: -2 if file.name == _ALONE else -1]
    for part in (folder.resolve().name, *above):
        if found := _LEVEL.fullmatch(part.strip()):
            level = int(found[1])
        elif part != folder.resolve().name and part not in ("definitions", "src"):
            family = part
    return Labels(level=level, family=family)


def _other(folder: Path, file: Path, reason: str) -> NotAProblem:
    return NotAProblem(file=file.relative_to(folder).as_posix(), reason=reason)
