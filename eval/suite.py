"""A suite: the problems of an evaluation, read and validated before the first one runs.

Either a YAML list (each entry the path of a task file, or a task written inline, with or without
labels), also as `problems` beside keys that say where they are run, or a folder (`eval/folder.py`).
Nothing here imports a reference.
"""

import difflib
from collections import Counter
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from pydantic import Field, ValidationError

from eval.folder import from_folder
from eval.problem import Labels, NotAProblem, Problem
from knowledge.errors import BadInput
from knowledge.opgraph import Frozen
from tools.task import Task, load_task, parse_task

EXPECTED = "Give a YAML list of tasks, or a folder of references."


class Where(Frozen):
    """Where the problems of a suite are run."""

    executor: Literal["local", "ray"] = Field(
        "local", description="one after another on this machine, or on a Ray cluster"
    )
    address: str = Field(
        "", description="of a cluster, host:port or ray://host:port; empty for one of our own"
    )
    beside: int = Field(1, ge=1, description="problems that share a device, and time in turns")


class Suite(NamedTuple):
    """All problems, in their order, the files that are none, and where the suite asks to be run."""

    problems: list[Problem]
    others: tuple[NotAProblem, ...] = ()
    where: Where = Where()


def open_suite(path: Path, overrides: tuple[str, ...] = ()) -> Suite:
    """Every problem of a suite, with `overrides` applied to each task.

    Raises:
        BadInput: no such suite, a problem that is no valid task, none at all, or two of one name.
    """
    others: list[NotAProblem] = []
    where = Where()
    if path.is_dir():
        found, others = from_folder(path, overrides)
    else:
        found, where = _from_file(path, overrides)
    problems = [problem._replace(number=number) for number, problem in enumerate(found, 1)]
    if not problems:
        why = f" ({others[0].file}: {others[0].reason})" if others else ""
        raise BadInput(str(path), f"holds no problem{why}.", EXPECTED)
    counts = Counter(problem.task.name for problem in problems)
    for name, count in counts.items():
        if count > 1:
            raise BadInput(
                str(path), f'{count} problems are named "{name}".', "Give each a name of its own."
            )
    return Suite(problems, tuple(others), where)


def choose(
    problems: list[Problem], only: str | None = None, holdout: bool | None = None
) -> list[Problem]:
    """Some problems of a suite, in its order.

    Args:
        problems: the suite.
        only: names and glob patterns, with commas between them; None for all. The last part of
            `level1/3_softmax` will do as well.
        holdout: the held-out part, the other one, or None for both.

    Raises:
        BadInput: a name that no problem has, or nothing is left.
    """
    chosen = problems
    if only is not None:
        wanted = [name.strip() for name in only.split(",") if name.strip()]
        if any(problem.task.name == only for problem in problems):
            wanted = [only]
        names = [problem.task.name for problem in problems]
        meant = {known for name in wanted for known in _meant(name, names)}
        chosen = [problem for problem in problems if problem.task.name in meant]
    if holdout is not None:
        chosen = [problem for problem in chosen if problem.labels.holdout is holdout]
    if not chosen:
        given = ["--only " + only] if only is not None else []
        given += [] if holdout is None else ["--holdout" if holdout else "--no-holdout"]
        raise BadInput(" ".join(given) or "the suite", "leaves no problem to run.")
    return chosen


def _meant(wanted: str, names: list[str]) -> list[str]:
    """The names that are meant: those equal to it, else those that it is a pattern of.

    Raises:
        BadInput: there is none.
    """
    parts = {known: (known, known.rpartition("/")[2]) for known in names}
    found = [known for known in names if wanted in parts[known]]
    found = found or [k for k in names if any(fnmatchcase(part, wanted) for part in parts[k])]
    if not found:
        near = difflib.get_close_matches(wanted, names, n=1)
        mend = f'Did you mean "{near[0]}"?' if near else "Names and patterns like conv* are taken."
        raise BadInput(f"--only {wanted}", "matches no problem of the suite.", mend)
    return found


def shard_of(problems: list[Problem], shard: str) -> list[Problem]:
    """One of n parts of about the same size: `2/4` is the second, sixth, tenth, ... problem.

    Raises:
        BadInput: not i/n with i from 1 to n.
    """
    first, _, count = shard.partition("/")
    if not (first.isdecimal() and count.isdecimal() and 1 <= int(first) <= int(count)):
        raise BadInput(f"--shard {shard}", "is not i/n with i from 1 to n.", "For example: 1/4")
    return problems[int(first) - 1 :: int(count)]


def _from_file(path: Path, overrides: tuple[str, ...]) -> tuple[list[Problem], Where]:
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(str(path), f"cannot be read ({error.strerror}).", EXPECTED) from error
    # A date of month 0 is a ValueError.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise BadInput(
            str(path), f"is not YAML ({' '.join(str(error).split())[:160]}).", EXPECTED
        ) from error
    where = Where()
    if isinstance(entries, dict) and isinstance(entries.get("problems"), list):
        where = _where({key: entries[key] for key in entries if key != "problems"}, path)
        entries = entries["problems"]
    if not isinstance(entries, list):
        raise BadInput(str(path), "is not a list of tasks.", EXPECTED)
    found = [_from_entry(entry, path, at, overrides) for at, entry in enumerate(entries, 1)]
    return found, where


def _where(given: dict[Any, Any], path: Path) -> Where:
    _require_known_keys(given, str(path), (*Where.model_fields, "problems"))
    try:
        return Where.model_validate(given, strict=True)
    except ValidationError as error:
        raise _readable(error, str(path)) from error


def _from_entry(entry: Any, path: Path, at: int, overrides: tuple[str, ...]) -> Problem:
    where = f"{path}: entry {at}"
    folder = path.resolve().parent
    if isinstance(entry, str):
        return Problem(load_task(folder / entry, overrides))
    if isinstance(entry, dict):
        _require_known_keys(entry, where, (*Task.model_fields, *Labels.model_fields))
        if "name" not in entry:
            raise BadInput(where, "has no name.", "An inline task needs one.")
        task = {key: value for key, value in entry.items() if key not in Labels.model_fields}
        return Problem(parse_task(task, where, folder, overrides), _labels(entry, where))
    raise BadInput(where, f"is neither a path nor a task but {type(entry).__name__}.", EXPECTED)


def _require_known_keys(entry: dict[Any, Any], where: str, keys: Iterable[str]) -> None:
    known = sorted(set(keys))
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
        raise _readable(error, where) from error


def _readable(error: ValidationError, where: str) -> BadInput:
    first = error.errors()[0]
    return BadInput(f"{where}: {first['loc'][0]}", f"is {first['input']!r}.", f"{first['msg']}.")
