"""The real `langgraph dev`, driven over its HTTP API: run, watch, answer, fork, cancel, shut down.

One server for all of it. A whole run is made once, with every question that a person can be asked
in it, and forked once.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

from graph.events import Concluded, TrialJudged, read_events
from graph.record import RunRecord
from tests.graph.served import ASSISTANT, Served, server, skip_without_studio, winner_of

# Small enough that the judge's own minimum is what it takes.
TASK = {
    "name": "gelu",
    "op": "torch.nn.functional.gelu",
    "inputs": [{"shape": [64, 256]}],
    "target": "cpu",
    "budget": {"trials": 5, "minutes": 2},
}
# What an assistant holds: goes over the task.
CONTEXT = {"budget": {"trials": 1}, "width": 1}
# Of a judge that is being ended.
PATIENCE_SECONDS = 90.0


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Served]:
    skip_without_studio()
    # Only now: an indexed library takes a while to make.
    library: Path = request.getfixturevalue("new_library")()
    with server(tmp_path_factory.mktemp("studio"), KERNELWRIGHT_LIBRARY=str(library)) as running:
        yield running


class Talk(NamedTuple):
    """A run that was answered: its thread, its questions, the events of its stream, its end."""

    thread: str
    asked: list[dict[str, Any]]
    streamed: list[tuple[str, Any]]
    values: dict[str, Any]


@pytest.fixture(scope="module")
def talk(served: Served) -> Talk:
    """A run with `approve`: a wrong answer first, then an edit; the whole of its stream is kept."""
    thread = served.client.threads.create()["thread_id"]
    asked: list[dict[str, Any]] = []
    streamed: list[tuple[str, Any]] = []
    given: dict[str, Any] = {"input": {"task": TASK, "approve": True}}
    answers: list[Any] = ["perhaps", {"do": "edit", "title": "by hand"}]
    while True:
        for part in served.client.runs.stream(
            thread,
            ASSISTANT,
            **given,
            context=CONTEXT,
            stream_mode=["updates", "custom"],
            stream_subgraphs=True,
        ):
            streamed.append((part.event, part.data))
        state: Any = served.client.threads.get_state(thread)
        if not state["interrupts"]:
            return Talk(thread, asked, streamed, state["values"])
        asked.append(state["interrupts"][0]["value"])
        assert not _judges(served), "nothing may be running while a person thinks"
        given = {"command": {"resume": answers.pop(0)}}


def _judges(served: Served) -> list[psutil.Process]:
    """What is left of the server's children after a decent wait."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while served.children() and time.monotonic() < deadline:
        time.sleep(0.1)
    return served.children()


def _failure(served: Served, thread: str, **given: Any) -> dict[str, str]:
    """How a run failed that is meant to."""
    values: Any = served.client.runs.wait(thread, ASSISTANT, raise_error=False, **given)
    error: dict[str, str] = values["__error__"]
    return error


def test_the_form_describes_every_key_of_a_task_and_the_settings(served: Served) -> None:
    schemas = served.client.assistants.get_schemas(served.assistant)
    form = schemas["input_schema"]
    assert form["required"] == ["task"]
    task = form["$defs"]["Task"]["properties"]
    bare = [name for name, key in task.items() if not (key.get("description") or key.get("$ref"))]
    assert bare == []
    settings = schemas["context_schema"]["properties"]
    assert {"model", "strategy", "width", "budget", "target"} <= set(settings)
    assert all(key["description"] for key in settings.values())
    assert schemas["output_schema"]
    assert schemas["state_schema"]


def test_the_drawing_has_the_attempt_as_a_subgraph(served: Served) -> None:
    drawn = served.client.assistants.get_graph(served.assistant, xray=True)
    nodes = {str(node["id"]) for node in drawn["nodes"]}
    assert {"prepare", "plan", "approve", "select", "confirm", "conclude"} <= nodes
    assert {"attempt:code", "attempt:verify", "attempt:measure", "attempt:debug"} <= nodes


def test_a_plan_is_asked_about_and_a_wrong_answer_is_asked_for_again(talk: Talk) -> None:
    first, second = talk.asked
    assert (first["kind"], first["trials_left"], first["problem"]) == ("approve_plan", 1, "")
    assert first["plan"]["steps"]
    assert "the answer is not one" in second["problem"]
    assert second["plan"] == first["plan"]


def test_an_edited_plan_is_carried_out_under_its_new_name(talk: Talk) -> None:
    asked = talk.asked[0]["plan"]["id"]
    trial = talk.values["trials"]["1"]
    assert (trial["plan"], trial["title"]) == (f"{asked}e", "by hand")


def test_settings_go_over_the_task(talk: Talk) -> None:
    task = talk.values["task"]
    assert (task["budget"]["trials"], task["budget"]["minutes"], task["width"]) == (1, 2, 1)


def test_node_updates_and_events_are_streamed_from_the_subgraph_too(talk: Talk) -> None:
    updated = [
        (event, node)
        for event, data in talk.streamed
        if event.startswith("updates")
        for node in data
    ]
    nodes = {node for _, node in updated}
    assert {"prepare", "plan", "approve", "code", "verify", "select", "conclude"} <= nodes
    assert any(event.startswith("updates|attempt:") and node == "code" for event, node in updated)
    kinds = [data["kind"] for event, data in talk.streamed if event.startswith("custom")]
    assert {"node_started", "prepared", "planned", "trial_judged"} <= set(kinds)
    assert kinds[-1] == "concluded"


