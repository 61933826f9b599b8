"""Runs as data for training: what becomes an example, what does not, and what the card says."""

import json
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import (
    AIMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    message_to_dict,
    messages_to_dict,
)
from typer.testing import CliRunner

from agents.llm.exchange import Exchange, Usage
from eval.examples import (
    MOST_PAIRS,
    NO_REWARD,
    NOT_FASTER,
    TWICE,
    Census,
    _once,
    examples,
    prompt_key,
)
from eval.export import app
from eval.trajectories import Trajectory, run_folders, trajectories
from graph.record import BASELINE_PLAN, RunRecord
from knowledge.errors import BadInput
from tests.graph import builders
from tools.facts import CONSTANT
from tools.judge.reward import reward_of
from tools.task import InputSpec, Task
from tools.verdict import Cheated, JudgeError, Trial

MODEL = "openai:gpt-5"


def each_its_own(record: RunRecord, **candidates: Any) -> RunRecord:
    """The record with a source of its own for each trial."""

    def told(trial: Trial) -> Trial:
        source = f"{trial.candidate.source}# trial {trial.number} of {record.run_id}\n"
        update = {"source": source} | candidates
        return trial.model_copy(update={"candidate": trial.candidate.model_copy(update=update)})

    return record.model_copy(update={"trials": tuple(map(told, record.trials))})


def a_run(folder: Path, record: RunRecord, *exchanges: Exchange) -> Path:
    """A run's folder with that record."""
    (folder / "trials").mkdir(parents=True)
    (folder / "task.yaml").write_text("name: softmax\n")
    (folder / "report.json").write_text(record.model_dump_json())
    lines = [one.model_dump_json() for one in exchanges]
    (folder / "exchanges.jsonl").write_text("".join(f"{line}\n" for line in lines) + '{"half')
    return folder


def found(folder: Path) -> list[Trajectory]:
    return [one for one in trajectories(folder) if isinstance(one, Trajectory)]


def made(out: Path, form: str, *places: Path) -> list[dict[str, Any]]:
    done = CliRunner().invoke(app, [*map(str, places), "--as", form, "--out", str(out)])
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_only_settled_verdicts_have_a_reward(tmp_path: Path) -> None:
    record = each_its_own(builders.a_win())
    by_trial = {one.trial: one for one in found(a_run(tmp_path / "run", record))}
    assert record.confirmation is not None
    # Right and measured once: 1, 3, 5. Rejected: 2, 4. The winner: 6, by its confirmation.
    assert [by_trial[n].reward for n in (1, 3, 5)] == [None] * 3
    assert [by_trial[n].reward for n in (2, 4)] == [0.0, 0.0]
    assert by_trial[6].reward == reward_of(record.confirmation)
    assert record.timing is not None
    assert by_trial[6].speedup == record.timing.against_best.speedup
    assert by_trial[6].faster


def test_a_judge_that_failed_says_nothing_and_a_baseline_is_no_kernel(tmp_path: Path) -> None:
    trials = (
        builders.trial(1, JudgeError(log="it died")),
        builders.trial(2, Cheated(check="poison", detail="left")),
        builders.trial(3, builders.correct(builders.timing(9.0))),
    )
    record = each_its_own(builders.record(trials))
    last = record.trials[2].model_copy(update={"plan": BASELINE_PLAN})
    record = record.model_copy(update={"trials": (*record.trials[:2], last)})
    assert [one.reward for one in found(a_run(tmp_path / "run", record))] == [None, -1.0]


def test_a_rules_kernel_has_the_prompt_that_a_model_would_have_been_asked(tmp_path: Path) -> None:
    record = each_its_own(builders.a_win())
    trials = list(record.trials)
    # The third mends the second, as a graph's attempt has it.
    trials[2] = trials[2].model_copy(update={"parent": 2})
    record = record.model_copy(update={"trials": tuple(trials)})
    by_trial = {one.trial: one for one in found(a_run(tmp_path / "run", record))}
    winner, mended = by_trial[6], by_trial[3]
    assert winner.prompt_is == "rendered"
    assert [message["role"] for message in winner.prompt] == ["system", "user"]
    assert "One fused loop" in by_trial[1].prompt[1]["content"]
    assert "torch.softmax(x * 0.125" in winner.prompt[1]["content"]
    # No tool is spoken of, and nothing that came later.
    assert "calls are answered in this turn" not in winner.prompt[0]["content"]
    assert "trial 6 of" not in json.dumps(winner.prompt)
    assert winner.completion[-1]["content"].startswith("```python\n")
    assert mended.role == "debugger"
    assert "wrong_output" in mended.prompt[1]["content"]
    assert mended.completion[0]["content"].startswith("Change: Gave the remainder loop")


def exchange(role: str, plan: str, *said: Any) -> Exchange:
    *messages, reply = said
    return Exchange(
        key="k",
        role=role,
        plan=plan,
        model=MODEL,
        messages=tuple(messages_to_dict(messages)),
        reply=message_to_dict(reply),
        usage=Usage(input_tokens=1, output_tokens=1),
        seconds=1.0,
        when="2026-11-28T00:00:00+00:00",
    )


