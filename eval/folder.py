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
from tools.task import Task, parse_task

_LEVEL = re.compile(r"(?:level|lvl|l)[\s_-]*(\d+)", re.IGNORECASE)
_SUBJECTS = ("reference", "op", "module", "definition")
# What is larger is data, whatever its name ends in.
MOST_BYTES = 4 << 20
# What a definition in flashinfer-bench's schema holds, among others.
_DEFINITION = frozenset({"name", "axes", "inputs", "outputs", "reference"})


def from_folder(
    folder: Path, overrides: tuple[str, ...]
) -> tuple[list[Problem], list[NotAProblem]]:
    """Every problem in a folder, in the order in which people count, and the files that are none.

    Task files come first; a reference that one of them names is no problem of its own.

    Raises:
        BadInput: a task file that is no valid task, or an override that fits no task.
    """
    problems: list[Problem] = []
    others: list[NotAProblem] = []
    files = _files(folder)
    for file in files:
        if file.suffix in (".yaml", ".yml"):
            raw = _task_in(file)
            if raw is None:
                others.append(_other(folder, file, "not a task: names no reference, op or module"))
                continue
            task = parse_task(raw, str(file), file.resolve().parent, overrides)
            problems.append(Problem(task, _labels(folder, file)))
    spoken_for = {problem.task.reference for problem in problems}
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


def _files(folder: Path) -> list[Path]:
    """All files, but for hidden folders and what Python keeps."""
    found: list[Path] = []
    for home, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "__pycache__"))]
        found += [Path(home) / name for name in names if not name.startswith(".")]
    return sorted(found, key=lambda file: natural(file.relative_to(folder).as_posix()))


def _as_problem(folder: Path, file: Path) -> dict[str, Any] | str:
    """A file as a task, or why it is none."""
    try:
        if file.stat().st_size > MOST_BYTES:
            return "too large to be a problem's text"
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
    text = file.read_text(encoding="utf-8")
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
        raw = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        return "not JSON that can be parsed"
    if not isinstance(raw, dict) or not raw.keys() >= _DEFINITION:
        return "JSON, but not a definition (name, axes, inputs, outputs, reference)"
    task: dict[str, Any] = {"name": str(raw["name"]), "definition": str(file.resolve())}
    workloads = _workloads(file.resolve())
    if workloads is not None:
        task["workloads"] = str(workloads)
    return task


def _workloads(definition: Path) -> Path | None:
    beside = [definition.with_suffix(".jsonl"), definition.with_suffix(".workloads.jsonl")]
    parts = definition.parts
    if "definitions" in parts:
        at = len(parts) - 1 - parts[::-1].index("definitions")
        swapped = Path(*parts[:at], "workloads", *parts[at + 1 :])
        beside += [swapped.with_suffix(".jsonl"), swapped.with_suffix(".json")]
    return next((one for one in beside if one.is_file()), None)


def _task_in(file: Path) -> dict[str, Any] | None:
    """What a YAML file says, if it means to be a task.

    Raises:
        BadInput: it names a subject like a task, and is not YAML.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        if not re.search(rf"^({'|'.join(_SUBJECTS)}):", text, re.MULTILINE):
            return None
        said = " ".join(str(error).split())[:160]
        raise BadInput(str(file), f"is not YAML ({said}).", "See examples/ for task files.") from (
            error
        )
    if isinstance(raw, dict) and any(key in raw for key in _SUBJECTS):
        return raw
    return None


def _labels(folder: Path, file: Path) -> Labels:
    """What the names of the folders on the way say: a level, or else a family."""
    level: int | None = None
    family = ""
    for part in (folder.resolve().name, *file.relative_to(folder).parts[:-1]):
        if found := _LEVEL.fullmatch(part.strip()):
            level = int(found[1])
        elif part != folder.resolve().name and part not in ("definitions", "src"):
            family = part
    return Labels(level=level, family=family)


def _other(folder: Path, file: Path, reason: str) -> NotAProblem:
    return NotAProblem(file=file.relative_to(folder).as_posix(), reason=reason)
