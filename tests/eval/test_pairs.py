import json
import math
from pathlib import Path

import pytest
from typer.testing import CliRunner

from eval.compare import app, changed
from eval.pairs import compare, overall, pair_of
from eval.results import Results, save
from eval.rows import Row
from tests.eval.test_score import broken, finished
from tools.facts import CONSTANT


def results(*rows: Row, device: str = "") -> Results:
    names = tuple(row.name for row in rows)
    versions = {"torch": device} if device else {}
    return Results(suite="s", started="2026-11-28", versions=versions, problems=names, rows=rows)


def test_a_ratio_is_the_seconds_speedup_over_the_firsts_with_both_intervals() -> None:
    pair = pair_of(finished("x", "faster", 2.0), finished("x", "faster", 3.0))
    assert pair.ratio == pytest.approx(1.5)
    assert pair.low is not None
    assert pair.high is not None
    # Each interval is 2% to either side, so together sqrt(2) times as wide.
    assert math.log(pair.high / pair.ratio) == pytest.approx(0.02 * math.sqrt(2), rel=0.01)
    assert pair.change == "better"
    assert pair_of(finished("x", "faster", 3.0), finished("x", "faster", 2.0)).change == "worse"
    assert pair_of(finished("x", "faster", 2.0), finished("x", "faster", 2.02)).change == "same"


def test_a_kernel_that_was_found_or_lost_is_told_apart_from_a_faster_one() -> None:
    right = finished("x", "faster", 2.0)
    assert pair_of(broken("x"), right).change == "mended"
    lost = pair_of(right, broken("x"))
    assert (lost.change, lost.ratio, lost.low) == ("broken", 0.5, None)
    assert pair_of(broken("x"), finished("x", "failed")).change == "both failed"


def test_the_overall_ratio_is_a_geomean_whose_interval_is_of_problems() -> None:
    found = overall([1.1, 1.2, 1.3, 1.15, 1.25, 1.18])
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert 1.1 < found.low < found.ratio < found.high < 1.3
    assert found.p is not None
    assert found.p < 0.05


def test_of_too_few_or_equal_ratios_no_interval_is_claimed() -> None:
    assert overall([]) is None
    for ratios in ([1.5], [1.5, 2.0], [1.2] * 5):
        found = overall(ratios)
        assert found is not None
        assert (found.low, found.high, found.p) == (None, None, None)
    swung = overall([0.5, 2.0, 0.5, 2.0])
    assert swung is not None
    assert swung.p is not None
    assert swung.p > 0.5


def test_problems_in_one_alone_and_constants_are_named_and_not_paired() -> None:
    first = results(finished("a", "faster", 2.0), finished("b", "faster", 2.0), broken("c"))
    constant = finished("b", "faster", 900.0, cautions=(CONSTANT,))
    second = results(finished("a", "faster", 2.5), constant, broken("d"), device="other")
    found = compare(first, second)
    assert [pair.name for pair in found.pairs] == ["a"]
    assert (found.only_first, found.only_second, found.aside) == (("c",), ("d",), ("b",))
    text = changed(first, second)
    assert "better: a 1.25×" in text
    assert "in the first alone: c" in text
    assert "not measured alike" in text


def test_two_results_are_compared_as_markdown_or_as_one_document(tmp_path: Path) -> None:
    for name, speedup in (("one", 2.0), ("two", 3.0)):
        (tmp_path / name).mkdir()
        save(results(finished("a", "faster", speedup), broken("b")), tmp_path / name)
    paths = [str(tmp_path / "one"), str(tmp_path / "two")]
    shown = CliRunner().invoke(app, paths)
    assert shown.exit_code == 0
    assert shown.stdout.startswith("The second over the first, 2 problems: **1.225×**")
    assert "as the tasks say, first: over eager" in shown.stdout
    document = json.loads(CliRunner().invoke(app, [*paths, "--json"]).stdout)
    assert document["pairs"][0]["ratio"] == pytest.approx(1.5)
    alone = CliRunner().invoke(app, [paths[0], "--json"])
    assert alone.exit_code == 2
