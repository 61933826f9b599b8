"""What a finished run leaves in the library: every trial, and what was confirmed as a lesson."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from langgraph.graph import START, StateGraph

from agents.playbook.planner import PlaybookPlanner
from graph.conclude import remember, tried_in
from graph.events import Note, Planned
from graph.folder import RunFolder
from graph.journal import RunJournal
from graph.meter import Meter
from graph.nodes import RunNodes
from graph.record import RunRecord
from graph.state import RunState
from graph.workbench import Workbench
from knowledge.experience import fingerprint, signature
from knowledge.store import Library
from tests.graph import builders
from tools.task import Budget
from tools.verdict import Correct


def test_every_judged_trial_is_kept_with_its_verdict() -> None:
    record = builders.one_of_each()
    assert [one.verdict for one in tried_in(record)] == [t.verdict.kind for t in record.trials]


def test_the_winner_has_its_confirmed_figures_and_the_rest_their_own() -> None:
    record = builders.a_win()
    tried = {one.trial: one for one in tried_in(record)}
    assert record.timing is not None
    assert tried[6].speedup == record.timing.against_best.speedup != record.trial(6).speedup
    assert (tried[6].confirmed, tried[6].won) == (True, True)
    assert tried[1].speedup == record.trial(1).speedup
    assert [one.trial for one in tried.values() if one.confirmed or one.won] == [6]
    assert tried[2].speedup is None
    assert tried[6].steps == record.plan("plan-2").steps


def test_the_op_the_device_and_the_bottleneck_are_kept() -> None:
    first, *_ = tried_in(builders.a_win())
    graph, device = builders.graph(), builders.device()
    assert (first.fingerprint, first.signature) == (fingerprint(graph), signature(graph))
    assert (first.device, first.architecture) == (device.name, device.architecture)
    assert first.bottleneck == "pages"
    assert first.roofline is not None
    assert first.run_id == builders.a_win().run_id


def test_a_repair_is_kept_with_the_failure_that_it_mended() -> None:
    record = builders.a_win()
    mended = record.trial(3).model_copy(update={"parent": 2})
    trials = tuple(mended if trial.number == 3 else trial for trial in record.trials)
    tried = {one.trial: one for one in tried_in(record.model_copy(update={"trials": trials}))}
    told = "Gave the remainder loop its own bound."
    assert (tried[3].mended, tried[3].repair) == ("wrong_output", told)
    assert {one.repair for number, one in tried.items() if number != 3} == {""}


def test_an_op_that_cannot_be_traced_is_kept_and_teaches_nothing() -> None:
    record = builders.a_win()
    facts = record.facts.model_copy(update={"graph": None, "untraceable": "it branches on data"})
    tried = tried_in(record.model_copy(update={"facts": facts}))
    assert len(tried) == len(record.trials)
    assert {one.signature for one in tried} == {""}
    assert all(one.lesson is None for one in tried)


@pytest.mark.parametrize(
    ("record", "lessons"),
    [(builders.a_win(), ["faster"]), (builders.nothing_faster(), ["correct"]),
     (builders.all_failed(), [])],
    ids=["a win", "nothing faster", "all failed"],
)  # fmt: skip
def test_only_what_was_confirmed_becomes_a_lesson(
    tmp_path: Path, record: RunRecord, lessons: list[str]
) -> None:
    library = Library.open(tmp_path / "library", project=tmp_path)
    remember(SimpleNamespace(library=library), record)
    assert len(library.memory.entries()) == len(record.trials)
    found = library.lessons_like(signature(builders.graph()), builders.device().name)
    assert [one.verdict for one in found] == lessons
    assert not library.lessons_like(
        signature(builders.graph()), builders.device().name, unconfirmed=True
    )[len(lessons) :]
    library.close()


def test_a_conclusion_that_is_replayed_is_remembered_once(tmp_path: Path) -> None:
    library = Library.open(tmp_path / "library", project=tmp_path)
    record = builders.a_win()
    for _ in range(2):
        remember(SimpleNamespace(library=library), record)
    assert len(library.memory.entries()) == len(record.trials)
    right = [one for one in library.memory.entries() if one.right]
    assert len(right) == sum(isinstance(trial.verdict, Correct) for trial in record.trials)
    library.close()


def test_a_damaged_memory_is_said_once_and_the_planner_plans_on(tmp_path: Path) -> None:
    library = Library.open(tmp_path / "library", project=tmp_path)
    library.memory.file.write_bytes(b"no database" * 1000)
    crew = SimpleNamespace(planner=PlaybookPlanner(library))
    folder = RunFolder(tmp_path)
    bench = Workbench(
        folder=folder,
        judge=SimpleNamespace(),
        library=library,
        crew=crew,
        journal=RunJournal(folder, Budget()),
        meter=Meter(folder.spent),
    )
    nodes = RunNodes(SimpleNamespace(of=lambda run_dir, task: bench), tmp_path)
    record = builders.record()
    known = ("task", "device", "facts", "baselines", "roofline", "run_dir")
    state = {name: getattr(record, name) for name in known}
    graph = StateGraph(RunState)
    graph.add_node("plan", nodes.plan)
    graph.add_node("again", nodes.plan)
    graph.add_edge(START, "plan")
    graph.add_edge("plan", "again")
    events = list(graph.compile().stream({**state, "seconds": 0.0}, stream_mode="custom"))
    (said,) = [event.text for event in events if isinstance(event, Note)]
    assert "set aside" in said
    assert all(event.plans for event in events if isinstance(event, Planned))
    library.close()
