"""A suite: the problems of an evaluation, read and validated before the first one runs.

Either a YAML list (each entry the path of a task file, or a task written inline) or a folder, whose
YAML files are tasks and whose other Python files with a `class Model` are references. Nothing here
imports a reference.
"""

import ast
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from knowledge.errors import BadInput
from tools.task import Task, load_task, parse_task

_EXPECTED = "Give a YAML list of tasks, or a folder of references."


def load_suite(path: Path, overrides: tuple[str, ...] = ()) -> list[Task]:
    """Every problem of a suite, with `overrides` applied to each.

    Raises:
        BadInput: no such suite, a problem that is no valid task, none at all, or two of one name.
    """
    tasks = _from_folder(path, overrides) if path.is_dir() else _from_file(path, overrides)
    if not tasks:
        raise BadInput(str(path), "holds no problem.", _EXPECTED)
    counts = Counter(task.name for task in tasks)
    for name, count in counts.items():
        if count > 1:
            raise BadInput(
                str(path), f'{count} problems are named "{name}".', "Give each a name of its own."
            )
    return tasks


def _from_file(path: Path, overrides: tuple[str, ...]) -> list[Task]:
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(str(path), f"cannot be read ({error.strerror}).", _EXPECTED) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(
            str(path), f"is not YAML ({' '.join(str(error).split())[:160]}).", _EXPECTED
        ) from error
    if not isinstance(entries, list):
        raise BadInput(str(path), "is not a list of tasks.", _EXPECTED)
    return [_from_entry(entry, path, at, overrides) for at, entry in enumerate(entries, 1)]


def _from_entry(entry: Any, path: Path, at: int, overrides: tuple[str, ...]) -> Task:
    where = f"{path}: entry {at}"
    folder = path.resolve().parent
    if isinstance(entry, str):
        return load_task(folder / entry, overrides)
    if isinstance(entry, dict):
        if "name" not in entry:
            raise BadInput(where, "has no name.", "An inline task needs one.")
        return parse_task(entry, where, folder, overrides)
    raise BadInput(where, f"is neither a path nor a task but {type(entry).__name__}.", _EXPECTED)


def _from_folder(path: Path, overrides: tuple[str, ...]) -> list[Task]:
    tasks = [
        load_task(file, overrides) for file in sorted((*path.rglob("*.yaml"), *path.rglob("*.yml")))
    ]
    spoken_for = {task.reference for task in tasks}
    for file in sorted(path.rglob("*.py")):
        if file.resolve() not in spoken_for and _defines_model(file):
            name = "-".join(file.relative_to(path).with_suffix("").parts)
            raw = {"name": name, "reference": str(file.resolve())}
            tasks.append(parse_task(raw, str(file), file.resolve().parent, overrides))
    return tasks


def _defines_model(file: Path) -> bool:
    """Whether a file has `class Model` at its top level; parsed, because importing runs it."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return False
    return any(isinstance(node, ast.ClassDef) and node.name == "Model" for node in tree.body)
