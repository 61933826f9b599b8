"""A suite: the problems of an evaluation, read and validated before the first one runs.

Either a YAML list (each entry the path of a task file, or a task written inline, with or without
labels) or a folder, whose YAML files are tasks and whose other Python files with a `class Model`
are references. Nothing here imports a reference.
"""

import ast
import difflib
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from pydantic import Field, ValidationError

from knowledge.errors import BadInput
from knowledge.opgraph import Frozen
from tools.task import Task, load_task, parse_task

_EXPECTED = "Give a YAML list of tasks, or a folder of references."


class Labels(Frozen):
    """Where in its suite a problem belongs. Scores are also given for each of these parts."""

    family: str = Field("", description="what kind of op, by the suite's own names")
    kind: Literal["", "single", "chain", "network"] = Field(
        "", description="one op, a chain of a few, or a block or network; empty where not said"
    )
    holdout: bool = Field(
        False, description="not looked at by whoever writes patterns, so that its score is honest"
    )


class Problem(NamedTuple):
    """One problem of a suite."""

    task: Task
    labels: Labels = Labels()


def load_suite(path: Path, overrides: tuple[str, ...] = ()) -> list[Problem]:
    """Every problem of a suite, with `overrides` applied to each task.

    Raises:
        BadInput: no such suite, a problem that is no valid task, none at all, or two of one name.
    """
    problems = _from_folder(path, overrides) if path.is_dir() else _from_file(path, overrides)
    if not problems:
        raise BadInput(str(path), "holds no problem.", _EXPECTED)
    counts = Counter(problem.task.name for problem in problems)
    for name, count in counts.items():
        if count > 1:
            raise BadInput(
                str(path), f'{count} problems are named "{name}".', "Give each a name of its own."
            )
    return problems


def choose(
    problems: list[Problem], only: str | None = None, holdout: bool | None = None
) -> list[Problem]:
    """Some problems of a suite, in its order.

    Args:
        problems: the suite.
        only: names and glob patterns, with commas between them; None for all.
        holdout: the held-out part, the other one, or None for both.

    Raises:
        BadInput: a name that no problem has, or nothing is left.
    """
    chosen = problems
    if only is not None:
        wanted = [name.strip() for name in only.split(",") if name.strip()]
        for name in wanted:
            _require_match(name, problems)
        chosen = [
            problem
            for problem in problems
            if any(fnmatchcase(problem.task.name, name) for name in wanted)
        ]
    if holdout is not None:
        chosen = [problem for problem in chosen if problem.labels.holdout is holdout]
    if not chosen:
        given = ["--only " + only] if only is not None else []
        given += [] if holdout is None else ["--holdout" if holdout else "--no-holdout"]
        raise BadInput(" ".join(given) or "the suite", "leaves no problem to run.")
    return chosen


def _require_match(name: str, problems: list[Problem]) -> None:
    names = [problem.task.name for problem in problems]
    if not any(fnmatchcase(known, name) for known in names):
        near = difflib.get_close_matches(name, names, n=1)
        mend = f'Did you mean "{near[0]}"?' if near else "Names and patterns like conv* are taken."
        raise BadInput(f"--only {name}", "matches no problem of the suite.", mend)


def _from_file(path: Path, overrides: tuple[str, ...]) -> list[Problem]:
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


def _from_entry(entry: Any, path: Path, at: int, overrides: tuple[str, ...]) -> Problem:
    where = f"{path}: entry {at}"
    folder = path.resolve().parent
    if isinstance(entry, str):
        return Problem(load_task(folder / entry, overrides))
    if isinstance(entry, dict):
        _require_known_keys(entry, where)
        if "name" not in entry:
            raise BadInput(where, "has no name.", "An inline task needs one.")
        task = {key: value for key, value in entry.items() if key not in Labels.model_fields}
        return Problem(parse_task(task, where, folder, overrides), _labels(entry, where))
    raise BadInput(where, f"is neither a path nor a task but {type(entry).__name__}.", _EXPECTED)


def _require_known_keys(entry: dict[Any, Any], where: str) -> None:
    known = sorted({**Task.model_fields, **Labels.model_fields})
    for key in entry:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            mend = f'Did you mean "{near[0]}"?' if near else f"Known: {', '.join(known)}."
            raise BadInput(f"{where}: {key}", "is not a known key.", mend)


def _labels(entry: dict[str, Any], where: str) -> Labels:
    given = {key: value for key, value in entry.items() if key in Labels.model_fields}
    try:
        return Labels.model_validate(given, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = f"{where}: {first['loc'][0]}"
        raise BadInput(place, f"is {first['input']!r}.", f"{first['msg']}.") from error


def _from_folder(path: Path, overrides: tuple[str, ...]) -> list[Problem]:
    tasks = [
        load_task(file, overrides) for file in sorted((*path.rglob("*.yaml"), *path.rglob("*.yml")))
    ]
    spoken_for = {task.reference for task in tasks}
    for file in sorted(path.rglob("*.py")):
        if file.resolve() not in spoken_for and _defines_model(file):
            name = "-".join(file.relative_to(path).with_suffix("").parts)
            raw = {"name": name, "reference": str(file.resolve())}
            tasks.append(parse_task(raw, str(file), file.resolve().parent, overrides))
    return [Problem(task) for task in tasks]


def _defines_model(file: Path) -> bool:
    """Whether a file has `class Model` at its top level; parsed, because importing runs it."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return False
    return any(isinstance(node, ast.ClassDef) and node.name == "Model" for node in tree.body)
