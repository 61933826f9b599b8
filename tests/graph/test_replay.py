"""A run is played again from its exchanges, without a model."""

from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from graph.drive import exchanges_in, work
from graph.folder import RunFolder
from graph.journal import RunJournal
from graph.record import BASELINE_PLAN, RunRecord
from graph.replay import Recording, ReplayJournal, app
from graph.state import RunInput
from graph.workbench import Thinking, Workbenches
from knowledge.errors import BadInput
from tests.graph.conftest import LIMITS, RIGHT, WRONG
from tests.graph.speaking import exchange, price, speaking_crew
from tools.task import InputSpec, Task

SCRIPT = ((WRONG, RIGHT), (RIGHT + "#",))


def task() -> Task:
    return Task(name="relu", op="torch.relu", inputs=(InputSpec(shape=(64, 64)),), width=2)


def run(base: Path, bills: Path, recording: Recording | None = None) -> tuple[RunFolder, RunRecord]:
    folder = RunFolder.create(base, task())
    benches = Workbenches(
        base / "library",
        speaking_crew(bills, *SCRIPT),
        LIMITS,
        thinking=Thinking(
            price_of=price,
            journal_of=(partial(ReplayJournal, recording) if recording is not None else RunJournal),
        ),
    )
    entry = RunInput(task=task(), run_dir=str(folder.path))
    return folder, work(folder, task(), entry, quiet=True, benches=benches)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, RunRecord]:
    base = tmp_path_factory.mktemp("original")
    return run(base, base / "paid")


def tried(record: RunRecord) -> set[tuple[str, str]]:
    """Plans with their candidates."""
    return {(t.plan, t.candidate.digest) for t in record.trials if t.plan != BASELINE_PLAN}


def test_a_replay_tries_the_same_and_pays_nothing(
    original: tuple[RunFolder, RunRecord], tmp_path: Path
) -> None:
    folder, first = original
    recording = Recording(exchanges_in(folder))
    _, again = run(folder.path.parent, tmp_path / "paid", recording)
    assert not (tmp_path / "paid").exists()
    assert tried(again) == tried(first)
    assert len(tried(again)) == 3
    # The planner's questions quote times, and those were measured anew.
    assert recording.by_place >= 2
    assert recording.by_key >= 2
    assert recording.by_key + recording.by_place == len(exchanges_in(folder))
    assert (again.usage.tokens, again.usage.usd) == (0, 0.0)
    assert again.usage.shares


def test_a_question_without_a_recorded_answer_is_one_clear_line(
    original: tuple[RunFolder, RunRecord], tmp_path: Path
) -> None:
    folder, _ = original
    recording = Recording(exchanges_in(folder)[:1])
    with pytest.raises(BadInput, match=r"the coder asks something for plan p.* no answer"):
        run(folder.path.parent, tmp_path / "paid", recording)


def test_replaying_what_is_no_run_is_one_clear_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [str(tmp_path), "--out", str(tmp_path / "runs")])
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "is not the folder of a run" in result.stderr


def test_reading_a_run_leaves_a_line_that_is_being_written(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, task())
    line = exchange("k", "coder", "p1", "write").model_dump_json()
    folder.exchanges.write_text(f"{line}\n{line[:20]}")
    assert len(exchanges_in(folder)) == 1
    assert folder.exchanges.read_text() == f"{line}\n{line[:20]}"


def test_exchanges_that_cannot_be_read_are_one_clear_line(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, task())
    folder.exchanges.mkdir()
    result = CliRunner().invoke(app, [str(folder.path), "--out", str(tmp_path / "replays")])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "exchanges.jsonl: cannot be read" in result.stderr
