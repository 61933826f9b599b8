"""The four roles on a scripted model: what they ask, and what they make of the answer."""

from typing import Any

import pytest
from langchain_core.messages import ToolMessage

from agents.llm.coder import ModelCoder
from agents.llm.debugger import ModelDebugger
from agents.llm.planner import ModelPlanner
from agents.llm.profiler import ModelProfiler
from agents.playbook.profiler import PlaybookProfiler
from knowledge.pattern import Step
from knowledge.store import Library
from tests.agents.llm.scripted import (
    MODEL_ID,
    MemoryJournal,
    brief,
    fenced,
    model_plan,
    says,
    talk,
)
from tests.agents.llm.test_tools import Bench
from tests.graph import builders
from tools.verdict import BuildFailed

MODULE = """import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return x
"""
DRAFT: dict[str, Any] = {
    "title": "One sweep of each row",
    "technique": "Fused Row Loop",
    "instructions": "Sweep each row twice while it lies in L1.",
    "expected_speedup": 2.0,
    "arithmetic": "67 MB at 19.4 GB/s are 3.46 ms.",
}
BABBLE = says("Kernels are a fascinating subject.")
FAILED = builders.trial(1, BuildFailed(log="kernel.cpp:7: error: expected ';'"), plan="m1")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return Library.open(tmp_path_factory.mktemp("library"))


def plans(*drafts: dict[str, Any]) -> Any:
    return says("", ("Plans", {"plans": list(drafts), "refused": []}))


def test_a_plan_says_who_made_it_and_what_it_leans_on(library: Library) -> None:
    line, _ = talk(plans(DRAFT | {"pages": [1, 99]}), role="planner")
    (plan,) = ModelPlanner(line, library).plan(brief()).plans
    assert (plan.maker, plan.id, plan.steps) == (MODEL_ID, "m1", ())
    assert plan.pattern == "fused row loop"
    assert plan.instructions == DRAFT["instructions"]
    assert len(plan.citations) == 1


def test_no_more_plans_than_asked_for(library: Library) -> None:
    line, _ = talk(plans(*[DRAFT] * 5), role="planner")
    found = ModelPlanner(line, library).plan(brief(settings={"width": 3})).plans
    assert [plan.id for plan in found] == ["m1", "m2", "m3"]


def test_a_promise_is_cut_to_what_the_roofline_allows(library: Library) -> None:
    line, _ = talk(plans(DRAFT | {"expected_speedup": 1000.0}), role="planner")
    (plan,) = ModelPlanner(line, library).plan(brief()).plans
    assert plan.expected_speedup == pytest.approx(
        builders.COMPILE_MS / builders.roofline().memory_ms
    )
    assert "1e+03x, more than can be" in plan.arithmetic


def test_a_malformed_answer_is_asked_for_once_more_with_the_reason(library: Library) -> None:
    line, chat = talk(plans(DRAFT | {"parent": 7}), plans(DRAFT), role="planner")
    assert len(ModelPlanner(line, library).plan(brief()).plans) == 1
    again = chat.asked[1][-1]
    assert isinstance(again, ToolMessage)
    assert "7 is no trial that was right" in again.text


def test_a_planner_that_babbles_twice_has_no_plans_and_the_report_is_told(library: Library) -> None:
    line, chat = talk(BABBLE, role="planner")
    planning = ModelPlanner(line, library).plan(brief())
    assert planning.plans == ()
    assert planning.refused[0].pattern == MODEL_ID
    assert "no JSON" in planning.refused[0].reason
    assert len(chat.asked) == 2


def test_a_planner_may_look_things_up_first(library: Library) -> None:
    line, chat = talk(
        says("", ("search_library", {"query": "softmax"})), plans(DRAFT), role="planner"
    )
    assert len(ModelPlanner(line, library).plan(brief()).plans) == 1
    assert chat.asked[1][-1].text.startswith("## ")
    assert set(chat.offered[0]) == {"search_library", "device", "Plans"}


def test_a_planner_that_only_looks_things_up_is_stopped(library: Library) -> None:
    line, chat = talk(says("", ("device", {})), role="planner", tool_calls=3)
    assert ModelPlanner(line, library).plan(brief()).plans == ()
    assert len(chat.asked) <= 2 * (3 + 2)


def test_a_coder_gives_a_module_with_its_language_author_and_labels(library: Library) -> None:
    source = MODULE.replace("import torch\n", 'import torch\n\nrun = cpp_kernel("", "f", "p")\n')
    line, _ = talk(says(f"{fenced(source)}\nLabel: assumes frozen weights\n"))
    candidate = ModelCoder(line, library, Bench()).write(brief(), model_plan())
    assert candidate.source == source
    assert (candidate.backend, candidate.author) == ("cpp", MODEL_ID)
    assert candidate.labels == ("assumes frozen weights", f"written by {MODEL_ID}")


