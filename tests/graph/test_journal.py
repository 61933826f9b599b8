"""The journal keeps what was paid for, and lets nothing through that could break a budget."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agents.llm.exchange import Exchange, Spent
from graph.folder import RunFolder
from graph.journal import Answers, RunJournal, at_work
from graph.ledger import Ledger
from graph.messages import LONGEST
from knowledge.errors import BadInput
from tests.graph.speaking import MODEL, exchange, price
from tools.task import Budget, InputSpec, Task

ROOMY = Budget(tokens=100_000, usd=5.0)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    task = Task(name="relu", op="torch.relu", inputs=(InputSpec(shape=(2, 2)),))
    return RunFolder.create(tmp_path, task)


def said(answer: Exchange | None) -> str:
    return "" if answer is None else str(answer.reply["data"]["content"])


def answered(key: str, text: str, usd: float | None = 0.001) -> Exchange:
    return exchange(key, "coder", "p1", text, usd)


def told_of(folder: RunFolder, trial: int) -> list[str]:
    """What was asked about a trial, as a person reads it."""
    lines = (folder.trials / str(trial) / "messages.jsonl").read_text().splitlines()
    return [json.loads(line)["messages"][0]["text"] for line in lines]


def test_paid_answers_come_back_after_a_restart_in_order_and_once(folder: RunFolder) -> None:
    journal = RunJournal(folder, ROOMY)
    for text in ("first", "second"):
        assert journal.find("k") is None
        journal.keep(answered("k", text))
    again = RunJournal(folder, ROOMY)
    found = [said(again.find("k")) for _ in range(3)]
    assert found == ["an answer to: first", "an answer to: second", ""]


def test_an_answer_is_not_given_again_in_the_run_that_has_just_used_it(folder: RunFolder) -> None:
    journal = RunJournal(folder, ROOMY)
    journal.keep(answered("k", "once"))
    assert journal.find("k") is None


def test_a_half_written_line_is_dropped_and_told(folder: RunFolder) -> None:
    RunJournal(folder, ROOMY).keep(answered("k", "whole"))
    whole = folder.exchanges.read_bytes()
    folder.exchanges.write_bytes(whole + whole[: len(whole) // 2])
    journal = RunJournal(folder, ROOMY)
    assert len(journal.exchanges()) == 1
    assert "half written" in " ".join(journal.complaints())
    assert journal.complaints() == ()
    journal.keep(answered("k", "after"))
    assert len(RunJournal(folder, ROOMY).exchanges()) == 2


def test_a_call_that_could_break_the_budget_of_tokens_is_not_let_through(folder: RunFolder) -> None:
    budget = Budget(tokens=250)
    journal = RunJournal(folder, budget)
    journal.admit(MODEL, 100, 50)
    journal.keep(answered("k", "took 120"))
    # What was spent by an earlier process counts.
    journal = RunJournal(folder, budget)
    journal.admit(MODEL, 100, 30)
    with pytest.raises(Spent, match="250 tokens"):
        journal.admit(MODEL, 100, 31)


def test_a_call_that_could_break_the_budget_of_money_is_not_let_through(folder: RunFolder) -> None:
    journal = RunJournal(folder, Budget(usd=0.002), price)
    journal.admit(MODEL, 100, 50)
    journal.keep(answered("k", "cost a tenth of a cent"))
    with pytest.raises(Spent, match=r"\$0\.00"):
        journal.admit(MODEL, 100, 50)
    journal.admit(MODEL, 50, 50)


def test_an_unknown_price_counts_as_none_and_is_told_once(folder: RunFolder) -> None:
    journal = RunJournal(folder, Budget(usd=0.0))
    journal.admit("nobody:knows", 1000, 1000)
    journal.admit("nobody:knows", 1000, 1000)
    (told,) = journal.complaints()
    assert "price of nobody:knows is unknown" in told


def test_calls_that_are_under_way_count_against_those_that_want_to_start(folder: RunFolder) -> None:
    journal = RunJournal(folder, Budget(tokens=1000))
    everyone_asked = threading.Barrier(4)

    def call(number: int) -> bool:
        try:
            journal.admit(MODEL, 300, 100)
        except Spent:
            everyone_asked.wait(30)
            return False
        everyone_asked.wait(30)
        journal.keep(answered(f"k{number}", "x"))
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(call, range(4))) == [False, False, True, True]


def test_a_call_without_an_answer_counts_where_it_may_be_billed(folder: RunFolder) -> None:
    journal = RunJournal(folder, Budget(tokens=1000))

    def call(billed: bool) -> None:
        journal.admit(MODEL, 500, 100)
        journal.release(billed=billed)

    for billed in (False, True):
        thread = threading.Thread(target=call, args=(billed,))
        thread.start()
        thread.join()
    with pytest.raises(Spent, match="600 are taken"):
        journal.admit(MODEL, 300, 101)
    journal.admit(MODEL, 300, 100)


def test_threads_that_write_at_once_lose_nothing(folder: RunFolder) -> None:
    journal = RunJournal(folder, ROOMY)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: journal.keep(answered(f"k{n}", f"{n}")), range(40)))
    assert len(RunJournal(folder, ROOMY).exchanges()) == 40


def test_with_a_cache_another_run_pays_nothing_for_the_same_question(
    folder: RunFolder, tmp_path: Path
) -> None:
    answers = Answers(tmp_path / "answers")
    RunJournal(folder, ROOMY, price, answers).keep(answered("k" * 64, "paid"))
    other = RunFolder(tmp_path / "other")
    other.trials.mkdir(parents=True)
    journal = RunJournal(other, Budget(tokens=0, usd=0.0), price, answers)
    assert said(journal.find("k" * 64)) == "an answer to: paid"
    assert journal.find("k" * 64) is None
    (mine,) = journal.exchanges()
    assert (mine.usage.input_tokens, mine.usage.usd) == (0, 0.0)


def test_without_a_cache_runs_share_no_answers(folder: RunFolder, tmp_path: Path) -> None:
    RunJournal(folder, ROOMY).keep(answered("k", "paid"))
    other = RunFolder(tmp_path / "other")
    other.trials.mkdir(parents=True)
    assert RunJournal(other, ROOMY).find("k") is None


def test_what_was_said_can_be_read_with_the_trial_bounded(folder: RunFolder) -> None:
    journal = RunJournal(folder, ROOMY)
    with at_work("coder", "p1", 7):
        journal.keep(answered("k", "x" * 10 * LONGEST))
    with at_work("planner"):
        journal.keep(answered("q", "what next"))
    told = (folder.trials / "7" / "messages.jsonl").read_text()
    assert "characters left out" in told
    assert len(told) < 3 * LONGEST
    assert "what next" in (folder.planning / "messages.jsonl").read_text()


def test_an_answer_found_after_a_restart_is_not_written_for_reading_twice(
    folder: RunFolder,
) -> None:
    with at_work("coder", "p1", 7):
        RunJournal(folder, ROOMY).keep(answered("k", "x"))
        again = RunJournal(folder, ROOMY)
        again.find("k")
        again.keep(answered("k", "y"))
    assert told_of(folder, 7) == ["x", "y"]


@pytest.mark.parametrize("part", [0.0, 0.5, 1.0])
def test_what_a_killed_process_had_not_written_for_reading_is_written_once(
    folder: RunFolder, part: float
) -> None:
    with at_work("coder", "p1", 7):
        journal = RunJournal(folder, ROOMY)
        journal.keep(answered("a", "x"))
        path = folder.trials / "7" / "messages.jsonl"
        before = path.read_bytes()
        journal.keep(answered("b", "y"))
        whole = path.read_bytes()
        # It was killed when so much of the second line was on the disk.
        path.write_bytes(whole[: len(before) + int(part * (len(whole) - len(before)))])
        again = RunJournal(folder, ROOMY)
        again.find("a")
        again.find("b")
        again.keep(answered("c", "z"))
    assert told_of(folder, 7) == ["x", "y", "z"]


def test_a_file_of_messages_is_read_once_however_many_are_added(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    recover = Ledger.recover

    def counted(ledger: Ledger) -> tuple[list[str], bool]:
        read.append(ledger.path)
        return recover(ledger)

    monkeypatch.setattr(Ledger, "recover", counted)
    with at_work("coder", "p1", 7):
        journal = RunJournal(folder, ROOMY)
        for number in range(50):
            journal.keep(answered(f"k{number}", str(number)))
    assert read == [folder.exchanges, folder.trials / "7" / "messages.jsonl"]
    assert told_of(folder, 7) == [str(number) for number in range(50)]


def test_a_key_in_a_message_is_never_written(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = 'sk-"planted"-0123456789'
    monkeypatch.setenv("SOME_PROVIDER_API_KEY", key)
    journal = RunJournal(folder, ROOMY)
    with at_work("coder", "p1", 1):
        journal.keep(answered("k", f"the key is {key}"))
    for path in folder.path.rglob("*.jsonl"):
        assert "planted" not in path.read_text()
    assert "[redacted]" in said(RunJournal(folder, ROOMY).find("k"))


def test_a_line_of_json_may_hold_other_ends_of_lines(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "lines.jsonl")
    for line in ('{"said": "one\u2028two\x85three"}', '{"said": "four"}'):
        ledger.append(line)
    assert ledger.whole_lines() == ledger.recover()[0]
    assert len(ledger.whole_lines()) == 2


def test_a_line_that_cannot_be_read_among_shared_answers_is_passed_over(tmp_path: Path) -> None:
    answers, key = Answers(tmp_path / "answers"), "k" * 64
    answers.keep(answered(key, "first"), 0)
    (file,) = tmp_path.rglob("*.jsonl")
    whole = file.read_text()
    before = f'{whole}{{"of": "another release"}}\n{whole.strip()[:20]}'
    file.write_text(before)
    assert said(answers.find(key, 0)) == "an answer to: first"
    assert answers.find(key, 1) is None
    # The last line may be one that another process is writing.
    assert file.read_text() == before
    answers.keep(answered(key, "second"), 1)
    assert file.read_text().startswith(before)
    assert said(answers.find(key, 1)) == "an answer to: second"


def test_answers_that_are_out_of_reach_are_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "answers").write_text("no folder")
    with pytest.raises(BadInput, match="cannot be used"):
        Answers(tmp_path / "answers").find("k" * 64, 0)
