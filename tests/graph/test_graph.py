"""The real graph and the real judge, driven by a scripted crew."""

from pathlib import Path

import pytest

import graph.conclude
from graph.conclude import tried_in
from graph.record import BASELINE_PLAN, RunRecord
from graph.report.words import headline
from tests.graph.conftest import BROKEN, RAISING, RIGHT, UNWRITABLE, WRONG, NewRuns
from tools.candidate import Candidate
from tools.judge.client import Judge, JudgeDied
from tools.task import Budget
from tools.verdict import BuildFailed, Verdict, WrongOutput


@pytest.fixture(scope="module")
def mended(new_runs: NewRuns) -> RunRecord:
    """Three attempts: a wrong kernel that is mended, one that does not parse, one that raises."""
    return new_runs().run((WRONG, RIGHT), (BROKEN,), (RAISING,), width=3)


@pytest.fixture(scope="module")
def hopeless(new_runs: NewRuns) -> RunRecord:
    """Wrong kernels, and right ones that lie beyond one repair and three trials."""
    attempts = [(WRONG + "#" * n, WRONG + "##" * n, RIGHT) for n in (1, 3, 5)]
    return new_runs().run(*attempts, width=1, budget=Budget(repairs=1, trials=3))


def test_a_wrong_kernel_is_mended_and_its_mend_is_a_child(mended: RunRecord) -> None:
    wrong = next(trial for trial in mended.trials if trial.verdict.kind == "wrong_output")
    right = next(trial for trial in mended.trials if trial.verdict.kind == "correct")
    assert (right.parent, right.repair) == (wrong.number, 1)
    assert wrong.number in {repair.failed_trial for repair in mended.repairs}
    assert mended.winner is not None
    winner = mended.trial(mended.winner)
    # It does what the op does: which of the two is handed over is chance.
    assert winner.number == right.number or winner.plan == BASELINE_PLAN


def test_every_way_to_fail_ends_in_a_verdict_of_its_own(mended: RunRecord) -> None:
    found = [trial for trial in mended.trials if trial.plan != BASELINE_PLAN]
    kinds = sorted(trial.verdict.kind for trial in found)
    assert kinds == ["build_failed", "correct", "crashed", "wrong_output"]


def test_a_run_leaves_its_report_its_kernel_and_every_trial(mended: RunRecord) -> None:
    folder = Path(mended.run_dir)
    left = {path.name for path in folder.iterdir()}
    assert {"task.yaml", "report.html", "report.json", "best", "trials"} <= left
    assert (folder / "best" / "kernel.py").is_file()
    for trial in mended.trials:
        written = (folder / "trials" / str(trial.number) / "kernel.py").read_text()
        assert written == trial.candidate.source


def test_repairs_and_trials_end_with_their_budgets(hopeless: RunRecord) -> None:
    assert len(hopeless.trials) <= 3
    assert max(trial.repair for trial in hopeless.trials) == 1
    assert "budget of 3 trials" in hopeless.ended


def test_a_run_without_a_right_kernel_failed(hopeless: RunRecord) -> None:
    found = (hopeless.status, hopeless.winner, hopeless.confirmation)
    assert found == ("failed", None, None)
    assert hopeless.document()["best"] is None


def test_a_kernel_that_is_wrong_when_it_is_judged_anew_is_a_wrong_kernel(
    new_runs: NewRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = new_runs()
    judge, rejected = runs.judge.confirm, WrongOutput(detail="wrong with other seeds")

    def confirm(candidate: Candidate) -> Verdict:
        return rejected if candidate.source == RIGHT else judge(candidate)

    monkeypatch.setattr(runs.judge, "confirm", confirm)
    monkeypatch.setattr(graph.conclude, "_may_be_faster", lambda _: True)
    record = runs.run((RIGHT,), width=1)
    (trial,) = [one for one in record.trials if one.plan != BASELINE_PLAN]
    assert trial.verdict == rejected
    assert trial.number != record.winner
    assert [one.verdict for one in tried_in(record) if one.trial == trial.number] == [
        "wrong_output"
    ]
    written = RunRecord.model_validate_json(Path(record.run_dir, "report.json").read_text())
    assert written.trial(trial.number).verdict == rejected


@pytest.fixture(scope="module")
def nothing_faster(new_runs: NewRuns) -> RunRecord:
    """A plan that can't be written, and a kernel that is right and slow."""
    slow = RIGHT.replace("return", "torch.sort(x0.repeat(40, 1)); return")
    return new_runs().run((UNWRITABLE,), (slow,), width=2)


def test_what_is_not_faster_is_not_called_faster(nothing_faster: RunRecord) -> None:
    assert nothing_faster.status == "correct"
    speeds = [t.speedup for t in nothing_faster.trials if t.plan != BASELINE_PLAN and t.speedup]
    assert len(speeds) == 1
    assert speeds[0] < 0.9


def test_a_plan_that_cannot_be_written_fails_alone(nothing_faster: RunRecord) -> None:
    (failed,) = [t for t in nothing_faster.trials if isinstance(t.verdict, BuildFailed)]
    assert "there is nothing to fuse" in failed.verdict.log
    assert "could not be written" in failed.candidate.source


def test_where_nothing_is_faster_the_op_itself_is_handed_over(nothing_faster: RunRecord) -> None:
    record = nothing_faster
    assert record.winner is not None
    kept = record.trial(record.winner)
    assert kept.plan == BASELINE_PLAN
    assert record.plan(kept.plan).title == kept.title
    assert record.timing is not None
    assert record.timing.against_best.speedup > 0.5
    assert headline(record).title == "No faster kernel was found"
    text = Path(record.run_dir, "best", "kernel.py").read_text()
    assert "sort" not in text
    assert "class ModelNew" in text


def test_a_budget_that_is_spent_before_anything_was_tried_still_buys_one_trial(
    new_runs: NewRuns,
) -> None:
    record = new_runs().run((RIGHT,), (RIGHT + "#",), budget=Budget(minutes=0.001), width=2)
    tried = [trial for trial in record.trials if trial.plan != BASELINE_PLAN]
    assert [trial.verdict.kind for trial in tried] == ["correct"]
    assert record.winner is not None
    assert "minutes is spent" in record.ended


class DyingJudge:
    """A judge that dies while it builds what is wrong, and while it profiles."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    def __getattr__(self, name: str) -> object:
        return getattr(self._judge, name)

    def build(self, candidate: Candidate) -> BuildFailed | None:
        if candidate.source == WRONG:
            raise JudgeDied("no memory")
        return self._judge.build(candidate)

    def profile(self, candidate: Candidate) -> None:
        raise JudgeDied("no memory")


def test_a_judge_that_dies_while_it_builds_or_profiles_ends_no_run(new_runs: NewRuns) -> None:
    runs = new_runs()
    runs.judge = DyingJudge(runs.judge)
    record = runs.run((WRONG,), (RIGHT,), width=2)
    made = {trial.plan: trial for trial in record.trials}
    assert made["p1"].verdict.kind == "judge_error"
    assert (made["p2"].verdict.kind, made["p2"].profile) == ("correct", None)
    assert record.finished
