"""A task over MCP: the caller writes the kernels, the real graph and the real judge do the rest."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client
from typer.testing import CliRunner

from graph.drive import Interrupted
from graph.folder import RunFolder
from graph.record import RunRecord
from graph.run import app
from tests.graph.conftest import BROKEN, RIGHT, WRONG
from tests.graph.mcp_bench import RELU, SharedHall, ask, refused, settings, with_client, words
from tools.candidate import Candidate
from tools.judge.client import Judge


@dataclass
class Told:
    """What a client was told in one task, from start to finish."""

    runs: Path
    answers: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    @property
    def record(self) -> RunRecord:
        path = self.runs / self.answers["start"]["task"] / "report.json"
        return RunRecord.model_validate_json(path.read_text())


async def whole_task(client: Client, told: Told) -> None:
    async def hear(progress: float, total: float | None, message: str | None) -> None:
        told.lines.append(message or "")

    answers = told.answers
    answers["start"] = await ask(client, "start_task", **RELU, trials=4, rules_first=0)
    task = answers["start"]["task"]
    answers["broken"] = await refused(client, "submit_candidate", task=task, candidate=BROKEN)
    answers["wrong"] = await ask(
        client, "submit_candidate", task=task, candidate=WRONG, title="half of it"
    )
    result = await client.call_tool(
        "submit_candidate",
        {"task": task, "candidate": RIGHT, "parent": answers["wrong"]["trial"]},
        progress_callback=hear,
    )
    assert not result.is_error
    answers["right"] = result.structured_content
    answers["stranger"] = await refused(
        client, "submit_candidate", task=task, candidate=RIGHT, parent=9
    )
    answers["status"] = await ask(client, "task_status", task=task)
    answers["finish"] = await ask(client, "finish", task=task)
    answers["over"] = await refused(client, "submit_candidate", task=task, candidate=RIGHT)


@pytest.fixture(scope="module")
def told(
    tmp_path_factory: pytest.TempPathFactory, relu_judge: Judge, new_library: Callable[[], Path]
) -> Told:
    folder = tmp_path_factory.mktemp("guest")
    given = Told(folder / "runs")
    hall = SharedHall(settings(folder, new_library()), relu_judge)

    async def talk(client: Client) -> None:
        await whole_task(client, given)

    with_client(hall, talk)
    return given


def test_a_task_begins_with_all_that_a_coder_wants_to_know(told: Told) -> None:
    start = told.answers["start"]
    assert start["trials_left"] == 4
    assert {row["name"] for row in start["baselines"]} >= {"eager", "compile"}
    assert start["floor_ms"] > 0
    assert start["parent"] is None
    for piece in ("class ModelNew", "cpp_kernel(", "torch.relu", "# The judge's rules", "[1] "):
        assert piece in start["brief"], piece
    assert all(page["uri"].startswith("kernelwright://pages/") for page in start["pages"])


def test_source_that_is_no_candidate_costs_no_trial(told: Told) -> None:
    assert "candidate" in told.answers["broken"]
    assert told.answers["wrong"]["trial"] == 1
    assert told.answers["wrong"]["trials_left"] == 3


def test_a_wrong_candidate_is_told_what_could_mend_it(told: Told) -> None:
    wrong = told.answers["wrong"]
    assert not wrong["verdict"]["accepted"]
    assert wrong["verdict"]["verdict"] == "wrong_output"
    assert wrong["verdict"]["speed"] is None
    assert wrong["try_next"]
    assert wrong["best"] is None


def test_a_right_candidate_is_timed_and_diagnosed(told: Told) -> None:
    right = told.answers["right"]
    speed = right["verdict"]["speed"]
    assert speed["low"] <= speed["speedup"] <= speed["high"]
    assert right["diagnosis"]["evidence"]
    assert right["best"]["trial"] == right["trial"]
    digest = Candidate(source=RIGHT, backend="torch").digest
    assert right["verdict"]["source_sha256"] == digest


def test_progress_says_what_is_happening(told: Told) -> None:
    said = " ".join(told.lines)
    assert "verify" in said
    assert "measure" in said


def test_a_parent_that_is_no_trial_is_refused(told: Told) -> None:
    assert "[1, 2]" in told.answers["stranger"]


def test_the_status_names_every_trial(told: Told) -> None:
    status = told.answers["status"]
    assert (status["state"], status["trials_left"]) == ("waiting", 2)
    assert [line.partition(",")[0] for line in status["trials"]] == ["trial 1", "trial 2"]


def test_finish_confirms_and_exports(told: Told) -> None:
    outcome, record = told.answers["finish"], told.record
    assert record.finished
    assert outcome["status"] == record.status
    assert outcome["speed"]["confirmed"]
    assert "called it finished" in outcome["ended"]
    assert Path(outcome["report"]).is_file()
    assert Path(outcome["kernel"]).read_text() == outcome["kernel_source"]
    assert record.winner is not None
    assert outcome["source_sha256"] == record.trial(record.winner).candidate.digest


def test_the_record_says_who_wrote_what(told: Told) -> None:
    written = [one for one in told.record.trials if one.candidate.author == "guest"]
    assert [one.parent for one in written] == [None, 1]
    assert [one.title for one in written] == ["half of it", "a candidate"]
    assert all("written by" in one.candidate.labels[0] for one in written)


def test_a_task_that_is_over_takes_nothing_more(told: Told) -> None:
    assert "is not open here" in told.answers["over"]


def test_the_budget_ends_a_task_with_its_outcome(
    tmp_path: Path, relu_judge: Judge, new_library: Callable[[], Path]
) -> None:
    hall = SharedHall(settings(tmp_path, new_library()), relu_judge)

    async def talk(client: Client) -> dict[str, Any]:
        start = await ask(client, "start_task", **RELU, trials=1)
        return await ask(client, "submit_candidate", task=start["task"], candidate=WRONG)

    answer = with_client(hall, talk)
    assert answer["verdict"]["verdict"] == "wrong_output"
    assert answer["outcome"]["status"] == "failed"
    assert "budget of 1 trials is spent" in answer["outcome"]["ended"]


def test_a_task_that_is_left_alone_stops_and_can_be_resumed(
    tmp_path: Path, relu_judge: Judge, new_library: Callable[[], Path]
) -> None:
    library = new_library()
    hall = SharedHall(settings(tmp_path, library, idle_seconds=0.1), relu_judge)

    async def begin(client: Client) -> str:
        start = await ask(client, "start_task", **RELU, trials=3, rules_first=0)
        return str(start["task"])

    task = with_client(hall, begin)
    guest = hall.guest(task)
    assert isinstance(guest.run.ended.exception(20), Interrupted)
    report = (hall.runs / task / "report.html").read_text()
    assert "nothing was handed in" in report or "Not finished" in report

    # The rules would spend its trials, and whoever called could not go on.
    done = CliRunner().invoke(app, ["--resume", str(hall.runs / task), "--quiet"])
    assert done.exit_code == 2
    assert f"start_task with resume={task}" in done.stderr

    again = SharedHall(settings(tmp_path, library), relu_judge)

    async def go_on(client: Client) -> dict[str, Any]:
        await ask(client, "start_task", resume=task)
        return await ask(client, "submit_candidate", task=task, candidate=RIGHT)

    answer = with_client(again, go_on)
    assert answer["verdict"]["accepted"]
    # The server went away with the task open: that too leaves it to be resumed.
    folder, _ = RunFolder.reopen(hall.runs / task)
    with folder.held():
        assert folder.checkpoint.is_file()


def test_the_rules_may_go_first_and_leave_a_parent(
    tmp_path: Path, relu_judge: Judge, new_library: Callable[[], Path]
) -> None:
    hall = SharedHall(settings(tmp_path, new_library()), relu_judge)

    async def talk(client: Client) -> dict[str, Any]:
        return await ask(client, "start_task", **RELU, trials=3, rules_first=1)

    start = with_client(hall, talk)
    assert start["trials_left"] == 2
    assert "What was tried in this run" in start["brief"]


def test_resuming_a_task_that_is_open_leaves_it_open(
    tmp_path: Path, relu_judge: Judge, new_library: Callable[[], Path]
) -> None:
    hall = SharedHall(settings(tmp_path, new_library()), relu_judge)

    async def talk(client: Client) -> tuple[str, dict[str, Any]]:
        start = await ask(client, "start_task", **RELU, trials=3, rules_first=0)
        told = await refused(client, "start_task", resume=start["task"])
        return told, await ask(client, "task_status", task=start["task"])

    told, status = with_client(hall, talk)
    assert "is open still" in told
    assert (status["state"], status["trials_left"]) == ("waiting", 3)


def test_a_task_whose_name_nobody_hears_is_ended(
    tmp_path: Path,
    relu_judge: Judge,
    new_library: Callable[[], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("the page that was found is gone")

    monkeypatch.setattr("graph.mcp.tasks.started", fail)
    hall = SharedHall(settings(tmp_path, new_library()), relu_judge)

    async def talk(client: Client) -> str:
        await refused(client, "start_task", **RELU, trials=2, rules_first=0)
        (run,) = (path.name for path in hall.runs.iterdir())
        return await refused(client, "task_status", task=run)

    assert "Open: none." in with_client(hall, talk)


def test_a_task_whose_beginning_is_cancelled_is_ended(
    tmp_path: Path, relu_judge: Judge, new_library: Callable[[], Path]
) -> None:
    hall = SharedHall(settings(tmp_path, new_library()), relu_judge)

    async def talk(client: Client) -> str:
        heard = anyio.Event()

        async def hear(progress: float, total: float | None, message: str | None) -> None:
            heard.set()

        async def begin() -> None:
            given = {**RELU, "trials": 2, "rules_first": 0}
            await client.call_tool("start_task", given, progress_callback=hear)

        async with anyio.create_task_group() as calls:
            calls.start_soon(begin)
            with anyio.fail_after(30):
                await heard.wait()
            calls.cancel_scope.cancel()
        (run,) = (path.name for path in hall.runs.iterdir())
        with anyio.fail_after(30):
            while "Open: none." not in (told := await status_of(client, run)):
                await anyio.sleep(0.1)
        return told

    assert "is not open here" in with_client(hall, talk)


async def status_of(client: Client, task: str) -> str:
    return words(await client.call_tool("task_status", {"task": task}))
