"""A run that is killed goes on where it was: nothing is lost, judged or paid for twice."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from graph.meter import Lap
from graph.record import BASELINE_PLAN, RunRecord
from tests.graph.speaking import MODEL, TOKENS_IN, TOKENS_OUT

PROJECT = Path(__file__).resolve().parents[2]
NODES = (
    "prepare",
    "plan",
    "code",
    "compile",
    "verify",
    "debug",
    "measure",
    "profile",
    "select",
    "confirm",
    "conclude",
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("killed")


@pytest.fixture(scope="module")
def ends(base: Path) -> list[str]:
    """How each process of one run ended, that was killed in every node."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.graph.killed", str(base), *NODES],
        cwd=PROJECT, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def record(base: Path, ends: list[str]) -> RunRecord:
    (report,) = base.glob("*/report.json")
    return RunRecord.model_validate_json(report.read_text())


def test_a_run_that_is_killed_in_each_node_comes_to_its_end(
    ends: list[str], record: RunRecord
) -> None:
    assert ends == [*(f"{node} -9" for node in NODES), "end 0"]
    assert record.finished


def test_its_trials_are_those_of_a_run_that_was_not_killed(record: RunRecord) -> None:
    tried = [trial for trial in record.trials if trial.plan != BASELINE_PLAN]
    assert [(t.number, t.plan, t.verdict.kind) for t in tried] == [
        (1, "p1", "wrong_output"),
        (2, "p1r1", "correct"),
    ]
    assert tried[1].parent == 1
    assert {one.trial for one in record.diagnoses} == {2}
    folder = Path(record.run_dir, "trials")
    numbers = sorted(int(path.name) for path in folder.iterdir())
    assert numbers == [trial.number for trial in record.trials]


def test_no_question_is_paid_for_twice(base: Path, record: RunRecord) -> None:
    bills = (base / "paid").read_text().splitlines()
    assert len(bills) == len(set(bills)) == 5
    assert record.usage.tokens == 5 * (TOKENS_IN + TOKENS_OUT)
    assert {share.model for share in record.usage.shares} == {MODEL}


def test_nothing_is_judged_twice(record: RunRecord) -> None:
    lines = Path(record.run_dir, "spent.jsonl").read_text().splitlines()
    laps = [Lap.model_validate_json(line) for line in lines]
    judged = Counter((lap.what, lap.candidate) for lap in laps)
    tried = [t.candidate.digest for t in record.trials if t.plan != BASELINE_PLAN]
    for what in ("build", "verify"):
        assert [judged[what, digest] for digest in tried] == [1, 1]
    assert judged["survey", ""] == 1
    assert judged["profile", tried[1]] == 1
    assert {n for (what, _), n in judged.items() if what == "confirm"} == {1}


def test_time_is_counted_over_restarts(record: RunRecord) -> None:
    lines = Path(record.run_dir, "spent.jsonl").read_text().splitlines()
    laps = [Lap.model_validate_json(line) for line in lines]
    assert record.seconds >= sum(lap.wall_seconds for lap in laps[:-1]) * 0.99
    assert 0 < record.usage.device_seconds <= record.seconds


def test_what_was_said_of_a_trial_lies_with_it(record: RunRecord) -> None:
    said = {
        place: Path(record.run_dir, place, "messages.jsonl").read_text().count('"role"')
        for place in ("planning", "trials/1", "trials/2")
    }
    # The coder and the debugger spoke of the first trial, the profiler of the second.
    assert said == {"planning": 2, "trials/1": 2, "trials/2": 1}
