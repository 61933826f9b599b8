"""The benchmark of experience: which runs it starts, in which libraries, and what it counts."""

import ast
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from agents.brief import Plan
from benchmarks.experience import Row, at_most, chosen, document_of, measure
from benchmarks.pairs import PAIRS, Pair
from eval.process import Ended, Execute
from graph.events import Planned, Prepared, TrialJudged, append_event
from graph.record import BASELINE_PLAN
from knowledge.errors import BadInput
from knowledge.experience import ALIKE, fingerprint, likeness, signature
from knowledge.opgraph import OpGraph
from tests.graph import builders
from tools.reference import load
from tools.task import load_task
from tools.trace import trace
from tools.verdict import Verdict

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
MISS = builders.every_verdict()[3]


def right(speedup: float) -> Verdict:
    return builders.correct(builders.timing(builders.COMPILE_MS / speedup))


class Runs:
    """Stands where `graph.run` is started: leaves the events of a run of known verdicts.

    It searches like a planner with a memory: in a library where something was found before, what
    was found last comes first.
    """

    def __init__(self, *verdicts: Verdict) -> None:
        self.verdicts = verdicts
        self.commands: list[list[str]] = []
        self.deadlines: list[float] = []

    def __call__(self, command: list[str], deadline_s: float, log: Path) -> Ended:
        self.commands.append(command)
        self.deadlines.append(deadline_s)
        known = Path(command[1].partition("=")[2])
        out = Path(command[command.index("--out") + 1]) / str(len(self.commands))
        out.mkdir(parents=True)
        warm = known.exists()
        known.mkdir(exist_ok=True)
        self._events(out / "events.jsonl", self.verdicts[::-1] if warm else self.verdicts, warm)
        document = builders.a_win().document() | {"run_dir": str(out)}
        return Ended(0, json.dumps(document), "", 1.0)

    def _events(self, path: Path, verdicts: tuple[Verdict, ...], warm: bool) -> None:
        def at(seconds: int) -> str:
            return (BEGAN + timedelta(seconds=seconds)).isoformat()

        arithmetic = "Experience: it won before." if warm else "4 MB less."
        plan = Plan(id="p1", title="", steps=(), expected_speedup=2.0, arithmetic=arithmetic)
        append_event(path, Prepared(
            at=at(0), device="", baselines=builders.baselines(), roofline=builders.roofline(),
        ))  # fmt: skip
        append_event(path, Planned(at=at(0), plans=(plan,)))
        last = builders.trial(len(verdicts) + 1, right(9.0), plan=BASELINE_PLAN)
        trials = [builders.trial(n, verdict) for n, verdict in enumerate(verdicts, 1)]
        for trial in [*trials, last]:
            event = TrialJudged.of(trial).model_copy(update={"at": at(10 * trial.number)})
            append_event(path, event)


def rows(folder: Path, runs: Execute, only: str, *settings: str) -> list[Row]:
    return list(measure(chosen(only), folder, settings, run=runs, tell=lambda line: None))


def test_cold_and_warm_are_counted_to_the_speedup_that_both_reach(tmp_path: Path) -> None:
    (row,) = rows(tmp_path, Runs(MISS, right(1.2), right(1.9), right(2.0)), "softmax")
    assert (row.cold_trials, row.warm_trials) == (3, 1)
    assert (row.cold_seconds, row.warm_seconds) == (30.0, 10.0)
    assert row.cold_best == row.warm_best == pytest.approx(2.0)
    assert row.goal == pytest.approx(1.9)
    assert row.led


def test_the_second_op_is_run_in_a_fresh_library_and_in_the_firsts(tmp_path: Path) -> None:
    runs = Runs(right(2.0))
    rows(tmp_path, runs, "softmax,gate")
    libraries = [command[1] for command in runs.commands]
    assert [library == libraries[0] for library in libraries[:3]] == [True, False, True]
    assert len(set(libraries)) == 4
    first, cold, warm = (load_task(Path(command[5])).reference for command in runs.commands[:3])
    assert cold is not None
    assert first is not None
    assert warm is not None
    assert first.read_text() != cold.read_text() == warm.read_text()


