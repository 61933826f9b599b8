"""Whole runs with a scripted model behind the crew: the command, the wire, the judge, the files.

One run answers several questions, since each takes seconds. The key that all of them are given may
be found nowhere afterwards.
"""

from collections import Counter
from pathlib import Path

import pytest

from tests.models.conftest import KEY, ROOT, Command, Finished, Play
from tests.models.minds import (
    Able,
    Babbles,
    BabblesAtWork,
    Cheats,
    ErrsAndRepairs,
    Leaves,
    Malforms,
    Slow,
    Spies,
    Stumbles,
    role_of,
)
from tests.models.script import HangsUp, Refuses, Says
from tests.models.server import MODELS, ModelServer


def spoken_tokens(server: ModelServer) -> int:
    """What the server says that it was paid for."""
    pairs = zip(server.questions, server.answers, strict=True)
    return sum(asked.tokens + said.tokens for asked, said in pairs if isinstance(said, Says))


def check_books(run: Finished, server: ModelServer) -> None:
    """The run knows what it spent, keeps every exchange, and keeps the key to itself."""
    report = run.report
    assert report["usage"]["tokens"] == spoken_tokens(server)
    assert not run.files_with(KEY)
    assert KEY not in run.out + run.err
    assert not any(KEY in question.text for question in server.questions)
    makers = {plan["id"]: plan["maker"] for plan in report["plans"]}
    for trial in report["trials"]:
        if makers[trial["plan"]] != "playbook":
            assert run.messages(trial["number"]), trial["title"]


# Elevenfold stands out beside other tests too; the other's gain needs the machine to itself.
@pytest.mark.parametrize(
    "op", ["linear_sum", pytest.param("scale_gelu_sum", marks=pytest.mark.exhaustive)]
)
def test_an_able_model_beats_the_baseline(command: Command, play: Play, op: str) -> None:
    server = play(Able())
    task = ROOT / "examples" / f"{op}.yaml"
    run = command.run(task, server, "budget.trials=1", "budget.minutes=3")
    report = run.report
    assert run.code == 0, run.err
    winner = next(one for one in report["trials"] if one["number"] == report["winner"])
    assert winner["candidate"]["source"].startswith('"""')
    assert f"written by openai:{MODELS[0]}" in winner["candidate"]["labels"]
    assert report["confirmation"]["timing"]["confirmed"]
    assert (run.folder / "best" / "kernel.py").is_file()
    asked = Counter(role_of(question) for question in server.questions)
    # Looked something up, then planned; drafted and had it verified, then handed it over.
    assert (asked["planner"], asked["coder"]) == (2, 2)
    check_books(run, server)


def test_over_anthropics_wire_too(command: Command, play: Play, tiny_task: Path) -> None:
    server = play(Able())
    run = command.run(tiny_task, server, "budget.trials=1", provider="anthropic")
    assert run.code in (0, 3), run.err
    assert run.kinds == ["correct"]
    assert run.report["plans"][0]["maker"] == f"anthropic:{MODELS[0]}"
    check_books(run, server)


def test_what_errs_is_mended_step_by_step(command: Command, play: Play, tiny_task: Path) -> None:
    server = play(ErrsAndRepairs())
    run = command.run(tiny_task, server)
    assert run.code in (0, 3), run.err
    assert run.kinds == ["build_failed", "wrong_output", "correct"]
    actions = [repair["action"] for repair in run.report["repairs"]]
    assert ["not declared" in actions[0], "first row" in actions[1]] == [True, True]
    assert run.report["winner"] is not None
    shown = [question.text for question in server.questions if role_of(question) == "debugger"]
    assert "undeclared" in shown[0]
    assert "was not declared in this scope" in shown[0]
    check_books(run, server)


