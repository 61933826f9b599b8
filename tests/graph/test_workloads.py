"""A task of two workloads in the real graph: one kernel, judged on both, and a mean as headline."""

import io
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from graph.build import build_graph
from graph.record import RunRecord
from graph.report.write import render_page
from graph.screen import final_screen
from graph.state import RunInput
from graph.summary import record_of
from graph.workbench import Workbenches
from graph.workloads import results_of
from tests.graph import builders
from tests.graph.conftest import LIMITS
from tools.facts import WorkloadFacts
from tools.judge.combine import combined_timing
from tools.task import load_task
from tools.verdict import Correct, WorkloadTiming

TASK = """\
op: torch.softmax(x * 3.0, -1) - torch.sigmoid(x) * x
workloads:
  - {name: long, inputs: {x: {shape: [700, 640]}}}
  - {name: wide, inputs: {x: {shape: [3, 50, 2048]}}}
target: cpu
width: 1
budget: {trials: 2, repairs: 1}
"""


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory, new_library: Callable[[], Path]) -> RunRecord:
    folder = tmp_path_factory.mktemp("workloads")
    (folder / "two.yaml").write_text(TASK)
    task = load_task(folder / "two.yaml")
    benches = Workbenches(new_library(), None, LIMITS)
    try:
        graph = build_graph(benches, runs=folder / "runs")
        return record_of(graph.invoke(RunInput(task=task), {"recursion_limit": 50}))
    finally:
        benches.close_all()


@pytest.mark.slow
def test_the_kernel_is_right_and_timed_on_both(record: RunRecord) -> None:
    assert record.status in ("faster", "correct")
    assert record.winner is not None
    assert [one.name for one in record.workloads] == ["long", "wide"]
    assert [one.inputs[0].shape for one in record.workloads] == [(700, 640), (3, 50, 2048)]
    assert all(one.speedup and one.interval and one.kernel_ms for one in record.workloads)
    cases = {case.name.partition(":")[0] for case in record.confirmation.cases}
    assert cases <= {"long", "wide"}


@pytest.mark.slow
def test_the_headline_is_the_geometric_mean_of_the_workloads(record: RunRecord) -> None:
    assert record.timing is not None
    assert record.timing.confirmed
    logs = [math.log(one.speedup or 0.0) for one in record.workloads]
    assert math.log(record.timing.against_best.speedup) == pytest.approx(sum(logs) / 2)


@pytest.mark.slow
def test_the_figures_are_in_every_document(record: RunRecord) -> None:
    folder = Path(record.run_dir)
    document = json.loads((folder / "report.json").read_text())
    rows = document["workloads"]
    assert [row["name"] for row in rows] == ["long", "wide"]
    assert [row["speedup"] for row in record.document()["workloads"]] == [
        row["speedup"] for row in rows
    ]
    page = (folder / "report.html").read_text()
    assert 'id="workloads"' in page
    assert "3x50x2048 float32" in page
    kernel = (folder / "best" / "kernel.py").read_text()
    assert "wide: 3x50x2048 float32" in kernel


def a_win_on_two() -> RunRecord:
    """The builder's win, as of two workloads: one faster, one not."""
    timings = [
        WorkloadTiming(name="long", timing=builders.timing(4.0, confirmed=True)),
        WorkloadTiming(name="wide & <odd>", timing=builders.timing(11.0, confirmed=True)),
    ]
    workloads = [
        WorkloadFacts(
            name=one.name, facts=builders.facts(), baselines=builders.baselines(),
            roofline=builders.roofline(),
        )
        for one in timings
    ]  # fmt: skip
    combined = combined_timing(timings)
    won = builders.a_win()
    return won.model_copy(
        update={
            "confirmation": Correct(timing=combined),
            "workloads": results_of(workloads, combined),
        }
    )


def test_every_workload_is_a_row_in_report_and_screen() -> None:
    record = a_win_on_two()
    page = render_page(record)
    assert "wide &amp; &lt;odd&gt;" in page
    drawn = io.StringIO()
    Console(file=drawn, width=100).print(final_screen(record))
    text = drawn.getvalue()
    assert "wide & <odd>" in text
    assert "0.88×" in text


def test_a_run_of_one_workload_has_no_table_of_them() -> None:
    assert 'id="workloads"' not in render_page(builders.a_win())
    assert builders.a_win().document()["workloads"] == []


def test_an_interrupted_run_shows_its_baselines_and_no_kernel() -> None:
    record = a_win_on_two()
    facts = [
        WorkloadFacts(
            name="long", facts=builders.facts(), baselines=builders.baselines(),
            roofline=builders.roofline(),
        )
    ]  # fmt: skip
    unfinished = record.model_copy(update={"workloads": results_of(facts, None)})
    page = render_page(unfinished)
    assert 'id="workloads"' in page
    assert unfinished.workloads[0].faster is None
