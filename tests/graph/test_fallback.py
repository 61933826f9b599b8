import pytest

from graph.fallback import worth_compiling
from tools.facts import Baseline, Baselines


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