def test_the_run_has_a_folder_like_any_other(talk: Talk, served: Served) -> None:
    folder = Path(talk.values["run_dir"])
    assert folder.parent == served.folder / "runs"
    record = RunRecord.model_validate_json((folder / "report.json").read_text())
    assert record.finished
    assert record.status in ("faster", "correct")
    assert (folder / "best" / "kernel.py").is_file()
    assert winner_of(talk.values).digest == record.trial(record.winner or 0).candidate.digest
    events = read_events(folder / "events.jsonl")
    assert isinstance(events[-1], Concluded)
    assert next(one.number for one in events if isinstance(one, TrialJudged)) == 1
    assert not (folder / "scratch").exists()


def test_a_run_that_ended_leaves_no_process(talk: Talk, served: Served) -> None:
    assert _judges(served) == []


def test_a_fork_goes_on_from_its_checkpoint_under_numbers_of_its_own(
    talk: Talk, served: Served
) -> None:
    before = _verdicts(talk)
    history = served.client.threads.get_history(talk.thread, limit=100)
    point = next(state for state in history if state["next"] == ["approve"])
    served.client.runs.wait(
        talk.thread, ASSISTANT, input=None, checkpoint_id=point["checkpoint"]["checkpoint_id"]
    )
    state: Any = served.client.threads.get_state(talk.thread)
    assert state["interrupts"][0]["value"]["problem"] == "", "it is asked anew"
    served.client.runs.wait(talk.thread, ASSISTANT, command={"resume": "accept"})
    state = served.client.threads.get_state(talk.thread)
    assert state["next"] == []
    tried = {n: t["plan"] for n, t in state["values"]["trials"].items() if t["plan"] != "baseline"}
    asked_about = talk.asked[0]["plan"]["id"]
    assert list(tried.values()) == [asked_about]
    assert not set(tried) & set(before), "what the first branch judged is written over"
    assert _verdicts(talk).items() >= before.items()


def _verdicts(talk: Talk) -> dict[str, str]:
    """What was judged in the run's folder so far, by the trial's number."""
    found = Path(talk.values["run_dir"], "trials").glob("*/verdict.json")
    return {path.parent.name: path.read_text() for path in found}


def test_a_thread_that_holds_a_run_takes_no_other(talk: Talk, served: Served) -> None:
    error = _failure(served, talk.thread, input={"task": TASK})
    assert "thread: holds a run already." in error["message"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {"task": {**TASK, "bugdet": {}}},
            'task: bugdet: is not a known key. Did you mean "budget"',
        ),
        ({"task": {"reference": "no.py"}}, "task: reference: no.py does not exist."),
        ({"task": {**TASK, "target": "cuda:abacus"}}, "task: target"),
        ({"task": {**TASK, "op": "torch.no_such"}}, "no_such"),
        ({"approve": True}, "task: is missing."),
        ({"task": "softmax"}, "task: is not a task"),
    ],
)
def test_bad_input_is_answered_with_one_clear_line(
    served: Served, given: dict[str, Any], told: str
) -> None:
    thread = served.client.threads.create()["thread_id"]
    error = _failure(served, thread, input=given)
    assert error["error"] == "ValueError"
    assert told in error["message"]
    assert "\n" not in error["message"]


def test_bad_input_leaves_no_folder_and_its_thread_can_be_used_again(served: Served) -> None:
    runs = served.folder / "runs"
    before = set(runs.iterdir()) if runs.exists() else set()
    thread = served.client.threads.create()["thread_id"]
    for op in ("torch.no_such", "torch.nor_such"):
        error = _failure(served, thread, input={"task": {**TASK, "op": op}})
        assert op.partition(".")[2] in error["message"]
    assert (set(runs.iterdir()) if runs.exists() else set()) == before


def test_a_run_that_is_cancelled_leaves_no_process(served: Served) -> None:
    client = served.client
    thread = client.threads.create()["thread_id"]
    run = client.runs.create(thread, ASSISTANT, input={"task": TASK}, stream_mode=["custom"])
    for part in client.runs.join_stream(thread, run["run_id"], stream_mode=["custom"]):
        if part.event == "custom" and part.data["kind"] == "node_started":
            break
    _wait_for_judge(served)
    client.runs.cancel(thread, run["run_id"], wait=True)
    assert _judges(served) == []
    assert client.threads.get(thread)["status"] != "busy"


def _wait_for_judge(served: Served) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not served.children():
        assert time.monotonic() < deadline, served.log()
        time.sleep(0.1)


def test_no_call_blocks_the_server_and_its_schemas_are_made(talk: Talk, served: Served) -> None:
    log = served.log()
    assert "blocking call" not in log.lower()
    assert "schema for graph" not in log


def test_a_server_that_is_shut_down_amid_a_run_leaves_no_process(served: Served) -> None:
    """The last one: there is no server any more afterwards."""
    thread = served.client.threads.create()["thread_id"]
    served.client.runs.create(thread, ASSISTANT, input={"task": TASK})
    _wait_for_judge(served)
    children = served.children()
    served.stop()
    _, alive = psutil.wait_procs(children, timeout=PATIENCE_SECONDS)
    assert alive == []