def test_a_models_kernel_has_its_whole_conversation_tools_included(tmp_path: Path) -> None:
    call = {"name": "verify", "args": {"source": ""}, "id": "c1", "type": "tool_call"}
    asked = [SystemMessage("You write kernels."), HumanMessage("Plan 2, at 4.17 ms.")]
    working = [AIMessage("", tool_calls=[call]), ToolMessage("correct", tool_call_id="c1")]
    answer = AIMessage([{"type": "text", "text": "```python\nclass ModelNew: ...\n```"}])
    record = each_its_own(builders.a_win(), author=MODEL)
    folder = a_run(
        tmp_path / "run",
        record,
        exchange("coder", "plan-2", *asked, working[0]),
        exchange("coder", "plan-2", *asked, *working, answer),
        exchange("profiler", "plan-2", *asked, AIMessage("memory bound")),
    )
    winner = next(one for one in found(folder) if one.trial == 6)
    assert winner.prompt_is == "asked"
    assert [message["role"] for message in winner.prompt] == ["system", "user"]
    assert [m["role"] for m in winner.completion] == ["assistant", "tool", "assistant"]
    assert winner.completion[0]["tool_calls"][0]["function"]["name"] == "verify"
    assert winner.completion[1]["tool_call_id"] == "c1"
    assert winner.completion[2]["content"].startswith("```python")
    # Of a trial that nobody finds the conversation of, the prompt is rendered.
    assert next(one for one in found(folder) if one.trial == 1).prompt_is == "rendered"


def test_sft_takes_confirmed_wins_alone_and_rl_whatever_is_settled(tmp_path: Path) -> None:
    run = a_run(tmp_path / "runs" / "a", each_its_own(builders.a_win()))
    sft, rl = (made(tmp_path / f"{form}.jsonl", form, run) for form in ("sft", "rl"))
    assert [one["meta"]["trial"] for one in sft] == [6]
    assert set(sft[0]) == {"prompt", "completion", "meta"}
    assert [(one["meta"]["trial"], one["meta"]["verdict"]) for one in rl] == [
        (2, "wrong_output"), (4, "build_failed"), (6, "correct"),
    ]  # fmt: skip
    assert rl[2]["reward"] > 0.5
    told = (tmp_path / "rl.md").read_text()
    assert f"left out: {NO_REWARD} | 3" in told
    assert "0.1 + ln(low)" in told
    assert NOT_FASTER in (tmp_path / "sft.md").read_text()


def test_pairs_are_of_one_op_and_a_win_beside_what_earned_clearly_less(tmp_path: Path) -> None:
    a_run(tmp_path / "runs" / "a", each_its_own(builders.a_win()))
    slower = each_its_own(builders.nothing_faster().model_copy(update={"run_id": "another"}))
    a_run(tmp_path / "runs" / "deep" / "b", slower)
    pairs = made(tmp_path / "pairs.jsonl", "preference", tmp_path / "runs")
    chosen = {pair["meta"]["chosen"]["run"] for pair in pairs if pair["chosen_reward"] > 0.5}
    assert len(chosen) == 1
    assert all(pair["chosen_reward"] > pair["rejected_reward"] for pair in pairs)
    assert all(pair["chosen"] != pair["rejected"] for pair in pairs)
    assert len({json.dumps(pair["prompt"]) for pair in pairs}) == 1
    # A kernel that was confirmed as slower is one of those that the winner is preferred to.
    assert ("another", "correct") in {
        (pair["meta"]["rejected"]["run"], pair["meta"]["rejected"]["verdict"]) for pair in pairs
    }


def test_a_chosen_kernel_has_no_more_than_so_many_pairs() -> None:
    (one,) = [t for t in [_trajectory(0, 2.0)] if t.reward]
    others = [_trajectory(n, None) for n in range(1, 2 * MOST_PAIRS)]
    assert len(list(examples([one, *others], "preference", Census()))) == MOST_PAIRS


def _trajectory(number: int, low: float | None) -> Trajectory:
    message = {"role": "user", "content": f"make it fast, {number}.5 ms"}
    return Trajectory(
        run="r", trial=number, task="t", author="playbook", role="coder", prompt=(message,),
        completion=(message,), prompt_is="rendered", task_prompt=(message,), kernel=f"k{number}",
        digest=f"d{number}", reference="f", device="cpu", licence="MIT", judge="j", versions={},
        verdict="correct" if low else "crashed", reward=low or 0.0, faster=bool(low),
        speedup=low, interval=(low, low) if low else None,
    )  # fmt: skip


def test_a_kernel_is_taken_once_for_prompts_that_differ_in_figures_alone(tmp_path: Path) -> None:
    first = {"role": "user", "content": "eager takes 4.17 ms"}
    assert prompt_key([first]) == prompt_key([first | {"content": "eager takes 4.3 ms"}])
    assert prompt_key([first]) != prompt_key([first | {"content": "compile takes 4.17 ms"}])
    record = builders.a_win()
    for name in ("a", "b"):
        a_run(tmp_path / "runs" / name, record.model_copy(update={"run_id": name}))
    made(tmp_path / "rl.jsonl", "rl", tmp_path / "runs")
    assert f"left out: {TWICE} | 3" in (tmp_path / "rl.md").read_text()