def test_a_coder_edits_the_parent_of_the_plan(library: Library) -> None:
    parent = builders.trial(1, builders.correct(builders.timing(6.0)), source=MODULE)
    edit = "<<<<<<< SEARCH\n        return x\n=======\n        return x + 1\n>>>>>>> REPLACE"
    line, chat = talk(says(edit))
    written = ModelCoder(line, library, Bench()).write(
        brief(trials=(parent,)), model_plan(parent=1)
    )
    assert written.source == MODULE.replace("return x", "return x + 1")
    assert MODULE.strip() in chat.asked[0][1].text


def test_a_draft_that_was_tried_is_the_answer_if_nothing_follows_it(library: Library) -> None:
    bench = Bench()
    line, chat = talk(says(fenced(MODULE), ("verify", {})), says("It is right, so I am done."))
    assert ModelCoder(line, library, bench).write(brief(), model_plan()).source == MODULE
    assert chat.asked[1][-1].text == "correct: every output was right\n(call 1 of 4)"


def test_a_coder_that_babbles_twice_fails_the_attempt(library: Library) -> None:
    line, chat = talk(BABBLE)
    with pytest.raises(ValueError, match="no fenced block"):
        ModelCoder(line, library, Bench()).write(brief(), model_plan())
    assert len(chat.asked) == 2


def test_a_debugger_sees_source_and_verdict_and_says_what_it_changed(library: Library) -> None:
    edit = "<<<<<<< SEARCH\nimport torch\n=======\nimport torch  # again\n>>>>>>> REPLACE"
    line, chat = talk(says(f"Change: a missing semicolon.\n{edit}"), role="debugger")
    repaired = ModelDebugger(line, library, Bench()).repair(brief(), model_plan(), FAILED)
    assert repaired is not None
    plan, candidate, change = repaired
    assert change == "a missing semicolon."
    assert "import torch  # again" in candidate.source
    assert "| kernel.cpp:7: error: expected ';'" in chat.asked[0][1].text
    assert plan.maker == candidate.author == MODEL_ID


def test_what_a_model_mended_is_its_own_and_no_recipe_any_more(library: Library) -> None:
    ruled = builders.plan(1, "One fused loop", "row_loop")
    assert ruled.steps == (Step(pattern="row_loop", parameters={"sweeps": 2}),)
    line, _ = talk(says(f"Change: bounds.\n{fenced(MODULE)}"), role="debugger")
    repaired = ModelDebugger(line, library, Bench()).repair(brief(), ruled, FAILED)
    assert repaired is not None
    assert (repaired[0].steps, repaired[0].maker) == ((), MODEL_ID)
    assert repaired[0].pattern == "row_loop"


@pytest.mark.parametrize(
    "said", [says("No way: the op needs sorting."), BABBLE, says(fenced(FAILED.candidate.source))]
)
def test_a_debugger_without_a_change_gives_up(library: Library, said: Any) -> None:
    line, _ = talk(said, role="debugger")
    assert ModelDebugger(line, library, Bench()).repair(brief(), model_plan(), FAILED) is None


def test_a_reading_keeps_the_measured_figures(library: Library) -> None:
    trial = builders.trial(1, builders.correct(builders.timing(6.0)))
    reading = {"bottleneck": "latency", "evidence": ["Divisions depend."], "moves": ["a"] * 9}
    line, _ = talk(says("", ("Reading", reading)), role="profiler")
    found, rules = (
        profiler.explain(brief(), trial)
        for profiler in (ModelProfiler(line, library), PlaybookProfiler())
    )
    assert found.bottleneck == "latency"
    assert found.headroom == rules.headroom
    told = f"as {line.model.id} reads it: Divisions depend."
    assert found.evidence == (*rules.evidence, told)
    assert found.moves == ("a", "a", "a")


def test_where_a_reading_can_not_be_read_the_rules_stands(library: Library) -> None:
    trial = builders.trial(1, builders.correct(builders.timing(6.0)))
    line, _ = talk(BABBLE, role="profiler")
    assert ModelProfiler(line, library).explain(brief(), trial) == PlaybookProfiler().explain(
        brief(), trial
    )


def test_a_run_that_goes_on_asks_nothing_that_was_answered(library: Library) -> None:
    journal = MemoryJournal()
    said = (says(fenced(MODULE), ("verify", {})), says("Done."))
    line, _ = talk(*said, journal=journal)
    first = ModelCoder(line, library, Bench()).write(brief(), model_plan())
    bench = Bench()
    again, chat = talk(*said, journal=journal.restarted())
    assert ModelCoder(again, library, bench).write(brief(seconds_left=3.0), model_plan()) == first
    assert chat.asked == []
    assert bench.done == []
