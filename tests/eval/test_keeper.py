from pathlib import Path

import pytest

from eval.keeper import FILE, Keeper, with_kept_rows
from eval.one import folder_of
from eval.problem import Problem
from eval.results import Results, load
from eval.rows import Broken, Row
from tools.task import Task

NAMES = ("one", "two", "three")


def problems() -> list[Problem]:
    return [
        Problem(Task(name=name, reference=Path("op.py")), number=number)
        for number, name in enumerate(NAMES, 1)
    ]


def fresh() -> Results:
    return Results(suite="s.yaml", started="2026-11-29T00:00:00", versions={}, problems=NAMES)


def row(name: str) -> Row:
    return Broken(name=name, seconds=1.0, reason="crashed", error="e")


def test_rows_stand_in_the_suites_order_however_they_come() -> None:
    results = fresh()
    for name in ("three", "one", "two"):
        results = results.with_row(row(name))
    assert tuple(one.name for one in results.rows) == NAMES


def test_what_was_not_yet_in_the_whole_is_found_in_the_problems_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eval.keeper.SHARE", 1e-6)
    keeper, results, given = Keeper(tmp_path), fresh(), problems()
    keeper.write(results)
    # Writing has just taken its share of the time, so that the next row waits for its turn.
    for problem in given[:2]:
        results = results.with_row(row(problem.task.name))
        keeper.keep(problem, results.rows[-1], results)
    assert load(tmp_path).rows == ()
    found = with_kept_rows(load(tmp_path), given, tmp_path)
    assert found == results
    keeper.write(results)
    assert load(tmp_path) == results


def test_a_row_that_was_half_written_is_none(tmp_path: Path) -> None:
    place = folder_of(problems()[0], tmp_path) / FILE
    place.parent.mkdir(parents=True)
    place.write_text('{"kind": "broken", "na')
    assert with_kept_rows(fresh(), problems(), tmp_path) == fresh()