@pytest.mark.parametrize(
    ("changes", "kept"), [({}, 1), ({"device": "b"}, 2), ({"reference": "g"}, 2)]
)
def test_a_kernel_is_taken_once_for_one_op_on_one_device(
    changes: dict[str, str], kept: int
) -> None:
    one = _trajectory(0, 2.0)
    census = Census()
    assert len(list(_once([one, one.model_copy(update=changes)], census))) == kept


def test_licences_are_kept_and_an_unknown_one_is_called_so(tmp_path: Path) -> None:
    record = builders.a_win()
    source = f"# SPDX-License-Identifier: Apache-2.0 OR MIT\n{record.facts.source}"
    facts = record.facts.model_copy(update={"source": source})
    task = Task(name="r", op="torch.relu", inputs=(InputSpec(shape=(2,)),), licence="BSD-3-Clause")
    told = [
        record,
        record.model_copy(update={"task": task}),
        record.model_copy(update={"task": task, "facts": facts}),
    ]
    runs = [a_run(tmp_path / str(number), one) for number, one in enumerate(told)]
    licences = [found(run)[0].licence for run in runs]
    assert licences == ["unknown", "BSD-3-Clause", "Apache-2.0 OR MIT"]


def test_no_key_and_no_home_gets_into_the_file_or_its_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-1234")
    monkeypatch.setenv("HOME", "/home/ada")
    record = each_its_own(builders.a_win())
    source = f"# sk-very-secret-1234 in /home/ada/op.py\n{record.facts.source}"
    record = record.model_copy(update={"facts": record.facts.model_copy(update={"source": source})})
    made(tmp_path / "rl.jsonl", "rl", a_run(tmp_path / "run", record))
    text = (tmp_path / "rl.jsonl").read_text() + (tmp_path / "rl.md").read_text()
    assert "sk-very-secret" not in text
    assert "/home/ada" not in text
    assert "[redacted] in ~/op.py" in text


def test_an_op_on_which_a_verdict_says_nothing_is_left_out_whole(tmp_path: Path) -> None:
    constant = builders.record(builders.a_win().trials, cautions=(CONSTANT,))
    runs = a_run(tmp_path / "runs" / "a", constant).parent
    a_run(runs / "b", each_its_own(builders.a_win()))
    made(tmp_path / "rl.jsonl", "rl", runs)
    assert f"Runs that gave nothing: {CONSTANT} 1" in (tmp_path / "rl.md").read_text()


def test_the_card_names_device_versions_and_judge(tmp_path: Path) -> None:
    made(tmp_path / "rl.jsonl", "rl", a_run(tmp_path / "run", each_its_own(builders.a_win())))
    told = (tmp_path / "rl.md").read_text()
    for what in (builders.device().name, "torch 2.13.0", "By judge:", "By licence", "## Limits"):
        assert what in told


@pytest.mark.parametrize(
    ("form", "place", "told"),
    [("dpo", "run", "no form of data"), ("rl", "missing", "is not a folder"),
     ("rl", "empty", "holds no run"), ("preference", "failed", "finds nothing")],
)  # fmt: skip
def test_a_mistake_is_one_line_and_nothing_is_written(
    form: str, place: str, told: str, tmp_path: Path
) -> None:
    a_run(tmp_path / "run", each_its_own(builders.a_win()))
    a_run(tmp_path / "failed", each_its_own(builders.all_failed()))
    (tmp_path / "empty").mkdir()
    out = tmp_path / "data" / "x.jsonl"
    done = CliRunner().invoke(app, [str(tmp_path / place), "--as", form, "--out", str(out)])
    assert done.exit_code == 2
    assert told in done.output
    assert len(done.output.splitlines()) == 1
    assert not out.exists()
    assert not list(tmp_path.glob("data/*"))


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", each_its_own(builders.a_win()))
    (tmp_path / "x.md").write_text("mine")
    done = CliRunner().invoke(app, [str(run), "--as", "rl", "--out", str(tmp_path / "x.jsonl")])
    assert done.exit_code == 2
    assert (tmp_path / "x.md").read_text() == "mine"


@pytest.mark.parametrize("out", [".", "..", "/"])
def test_a_folder_in_the_place_of_the_file_is_one_clear_line(out: str, tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", each_its_own(builders.a_win()))
    done = CliRunner().invoke(app, [str(run), "--as", "rl", "--out", out])
    assert done.exit_code == 2
    assert done.output == f"--out {out}: is a folder. Give the name of a file.\n"


def test_runs_are_found_at_any_depth_each_once(tmp_path: Path) -> None:
    run = a_run(tmp_path / "problems" / "001-x" / "run" / "id", builders.a_win())
    assert run_folders([tmp_path, run]) == [run]
    with pytest.raises(BadInput):
        run_folders([run / "trials"])
