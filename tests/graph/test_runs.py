"""`python -m graph.runs`: every run is a row, and only this machine is served."""

import fcntl
import json
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from http.client import HTTPConnection, HTTPResponse
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from graph.events import NodeStarted, Prepared, Spending, TrialJudged, append_event
from graph.record import RunRecord, Usage
from graph.report.listing import Wanted, age, list_runs, row_of
from graph.report.serve import make_server
from graph.report.write import write_report
from graph.runs import app
from tests.graph import builders, stories
from tests.graph.test_report import Outline


def command(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout, result.stderr


def finished(runs: Path, name: str, record: RunRecord) -> Path:
    folder = runs / name
    (folder / "best").mkdir(parents=True)
    (folder / "trials").mkdir()
    write_report(record, folder)
    (folder / "best" / "kernel.py").write_text("class ModelNew: ...\n")
    return folder


def unfinished(runs: Path, name: str) -> Path:
    """A run as it is while its second trial is being measured."""
    folder = runs / name
    (folder / "trials").mkdir(parents=True)
    (folder / "task.yaml").write_text("name: rms_norm\nop: torch.relu\n")
    (folder / "lock").touch()
    record = builders.a_win()
    for event in (
        NodeStarted(node="prepare", at="2026-11-22T12:00:00+00:00"),
        Prepared(device=record.device.title, baselines=record.baselines, roofline=record.roofline),
        Spending(usage=Usage(usd=0.25), seconds=31.0),
        TrialJudged.of(record.trials[0]),
        TrialJudged.of(record.trials[1]),
    ):
        append_event(folder / "events.jsonl", event)
    with (folder / "events.jsonl").open("a") as file:
        file.write('{"kind": "trial_ju')
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of every kind in one folder, and things that are none."""
    folder = tmp_path_factory.mktemp("work") / "runs"
    finished(folder, "20261120-193000-softmax-1a2b", builders.a_win())
    finished(folder, "20261121-080000-softmax-2b3c", stories.kept_baseline())
    finished(folder, "20261121-090000-softmax-3c4d", builders.all_failed())
    finished(folder, "20261121-100000-softmax-4d5e", stories.compiled_only())
    half = finished(folder, "20261121-110000-softmax-5e6f", stories.stopped())
    began = NodeStarted(node="prepare", at="2026-11-21T11:00:00+00:00")
    append_event(half / "events.jsonl", began)
    unfinished(folder, "20261122-120000-rms-norm-6f70")
    broken = folder / "20261123-130000-gelu-7081"
    broken.mkdir()
    (broken / "report.json").write_text('{"run_id": "x", ')
    (folder / "20261123-140000-gelu-8192" / "trials").mkdir(parents=True)
    (folder / "notes").mkdir()
    (folder / "a file").touch()
    return folder


def states_of(runs: Path) -> dict[str, str]:
    return {row.run_id[-4:]: row.state for row in list_runs([runs])}


def test_every_run_is_a_row_whatever_state_it_is_in(runs: Path) -> None:
    assert states_of(runs) == {
        "8192": "broken",
        "7081": "broken",
        "6f70": "stopped",
        "5e6f": "stopped",
        "4d5e": "compiled",
        "3c4d": "failed",
        "2b3c": "correct",
        "1a2b": "faster",
    }


def test_a_finished_row_quotes_what_was_confirmed(runs: Path) -> None:
    row = row_of(runs / "20261120-193000-softmax-1a2b")
    timing = builders.a_win().timing
    assert timing is not None
    best = timing.against_best
    assert (row.speedup, row.low, row.high) == (best.speedup, best.low, best.high)
    assert (row.op, row.trials, row.usd, row.finished) == ("softmax", 6, 0.0, True)


def test_a_run_at_work_is_told_from_one_that_stopped(tmp_path: Path) -> None:
    folder = unfinished(tmp_path, "20261122-120000-rms-norm-6f70")
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        row = row_of(folder)
    assert row.state == "running"
    assert (row.op, row.trials, row.seconds, row.usd) == ("rms_norm", 2, 31.0, 0.25)
    assert row.speedup == pytest.approx(builders.COMPILE_MS / 6.2)
    assert not row.finished
    stopped = row_of(folder)
    assert stopped.state == "stopped"
    assert f"graph.run --resume {folder}" in stopped.note


def test_looking_leaves_a_run_free_to_be_worked_on(tmp_path: Path) -> None:
    folder = unfinished(tmp_path, "20261122-120000-rms-norm-6f70")
    row_of(folder)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_run_that_went_on_after_its_report_is_read_off_its_events(tmp_path: Path) -> None:
    folder = unfinished(tmp_path, "20261122-120000-rms-norm-6f70")
    write_report(stories.stopped(), folder)
    row = row_of(folder)
    assert (row.state, row.op) == ("stopped", "rms_norm")
    assert row.note.startswith("interrupted; go on with")
    assert row.report


def test_a_report_that_was_written_again_is_read_again(tmp_path: Path) -> None:
    folder = finished(tmp_path, "20261120-193000-softmax-1a2b", builders.a_win())
    assert row_of(folder).state == "faster"
    write_report(builders.all_failed(), folder)
    assert row_of(folder).state == "failed"


def test_a_record_that_contradicts_itself_is_a_row(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    record = builders.a_win().model_copy(update={"winner": 99})
    (folder / "report.json").write_text(record.model_dump_json())
    row = row_of(folder)
    assert row.state == "broken"
    assert "99" in row.note


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--status", "faster"], ["1a2b"]),
        (["--status", "correct,failed"], ["3c4d", "2b3c"]),
        (["--status", "stopped", "--status", "broken"], ["8192", "7081", "6f70", "5e6f"]),
        (["--op", "RMS"], ["6f70"]),
        (["--device", "h200"], ["4d5e"]),
        (["--since", "2026-11-22"], ["8192", "7081", "6f70"]),
        (["--limit", "1"], ["8192"]),
        (["--op", "nothing like it"], []),
    ],
)
def test_filters_choose_rows(runs: Path, arguments: list[str], found: list[str]) -> None:
    code, out, _ = command(str(runs), "--json", *arguments)
    assert code == 0
    assert [row["run_id"][-4:] for row in json.loads(out)["runs"]] == found


def test_the_table_has_a_line_for_each_run_and_tells_what_is_broken(runs: Path) -> None:
    code, out, err = command(str(runs))
    assert code == 0
    assert len(out.splitlines()) == 9
    line = next(line for line in out.splitlines() if "1a2b" in line)
    for told in ("softmax", "Test CPU", "faster", "2.30×", "2.26–2.34", "6", "1:34", "$0.00"):
        assert told in line
    assert "20261123-130000-gelu-7081: report.json is no record of a run" in err


def test_markup_in_a_runs_name_is_text(tmp_path: Path) -> None:
    task = builders.a_win().task.model_copy(update={"name": "[red]x[/] <b>y"})
    record = builders.a_win().model_copy(update={"task": task})
    finished(tmp_path, "run", record)
    assert "[red]x[/] <b>y" in command(str(tmp_path))[1]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere"], "nowhere: is not a folder."),
        (["--status", "won"], "Known: faster, correct"),
        (["--since", "yesterday"], "For example: 7d"),
        (["--since", "999999d"], "before the calendar begins"),
    ],
)
def test_a_mistake_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = command(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert told in err


def test_the_folder_above_and_a_single_run_can_be_named_too(runs: Path) -> None:
    assert len(list_runs([runs.parent])) == 8
    assert len(list_runs([runs / "20261120-193000-softmax-1a2b"])) == 1
    assert len(list_runs([runs, runs.parent])) == 8


def test_the_runs_of_an_evaluation_lie_in_its_problems(tmp_path: Path) -> None:
    for number, name in enumerate(("softmax", "gelu"), 1):
        run = tmp_path / "problems" / f"{number:03d}-{name}" / "run"
        finished(run, f"20261120-193000-{name}-1a2b", builders.a_win())
    assert len(list_runs([tmp_path])) == 2


def test_an_age_is_told_in_the_unit_that_says_something() -> None:
    row = row_of(Path("/nowhere/20261120-193000-softmax-1a2b"))
    began = datetime(2026, 11, 20, 19, 30, tzinfo=UTC)
    minute = timedelta(minutes=1)
    told = [age(row, began + count * minute) for count in (5, 30 * 60, 9 * 24 * 60)]
    assert told == ["5 min", "30 h", "9 days"]


@pytest.fixture(scope="module")
def port(runs: Path) -> Iterator[int]:
    outside = runs.parent / "secret.html"
    outside.write_text("secret")
    linked = finished(runs.parent / "more", "20261124-100000-linked-9a0b", builders.a_win())
    (linked / "report.html").unlink()
    (linked / "report.html").symlink_to(outside)
    server = make_server(partial(list_runs, (runs, runs.parent / "more"), Wanted()), 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()


def ask(
    port: int, path: str, method: str = "GET", host: str | None = None
) -> tuple[HTTPResponse, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", host if host is not None else f"localhost:{port}")
    connection.endheaders()
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response, text


def test_the_index_lists_runs_and_links_their_reports(port: int) -> None:
    response, page = ask(port, "/")
    assert response.status == 200
    outline = Outline(page)
    assert outline.open == []
    links = [link for link in outline.fetched if link != "/"]
    assert "/runs/20261120-193000-softmax-1a2b/report.html" in links
    for link in links:
        if "linked" not in link:
            assert ask(port, link)[0].status == 200, link
    assert any(link.endswith("best/kernel.py") for link in links)
    assert any(link.endswith("events.jsonl") for link in links)
    assert "20261123-130000-gelu-7081" in page
    assert "<script" not in page


def test_the_index_is_filtered_by_its_form(port: int) -> None:
    _, page = ask(port, "/?status=faster&op=&device=")
    assert "1a2b" in page
    assert "3c4d" not in page
    _, page = ask(port, "/?op=%22%3E%3Cscript%3Ealert(1)%3C/script%3E")
    assert "No run fits." in page
    assert "<script" not in page


def test_every_answer_forbids_what_it_does_not_need(port: int) -> None:
    for path in ("/", "/runs/20261120-193000-softmax-1a2b/report.html", "/nothing"):
        response, _ = ask(port, path)
        policy = response.getheader("Content-Security-Policy") or ""
        assert policy.startswith("default-src 'none'")
        assert "frame-ancestors 'none'" in policy
        assert response.getheader("X-Content-Type-Options") == "nosniff"
        assert response.getheader("Referrer-Policy") == "no-referrer"
        assert response.getheader("Access-Control-Allow-Origin") is None
    report = ask(port, "/runs/20261120-193000-softmax-1a2b/report.html")[0]
    policy = report.getheader("Content-Security-Policy") or ""
    assert "sandbox allow-scripts" in policy
    assert "allow-same-origin" not in policy
    assert "'unsafe-inline'" not in policy.partition("script-src")[2]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "localhost", "localhost:1", "127.0.0.1.evil:80", ""]
)
def test_a_request_for_another_host_is_told_nothing(port: int, host: str) -> None:
    response, text = ask(port, "/", host=host)
    assert response.status == 421
    assert "softmax" not in text


def test_both_names_of_this_machine_are_answered(port: int) -> None:
    for host in (f"127.0.0.1:{port}", f"LOCALHOST:{port}"):
        assert ask(port, "/", host=host)[0].status == 200


RUN = "/runs/20261120-193000-softmax-1a2b"


@pytest.mark.parametrize(
    "path",
    [
        f"{RUN}/../../secret.html",
        f"{RUN}/..%2f..%2fsecret.html",
        f"{RUN}/best/../report.json",
        f"{RUN}/%2e%2e/%2e%2e/secret.html",
        f"{RUN}/report.html/../../../secret.html",
        f"{RUN}/",
        RUN,
        f"{RUN}/task.yaml",
        f"{RUN}/report.html%00",
        "/runs/../secret.html",
        "/runs/%2e%2e/secret.html",
        "/runs/20261124-100000-linked-9a0b/report.html",
        "/secret.html",
        "//etc/passwd",
        "/runs/nothing/report.html",
        "/%ff%fe",
    ],
)
def test_no_path_leads_out_of_what_can_be_asked_for(port: int, path: str) -> None:
    response, text = ask(port, path)
    assert response.status == 404
    assert "secret" not in text


def test_nothing_can_be_sent_to_it(port: int) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert ask(port, "/", method)[0].status == 501
    response, text = ask(port, "/", "HEAD")
    assert (response.status, text) == (200, "")


def test_a_page_lists_as_many_as_the_command_would(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages: list[str] = []

    def serve_once(server: ThreadingHTTPServer) -> None:
        answering = threading.Thread(target=server.handle_request)
        answering.start()
        pages.append(ask(server.server_address[1], "/")[1])
        answering.join()
        raise KeyboardInterrupt

    monkeypatch.setattr("graph.report.serve._Server.serve_forever", serve_once)
    for limit in ("2", "9"):
        code, _, _ = command(str(runs), "--serve", "--port", "0", "--limit", limit)
        assert code == 0
    found = [[name in page for name in ("-8192", "-7081", "-6f70")] for page in pages]
    assert found == [[True, True, False], [True, True, True]]


def test_it_listens_on_loopback_alone(port: int) -> None:
    server = make_server(list, 0)
    try:
        assert server.server_address[0] == "127.0.0.1"
    finally:
        server.server_close()
    with socket.create_connection(("127.0.0.1", port), timeout=60):
        pass


def test_a_port_that_is_taken_is_one_clear_line(runs: Path, port: int) -> None:
    code, _, err = command(str(runs), "--serve", "--port", str(port))
    assert code == 2
    assert err.startswith(f"--port {port}: cannot be had")
