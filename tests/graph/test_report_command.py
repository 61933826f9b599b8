"""`python -m graph.report RUN_DIR`: the report again, from the folder alone."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agents.brief import Citation
from agents.llm.exchange import Exchange, Usage
from graph.build import build_graph
from graph.drive import checkpointer
from graph.events import NodeStarted, Spending, TrialJudged, append_event
from graph.folder import RunFolder
from graph.record import RunRecord
from graph.record import Usage as Taken
from graph.report.__main__ import app
from graph.report.elapsed import judged_at
from graph.report.load import load_record
from graph.report.write import write_report
from graph.state import RunState
from graph.workbench import Workbenches
from knowledge.errors import BadInput
from tests.graph import builders, stories


def command(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "20261120-193000-softmax-1a2b"
    folder.mkdir(parents=True)
    write_report(builders.a_win(), folder)
    return folder


def state_of(record: RunRecord) -> RunState:
    return {
        "task": record.task,
        "run_dir": record.run_dir,
        "started": record.started,
        "seconds": record.seconds,
        "device": record.device,
        "facts": record.facts,
        "baselines": record.baselines,
        "roofline": record.roofline,
        "plans": record.plans,
        "trials": {trial.number: trial for trial in record.trials},
    }


def checkpoint(record: RunRecord, folder: Path) -> None:
    """What a killed run leaves: its state after some node, and no report."""
    with checkpointer(RunFolder(folder)) as saver:
        graph = build_graph(Workbenches(), checkpointer=saver)
        config = {"configurable": {"thread_id": "the-name-it-began-with"}}
        graph.update_state(config, state_of(record), as_node="select")


def test_the_report_comes_out_the_same_from_the_folder_alone(run_dir: Path) -> None:
    first = (run_dir / "report.html").read_text(encoding="utf-8")
    record = (run_dir / "report.json").read_bytes()
    (run_dir / "report.html").unlink()
    code, out, err = command(str(run_dir))
    assert (code, out) == (0, f"{run_dir / 'report.html'}\n")
    assert "softmax: 2.30× faster than torch.compile" in err
    again = (run_dir / "report.html").read_text(encoding="utf-8")
    # The folder's own place is what has changed.
    assert again.replace(str(run_dir), "runs/20261120-193000-softmax-1a2b") == first
    assert (run_dir / "report.json").read_bytes() == record
    assert not list(run_dir.glob(".*draft"))


def test_a_run_that_was_moved_is_reported_where_it_lies(run_dir: Path, tmp_path: Path) -> None:
    moved = shutil.move(run_dir, tmp_path / "with blank")
    assert command(str(moved))[0] == 0
    page = (Path(moved) / "report.html").read_text(encoding="utf-8")
    assert f"python -m graph.run &#39;{moved}&#39;/task.yaml" in page


def test_of_a_killed_run_the_checkpoint_is_reported(tmp_path: Path) -> None:
    checkpoint(stories.stopped(), tmp_path)
    code, _, err = command(str(tmp_path))
    assert code == 0
    assert "report.json is not there; what the checkpoint holds is shown" in err
    loaded = load_record(tmp_path).record
    assert not loaded.finished
    assert [trial.number for trial in loaded.trials] == [1, 2, 3]
    assert (tmp_path / "report.json").is_file()


def test_a_checkpoint_that_knows_more_than_the_report_goes_first(tmp_path: Path) -> None:
    known = stories.stopped()
    early = known.model_copy(update={"trials": known.trials[:1], "repairs": ()})
    write_report(early, tmp_path)
    checkpoint(known, tmp_path)
    assert len(load_record(tmp_path).record.trials) == 3


def test_what_models_cost_is_counted_without_touching_the_runs_files(tmp_path: Path) -> None:
    checkpoint(stories.stopped(), tmp_path)
    exchange = Exchange(
        key="k",
        role="coder",
        model="openai:gpt-5",
        messages=(),
        reply={},
        usage=Usage(input_tokens=900, output_tokens=100, usd=0.25),
        seconds=3.0,
        when="2026-11-20T19:30:00+00:00",
    )
    half = exchange.model_dump_json() + "\n" + '{"key": "half writ'
    (tmp_path / "exchanges.jsonl").write_text(half)
    assert load_record(tmp_path).record.usage.usd == 0.25
    assert (tmp_path / "exchanges.jsonl").read_text() == half


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({}, "is not the folder of a run"),
        ({"task.yaml": "name: x"}, "no checkpoint got as far as measuring the reference"),
        ({"report.json": "{"}, "is no record of schema"),
        ({"report.json": "{}"}, "run_id: Field required"),
        ({"report.json": "{", "checkpoint.sqlite": "not a database"}, "is no record of schema"),
    ],
)
def test_a_folder_without_a_record_is_one_clear_line(
    tmp_path: Path, files: dict[str, str], told: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    code, out, err = command(str(tmp_path))
    assert (code, out) == (2, "")
    assert told in err
    assert err.count("\n") == 1
    assert not (tmp_path / "report.html").exists()


def test_a_folder_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is not a folder"):
        load_record(tmp_path / "nowhere")


def test_pages_that_are_gone_are_named_in_one_line(run_dir: Path) -> None:
    gone = Citation(source="/gone/notes.md#x", title="t", passage="words", score=0.4)
    write_report(stories.citing(builders.a_win(), gone), run_dir)
    err = command(str(run_dir))[2]
    assert "cited pages that are not at hand: /gone/notes.md" in err


def test_events_tell_when_a_trial_was_judged_over_a_restart(tmp_path: Path) -> None:
    trials = builders.a_win().trials
    events = tmp_path / "events.jsonl"
    told = (
        NodeStarted(node="prepare", at="2026-11-20T19:30:00+00:00"),
        TrialJudged.of(trials[0]).model_copy(update={"at": "2026-11-20T19:30:40+00:00"}),
        Spending(usage=Taken(), seconds=50.0, at="2026-11-20T21:00:00+00:00"),
        TrialJudged.of(trials[1]).model_copy(update={"at": "2026-11-20T21:00:05+00:00"}),
    )
    for event in told:
        append_event(events, event)
    with events.open("a") as file:
        file.write('{"kind": "trial_jud')
    assert judged_at(events) == {1: 40.0, 2: 55.0}
    assert judged_at(tmp_path / "nothing") == {}
