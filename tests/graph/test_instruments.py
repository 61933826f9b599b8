"""Instruments in a run: read for the trial that leads, and shown in the report."""

import pytest

from agents.brief import Diagnosis
from agents.crew import Crew
from graph.build import build_graph
from graph.record import RunRecord
from graph.report.profiled import CAUSES, diagnosis_text
from graph.report.write import render_page
from graph.state import RunInput
from graph.summary import record_of
from graph.workbench import Workbenches
from tests.graph import builders
from tests.graph.conftest import LIMITS, ScriptedCrew
from tools.task import Task
from tools.verdict import (
    CounterReadings,
    HotSpot,
    KernelCounters,
    Readings,
    SkippedRung,
    TimeReadings,
)

FORWARD = """
import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return {result}
"""
QUICK = FORWARD.format(result="torch.clamp_min(x, 0)")
SLOW = FORWARD.format(result="torch.stack([x.clamp_min(0) for _ in range(40)])[0]")
# Between the two, so that which of them leads is never a matter of noise.
REFERENCE = """
import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return torch.stack([x.relu() for _ in range(10)])[0]


def get_inputs():
    return [torch.randn(64, 64)]


def get_init_inputs():
    return []
"""


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    """Two attempts one after the other: one faster than the reference and one slower."""
    folder = tmp_path_factory.mktemp("instruments")
    reference = folder / "relu.py"
    reference.write_text(REFERENCE)
    script = ScriptedCrew((QUICK,), (SLOW,))
    crew = Crew(script, script, script, script)
    task = Task(name="relu", reference=reference, width=1, strategy="greedy")
    benches = Workbenches(folder / "library", crew, LIMITS, instruments=True)
    try:
        graph = build_graph(benches, runs=folder / "runs")
        return record_of(graph.invoke(RunInput(task=task), {"recursion_limit": 200}))
    finally:
        benches.close_all()


def test_the_leading_trial_is_profiled_by_instruments_and_a_slower_one_is_not(
    record: RunRecord,
) -> None:
    first, second = (record.trial(number).profile for number in (1, 2))
    assert first is not None
    assert isinstance(first.readings, TimeReadings)
    assert first.readings.kernels[0].name == "aten::clamp_min"
    assert first.rung.startswith("torch profiler")
    assert second is not None
    assert second.readings is None


def test_what_was_read_is_evidence_of_the_diagnosis(record: RunRecord) -> None:
    diagnosis = next(one for one in record.diagnoses if one.trial == 1)
    assert any("aten::clamp_min takes" in one for one in diagnosis.evidence)


def page_with(readings: Readings, skipped: tuple[SkippedRung, ...] = ()) -> str:
    """The report of a run whose winner has these readings."""
    run = builders.a_win()
    winner = run.trial(run.winner or 0)
    assert winner.profile is not None
    profile = winner.profile.model_copy(update={"readings": readings, "skipped": skipped})
    changed = winner.model_copy(update={"profile": profile})
    trials = tuple(changed if one.number == winner.number else one for one in run.trials)
    return render_page(run.model_copy(update={"trials": trials}))


def test_the_report_shows_counters_and_lines_and_lets_no_name_out_of_its_place() -> None:
    kernel = KernelCounters(
        function="<script>rows", launches=3, block="", grid="",
        metrics={"gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed": 91.25},
    )  # fmt: skip
    spot = HotSpot(function="rows", line=11, source="x < y", share=0.7)
    page = page_with(CounterReadings(tool="x", kernels=(kernel,), hot_spots=(spot,)))
    assert "DRAM 91.25%" in page
    assert "3 profiled" in page
    assert "70% of samples: x &lt; y" in page
    assert "<script>rows" not in page


def test_the_report_names_the_rungs_that_were_skipped() -> None:
    skipped = SkippedRung(rung="perf stat", reason="this machine does not give cycles")
    page = page_with(TimeReadings(forward_us=1.0, kernels=()), (skipped,))
    assert "No perf stat" in page
    assert "this machine does not give cycles" in page


@pytest.mark.parametrize("cause", sorted(CAUSES))
def test_every_cause_has_words(cause: str) -> None:
    told = diagnosis_text(
        Diagnosis.model_validate(
            {"trial": 1, "bottleneck": "memory", "cause": cause, "headroom": 2.0, "evidence": ()}
        )
    )
    assert CAUSES[cause] in told


def test_no_cause_is_without_words() -> None:
    causes = Diagnosis.model_json_schema()["properties"]["cause"]["enum"]
    assert set(causes) == set(CAUSES)