def test_settings_reach_every_run_and_its_deadline(tmp_path: Path) -> None:
    runs = Runs(right(2.0))
    rows(tmp_path, runs, "softmax", "budget.minutes=2", "budget.trials=5")
    for command in runs.commands:
        assert command[-4:] == ["--set", "budget.minutes=2", "--set", "budget.trials=5"]
    assert set(runs.deadlines) == {120 + 300.0}


def test_a_run_that_fails_is_a_row_and_not_the_end(tmp_path: Path) -> None:
    def fails(command: list[str], deadline_s: float, log: Path) -> Ended:
        return Ended(1, "", "Traceback: boom", 1.0)

    found = list(measure(chosen("softmax,gate"), tmp_path, run=fails, tell=lambda line: None))
    assert [row.pair for row in found] == ["softmax", "gate"]
    assert all("exited with 1" in row.failed and "boom" in row.failed for row in found)
    assert document_of(found, ())["median"] == dict.fromkeys(
        ("cold_trials", "warm_trials", "cold_seconds", "warm_seconds")
    )


def test_in_pieces_it_gives_what_it_gives_at_once(tmp_path: Path) -> None:
    verdicts = (right(1.2), right(2.0))
    runs, found = Runs(*verdicts), []
    for started in (2, 4, 6, 6):
        found = rows(tmp_path / "pieces", at_most(2, runs), "softmax,gate")
        assert len(runs.commands) == started
    assert found == rows(tmp_path / "once", Runs(*verdicts), "softmax,gate")


def test_work_of_other_settings_is_not_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('["budget.trials=3"]')
    command = [sys.executable, "-m", "benchmarks.experience", "--work", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert "--set budget.trials=3" in ended.stderr


def test_where_no_kernel_is_right_there_is_nothing_to_reach(tmp_path: Path) -> None:
    (row,) = rows(tmp_path, Runs(MISS), "softmax")
    assert row.failed == "no kernel was right"


def test_the_document_counts_pairs_that_took_fewer_trials(tmp_path: Path) -> None:
    found = rows(tmp_path, Runs(right(1.2), right(2.0)), "softmax,gate")
    document = document_of([*found, Row("broken", failed="it died")], ("a=1",))
    assert (document["pairs"], document["fewer_trials"], document["more_trials"]) == (3, 2, 0)
    assert document["median"] == {
        "cold_trials": 2, "warm_trials": 1, "cold_seconds": 20.0, "warm_seconds": 10.0,
    }  # fmt: skip
    assert json.loads(json.dumps(document)) == document


def test_an_unknown_pair_is_bad_input() -> None:
    with pytest.raises(BadInput, match="names no pair"):
        chosen("nobody")


def test_there_are_ten_pairs_of_different_references() -> None:
    sources = [op.source for pair in PAIRS for op in (pair.first, pair.second)]
    assert (len({pair.name for pair in PAIRS}), len(set(sources))) == (10, 20)
    for source in sources:
        names = {node.name for node in ast.parse(source).body if hasattr(node, "name")}
        assert names == {"Model", "get_inputs", "get_init_inputs"}


def test_a_pairs_task_file_says_where_its_reference_lies(tmp_path: Path) -> None:
    rows(tmp_path, Runs(right(2.0)), "linear_sum")
    told = yaml.safe_load((tmp_path / "linear_sum" / "warm.yaml").read_text())
    assert told == {"name": "warm", "reference": "warm.py"}


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: str(pair.name))
def test_the_ops_of_a_pair_are_alike_and_not_the_same(pair: Pair) -> None:
    first, second = (_traced(op.source) for op in (pair.first, pair.second))
    assert fingerprint(first) != fingerprint(second)
    assert likeness(signature(first), signature(second)) >= ALIKE


def _traced(source: str) -> OpGraph:
    loaded = load(source, "op.py")
    return trace(loaded.build(0), loaded.inputs(0))
