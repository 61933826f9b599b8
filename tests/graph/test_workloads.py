"""A task of two workloads in the real graph: one kernel, judged on both, and a mean as headline."""

import io
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from graph.build import build_graph
from graph.record import BASELINE_PLAN, RunRecord
from graph.report.kin import bases_of
from graph.report.story import Chapter, chapters
from graph.report.workloads import listed
from graph.report.write import render_page
from graph.screen import final_screen
from graph.shipping import shipment_of
from graph.state import RunInput
from graph.summary import record_of
from graph.workbench import Workbenches
from graph.workloads import results_of
from knowledge.emit import emit_as_given
from knowledge.emit_dispatch import Variant, join
from tests.graph import builders
from tests.graph.conftest import LIMITS
from tools.candidate import Candidate
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


@pytest.mark.slow
def test_the_exported_test_holds_the_kernel_to_both(record: RunRecord) -> None:
    script = Path(record.run_dir) / "best" / "test_kernel.py"
    done = subprocess.run(
        [sys.executable, "-I", script], cwd=script.parent, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [line.partition(" agrees")[0] for line in done.stdout.splitlines()] == [
        "kernel.py on long", "kernel.py on wide",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("returns", "told"), [("list", "list"), ("({}, ({}, {}))", None), ("{{'y': {}}}", None)]
)
def test_what_is_handed_over_finds_out_by_itself_how_results_are_nested(
    returns: str, told: str | None
) -> None:
    record = builders.a_win()
    graph = builders.graph().model_copy(update={"returns": returns})
    facts = record.facts.model_copy(update={"graph": graph})
    shipment = shipment_of(record.model_copy(update={"facts": facts}))
    assert shipment is not None
    assert shipment.returns == told


def test_what_is_handed_over_has_the_references_text_on_each_workload() -> None:
    record = a_win_on_two()
    shipment = shipment_of(record)
    assert shipment is not None
    assert list(shipment.workloads) == ["long", "wide & <odd>"]
    assert set(shipment.workloads.values()) == {builders.REFERENCE}
    # A record of before there was that text: the leading workload alone is tested then.
    before = record.workloads[1].model_copy(update={"source": ""})
    old = shipment_of(record.model_copy(update={"workloads": (record.workloads[0], before)}))
    assert old is not None
    assert old.workloads == {}


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


def story_of(record: RunRecord) -> dict[str, Chapter]:
    return {chapter.about: chapter for chapter in chapters(record, bases_of(record))}


def with_winner(record: RunRecord, **changes: Any) -> RunRecord:
    """The record, its winner changed."""
    trials = tuple(
        trial.model_copy(update=changes) if trial.number == record.winner else trial
        for trial in record.trials
    )
    return record.model_copy(update={"trials": trials})


def test_the_story_tells_how_many_workloads_and_which_gains_most_and_least() -> None:
    record = a_win_on_two()
    story = story_of(record)
    assert list(story) == ["The op", "On", "To beat", "Tried", "Won", "Workloads"]
    assert story["Workloads"].line == (
        "2, served by one kernel: best on long with 2.41×, worst on wide & <odd> with 0.88×"
    )
    told = story["Workloads"].detail
    assert "the geometric mean, each over the workload's own fastest baseline" in told
    assert "No gain is shown on wide & <odd>." in told
    assert "2048×4096 float32 on long, which leads" in story["The op"].detail
    for about in ("To beat", "Won"):
        assert story[about].line.endswith(", in the mean of all workloads")
    assert "worst on wide &amp; &lt;odd&gt; with 0.88×" in render_page(record)


def test_the_story_tells_where_the_reference_is_kept() -> None:
    record = a_win_on_two()
    long, odd = record.workloads
    small = odd.inputs[0].model_copy(update={"shape": (8, 8), "strides": (8, 1)})
    record = record.model_copy(
        update={"workloads": (long, odd.model_copy(update={"inputs": (small,)}))}
    )
    fast = Variant("long", long.inputs, builders.KERNEL)
    given = Variant(odd.name, (small,), emit_as_given(builders.REFERENCE))
    joined = Candidate(source=join([fast, given]), backend="cpp")
    told = story_of(with_winner(record, candidate=joined))["Workloads"].detail
    assert "The reference is kept on wide & <odd>." in told
    assert "No gain" not in told
    slower = Variant(odd.name, (small,), given.source.replace("0.125", "0.25"))
    joined = Candidate(source=join([fast, slower]), backend="cpp")
    told = story_of(with_winner(record, candidate=joined))["Workloads"].detail
    assert "The reference is kept on none of them. No gain is shown on wide & <odd>." in told


def test_where_no_kernel_is_handed_over_the_reference_is_kept_on_all() -> None:
    record = with_winner(a_win_on_two(), plan=BASELINE_PLAN)
    told = story_of(record)["Workloads"]
    assert told.line == "2, and on all of them the reference is kept: long and wide & <odd>"


def test_of_a_run_that_was_stopped_the_story_has_what_leads_so_far() -> None:
    record = a_win_on_two()
    assert record.confirmation is not None
    assert record.confirmation.timing is not None
    once = record.confirmation.timing.model_copy(update={"confirmed": False})
    changed = with_winner(record, verdict=Correct(timing=once))
    stopped = changed.model_copy(
        update={
            "trials": changed.trials[-1:],
            "winner": None,
            "confirmation": None,
            "finished": False,
        }
    )
    told = story_of(stopped)["Workloads"]
    assert "best on long" in told.line
    assert "measured once, which nothing has confirmed" in told.detail
    nothing = story_of(stopped.model_copy(update={"trials": ()}))["Workloads"]
    assert nothing.line == "2, to be served by one kernel: long and wide & <odd>"


def test_of_many_workloads_the_first_are_named() -> None:
    assert listed([f"w{number}" for number in range(9)]) == "w0, w1, w2, w3, w4, w5 and 3 more"
    assert listed(["one"]) == "one"


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
