"""A run can be watched from another process, as it goes and after it ended."""

import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from graph.events import Concluded, Note, append_event
from graph.folder import RunFolder
from graph.follow import app, following
from tests.graph import builders


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path, builders.a_win().task)


def test_events_are_seen_as_they_are_written_until_the_run_is_let_go_of(
    folder: RunFolder,
) -> None:
    append_event(folder.events, Note(text="before"))
    seen: list[str] = []
    enough = threading.Event()

    def watch() -> None:
        for event in following(folder):
            seen.append(event.kind)
            if len(seen) == 2:
                enough.set()

    with folder.held():
        watcher = threading.Thread(target=watch)
        watcher.start()
        append_event(folder.events, Note(text="while it is watched"))
        assert enough.wait(20)
        append_event(folder.events, Concluded(status="failed", ended="", trials=0, seconds=1.0))
    watcher.join(20)
    assert seen == ["note", "note", "concluded"]


def test_a_half_written_line_is_waited_for(folder: RunFolder) -> None:
    line = Note(text="whole").model_dump_json().encode() + b"\n"
    folder.events.write_bytes(line[:20])
    assert list(following(folder)) == []
    folder.events.write_bytes(line)
    assert [event.kind for event in following(folder)] == ["note"]


def test_a_line_that_cannot_be_read_is_passed_over(folder: RunFolder) -> None:
    torn = Note(text="torn").model_dump_json()[:20]
    folder.events.write_text(f'{{"kind": "of another release"}}\n{torn}\n')
    append_event(folder.events, Note(text="whole"))
    assert [event.kind for event in following(folder)] == ["note"]


def test_of_a_run_that_ended_it_shows_what_the_run_showed(folder: RunFolder) -> None:
    record = builders.a_win().model_copy(update={"run_dir": str(folder.path)})
    (folder.path / "report.json").write_text(record.model_dump_json())
    append_event(folder.events, Concluded(status="faster", ended="", trials=6, seconds=94.0))
    result = CliRunner().invoke(app, [str(folder.path)])
    assert result.exit_code == 0
    assert "2.30×" in result.stdout
    assert "concluded: faster" in result.stderr


def test_a_report_that_cannot_be_read_is_told(folder: RunFolder) -> None:
    (folder.path / "report.json").write_text("{}")
    append_event(folder.events, Concluded(status="faster", ended="", trials=6, seconds=94.0))
    result = CliRunner().invoke(app, [str(folder.path)])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "report.json is no record" in result.stderr


def test_of_a_run_that_stopped_it_says_how_to_go_on(folder: RunFolder) -> None:
    append_event(folder.events, Note(text="the last word"))
    result = CliRunner().invoke(app, [str(folder.path)])
    assert result.exit_code == 130
    assert "--resume" in result.stderr


def test_what_is_no_run_is_bad_input(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [str(tmp_path)])
    assert result.exit_code == 2
    assert "is not the folder of a run" in result.stderr
