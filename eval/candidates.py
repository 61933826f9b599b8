"""A folder of kernels from any system, matched with a suite's problems by how the field names them.

`level_1_problem_3_sample_0_kernel.py` is for the problem numbered 3 of level 1, `softmax.py` and
`softmax_sample_2.py` for the one named `softmax`; folders on the way may carry a part of the name.
"""

import re
from pathlib import Path
from typing import NamedTuple

from eval.folder import natural
from eval.problem import NotAProblem, Problem
from knowledge.errors import BadInput

_NUMBERED = re.compile(
    r"(?:level[_\s-]*(?P<level>\d+)[_\s/-]*)?problem[_\s-]*(?P<problem>\d+)(?=\D|$)", re.IGNORECASE
)
# A problem's own number leads its name: `3_softmax`.
_NUMBER = re.compile(r"(?:problem[_\s-]*)?(\d+)(?=\D|$)", re.IGNORECASE)
# No part of a word: `upsample_2x`, `geometry_3d`.
_SAMPLE = re.compile(
    r"[_\s/-]*(?<![a-z])(?:sample|attempt|try)[_\s-]*(?P<sample>\d+)(?=\D|$)", re.IGNORECASE
)
# What systems put after a problem's name.
_ENDINGS = re.compile(
    r"[_\s/.-]*(?:kernel|modelnew|model_new|candidate|solution|best)$", re.IGNORECASE
)
_LEVEL = re.compile(r"(?:^|/)(?:level|lvl|l)[_\s-]*(?P<level>\d+)(?=/|$)", re.IGNORECASE)


class Matched(NamedTuple):
    """Candidates by problem, in the order of their samples, and files that belong to none."""

    candidates: dict[str, tuple[Path, ...]]
    unmatched: tuple[NotAProblem, ...]


def match_candidates(folder: Path, problems: list[Problem]) -> Matched:
    """Every Python file of a folder, under the problem that its name says it is for.

    Raises:
        BadInput: no such folder, or no file in it is for any of the problems.
    """
    if not folder.is_dir():
        mend = "Give a folder of files with ModelNew."
        raise BadInput(f"--candidates {folder}", "is not a folder.", mend)
    index = _Index(problems)
    found: dict[str, list[Path]] = {}
    unmatched: list[NotAProblem] = []
    files = sorted(
        (file for file in folder.rglob("*.py") if _is_candidate(folder, file)),
        key=lambda file: natural(file.relative_to(folder).as_posix()),
    )
    for file in files:
        name = file.relative_to(folder).with_suffix("").as_posix()
        fitting = index.fitting(name)
        if len(fitting) == 1:
            found.setdefault(fitting[0], []).append(file.resolve())
            continue
        several = ", ".join(fitting[:3])
        reason = f"fits {len(fitting)} problems ({several})" if fitting else "fits no problem"
        unmatched.append(NotAProblem(file=file.relative_to(folder).as_posix(), reason=reason))
    if not found:
        first = f" ({unmatched[0].file} {unmatched[0].reason})" if unmatched else ""
        raise BadInput(
            f"--candidates {folder}",
            f"holds no kernel for any problem of the suite{first}.",
            "Name them level_1_problem_3_sample_0_kernel.py, or like the problems.",
        )
    return Matched({name: tuple(files) for name, files in found.items()}, tuple(unmatched))


def sample_number(file: Path, otherwise: int) -> int:
    """Which sample of its problem a file is, by its name; its place where that does not say."""
    found = _SAMPLE.search(f"{file.parent.name}/{file.stem}")
    return int(found["sample"]) if found else otherwise


def _is_candidate(folder: Path, file: Path) -> bool:
    parts = file.relative_to(folder).parts
    return (
        file.is_file()
        and file.name != "__init__.py"
        and not any(part.startswith((".", "__pycache__")) for part in parts)
    )


class _Index:
    """Problems by their names and numbers."""

    def __init__(self, problems: list[Problem]) -> None:
        self._by_name: dict[str, set[str]] = {}
        self._by_number: dict[tuple[int | None, int], set[str]] = {}
        for problem in problems:
            name = problem.task.name
            for known in {name, name.rpartition("/")[2]}:
                self._by_name.setdefault(_plain(known), set()).add(name)
            if number := _NUMBER.match(name.rpartition("/")[2]):
                for level in {problem.labels.level, None}:
                    self._by_number.setdefault((level, int(number[1])), set()).add(name)

    def fitting(self, name: str) -> list[str]:
        """The problems that a file may be for; the more of its name they share, the better."""
        base = _SAMPLE.sub("", name)
        bare = _ENDINGS.sub("", base)
        # The whole first; then its ends, `3_softmax` of `mine/3_softmax`; then folders on the way.
        wanted = [name, base, bare]
        for text in (bare, base, name):
            parts = text.split("/")
            wanted += ["/".join(parts[at:]) for at in range(1, len(parts))]
            wanted += parts[-2::-1]
        for text in wanted:
            if known := self._by_name.get(_plain(text)):
                return sorted(known)
        if numbered := _NUMBERED.search(bare):
            above = _LEVEL.search(bare)
            level = numbered["level"] or (above["level"] if above else None)
            key = (int(level) if level is not None else None, int(numbered["problem"]))
            return sorted(self._by_number.get(key, ()))
        return []


def _plain(name: str) -> str:
    """A name without what systems replace in file names."""
    return re.sub(r"[^a-z0-9/]+", "_", name.lower()).strip("_")