def test_words_without_code_are_failed_trials(
    command: Command, play: Play, tiny_task: Path
) -> None:
    server = play(BabblesAtWork())
    run = command.run(tiny_task, server)
    assert run.code == 4, run.err
    assert set(run.kinds) == {"build_failed"}
    assert run.report["winner"] is None
    asked = Counter(role_of(question) for question in server.questions)
    # Each answer that can't be read is asked for once more.
    assert asked["coder"] == 2
    check_books(run, server)


@pytest.mark.exhaustive
def test_a_planner_of_words_ends_the_run_in_order(
    command: Command, play: Play, tiny_task: Path
) -> None:
    server = play(Babbles())
    run = command.run(tiny_task, server)
    assert run.code == 4, run.err
    assert run.kinds == []
    assert len(server.questions) == 2
    refused = [refusal["reason"] for refusal in run.report["refused"]]
    assert any("no JSON" in reason for reason in refused)
    check_books(run, server)


@pytest.mark.exhaustive
def test_forms_that_can_not_be_read_cost_a_question_not_the_run(
    command: Command, play: Play, tiny_task: Path
) -> None:
    server = play(Malforms())
    run = command.run(tiny_task, server, "budget.trials=2")
    assert run.code == 4, run.err
    assert set(run.kinds) == {"build_failed"}
    assert "no end" in run.report["trials"][0]["verdict"]["log"]
    assert run.report["plans"], "the second answer of the planner was readable"
    check_books(run, server)


def test_a_cheat_is_caught_and_the_run_goes_on_to_an_honest_kernel(
    command: Command, play: Play, tiny_task: Path
) -> None:
    server = play(Cheats())
    run = command.run(tiny_task, server)
    assert run.code in (0, 3), run.err
    assert run.kinds[0] in ("wrong_output", "cheated")
    assert run.kinds[-1] == "correct"
    caught = run.report["trials"][0]
    assert run.report["winner"] != caught["number"]
    assert "kept" in caught["candidate"]["source"]
    check_books(run, server)


def test_a_spy_finds_no_key_and_is_mended(command: Command, play: Play, tiny_task: Path) -> None:
    server = play(Spies())
    run = command.run(tiny_task, server, "budget.trials=2")
    assert run.code in (0, 3), run.err
    assert run.kinds == ["crashed", "correct"]
    found = run.report["trials"][0]["verdict"]["log"]
    assert "found: [{" in found
    # Not only the value: the variables are not there, so nothing had to be blotted out.
    assert "API_KEY" not in found
    assert "redacted" not in found
    check_books(run, server)


def test_slow_answers_limits_and_errors_are_waited_out(
    command: Command, play: Play, tiny_task: Path
) -> None:
    # A server that quotes the key in its error must not get it into the run's files.
    refusals = [
        Refuses(429, f"slow down, {KEY}", retry_after_s=0.2),
        Refuses(500, f"internal error for {KEY}"),
    ]
    server = play(Slow(Stumbles(Able(), refusals), delay_s=30.0, times=1))
    run = command.run(tiny_task, server, "model_settings.timeout_s=2", "budget.trials=1")
    assert run.code in (0, 3), run.err
    assert run.kinds == ["correct"]
    assert not run.files_with(KEY)
    assert KEY not in run.out + run.err


def test_a_model_that_is_gone_parks_the_run_and_another_finishes_it(
    command: Command, play: Play, tiny_task: Path
) -> None:
    server = play(Leaves(HangsUp()))
    parked = command.run(tiny_task, server, "budget.trials=1", "model_settings.retries=1")
    assert parked.code == 130, parked.err
    assert "--resume" in parked.err
    assert "parked" in parked.report["ended"]
    planned = spoken_tokens(server)
    server.script = Able()
    run = command.resume(parked)
    assert run.code in (0, 3), run.err
    assert run.kinds == ["correct"]
    # The plan was paid for before the run was parked, and is not paid for again.
    assert run.report["usage"]["tokens"] == spoken_tokens(server) > planned
    assert sum(role_of(question) == "planner" for question in server.questions) == 2
    check_books(run, server)
