from types import SimpleNamespace
from typing import Any, cast

import pytest

from graph.fallback import keep_baseline, overtaken_by, worth_compiling
from graph.workbench import Workbench
from tests.graph import builders
from tools.facts import Baseline, Baselines
from tools.verdict import WrongOutput


@pytest.mark.parametrize(
    ("times", "chosen"),
    [
        ({"eager": 3.0, "compile": 2.0}, "compile"),
        ({"eager": 3.0, "compile": 2.9}, None),
        ({"eager": 3.0, "compile": 2.0, "max-autotune": 1.5}, "max-autotune"),
        ({"eager": 3.0, "compile": 2.0, "max-autotune": None}, "compile"),
        # What CUDA graphs hand out is overwritten by the next call: no drop-in.
        ({"eager": 3.0, "compile": 2.0, "max-autotune": 1.9, "cudagraphs": 1.0}, "max-autotune"),
        ({"eager": 3.0, "compile": None}, None),
        ({"compile": 1.0}, None),
    ],
)
def test_the_fastest_baseline_that_can_be_handed_over_is_chosen(
    times: dict[str, float | None], chosen: str | None
) -> None:
    rows = tuple(
        Baseline.model_validate({"name": name, "median_ms": ms}) for name, ms in times.items()
    )
    assert worth_compiling(Baselines(rows=rows, noise=0.01)) == chosen


@pytest.mark.parametrize(
    ("name", "speedups", "other"),
    [
        ("eager", {"eager": 1.0, "compile": 0.74}, "compile"),
        ("eager", {"eager": 1.0, "compile": 0.97}, None),
        ("compile", {"eager": 0.6, "compile": 1.0}, "eager"),
        # The same code in another process: nothing else is to be had.
        ("compile", {"eager": 2.7, "compile": 0.68}, None),
        ("eager", {"eager": 1.0, "cudagraphs": 0.5}, None),
    ],
)
def test_a_baseline_that_reads_slower_than_another_gives_way_to_it(
    name: str, speedups: dict[str, float], other: str | None
) -> None:
    rows = tuple(builders.comparison(one, speedup, 1.0) for one, speedup in speedups.items())
    timing = builders.timing(1.0).model_copy(update={"comparisons": rows})
    assert overtaken_by(timing, name) == other


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (builders.REFERENCE, "the op under torch.compile is not handed over (wrong_output)"),
        ("def Model(): ...", "the op under torch.compile is not handed over (the reference has no"),
    ],
)
def test_why_a_baseline_is_not_handed_over_is_told(source: str, told: str) -> None:
    def refuse(*_: Any) -> WrongOutput:
        return WrongOutput(detail="1 of 8 elements is wrong")

    bench = cast(Workbench, SimpleNamespace(judge=SimpleNamespace(measure=refuse)))
    rows = (Baseline(name="eager", median_ms=3.0), Baseline(name="compile", median_ms=2.0))
    found = keep_baseline(bench, source, Baselines(rows=rows, noise=0.01))
    assert isinstance(found, str)
    assert found.startswith(told)
