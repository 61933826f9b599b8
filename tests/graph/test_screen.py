import contextlib
import io
import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from rich.console import Console

from graph.events import (
    Concluded,
    Estimated,
    Event,
    NodeStarted,
    Note,
    Planned,
    Prepared,
    Repaired,
    Spending,
    TrialJudged,
    append_event,
    keep,
    kept_in,
    read_events,
)
from graph.lines import plain_line
from graph.live import Progress, live_view
from graph.record import Estimate, RunRecord, Share, Usage
from graph.screen import Painter, Screen, final_screen
from tests.graph import builders, stories
from tools.task import Budget


def events_of(record: RunRecord) -> tuple[Event, ...]:
    return (
        NodeStarted(node="prepare", detail=record.task.name),
        Prepared(device=record.device.title, baselines=record.baselines, roofline=record.roofline),
        Planned(plans=record.plans, refused=record.refused),
        *(TrialJudged.of(trial) for trial in record.trials),
        Repaired(failed_trial=2, action="changed the bound\nof the loop"),
        Note(text="the clock ran at 2.1 GHz"),
        Concluded(status=record.status, ended=record.ended, trials=6, seconds=94.0),
    )


def screen_text(renderable: object, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def live_text(
    record: RunRecord, *later: Event, seconds: float = 61.0, width: int = 80, height: int = 40
) -> str:
    """What the live view shows of a run, a second after everything that happened in it."""
    progress = Progress()
    for event in (*events_of(record), *later):
        progress.take(event, seconds - 1.0)
    return screen_text(live_view(record.task, progress, seconds, width=width, height=height), width)


def plain_console() -> Console:
    return Console(file=io.StringIO(), force_terminal=False, width=80)


def output_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_away_from_a_terminal_each_event_is_one_line() -> None:
    record, console = builders.a_win(), plain_console()
    with Screen(record.task, quiet=False, console=console) as screen:
        for event in events_of(record):
            screen.handle(event)
    lines = output_of(console).splitlines()
    assert len(lines) == len(events_of(record))
    assert any("trial 6: correct, faster, 2.31× (2.27–2.36)" in line for line in lines)
    assert "\x1b" not in output_of(console)


@pytest.mark.parametrize("terminal", [True, False])
def test_quiet_shows_nothing(terminal: bool) -> None:
    record = builders.a_win()
    console = Console(file=io.StringIO(), force_terminal=terminal, width=80)
    with Screen(record.task, quiet=True, console=console) as screen:
        for event in events_of(record):
            screen.handle(event)
    assert output_of(console) == ""


def test_on_a_terminal_the_live_view_goes_away_when_the_run_ends() -> None:
    record = builders.a_win()
    console = Console(file=io.StringIO(), force_terminal=True, width=100, height=30)
    with Screen(record.task, quiet=False, console=console) as screen:
        for event in events_of(record):
            screen.handle(event)
    assert "One fused loop over rows" in output_of(console)
    assert output_of(console).endswith("\x1b[2K")  # the last thing done is to erase a line


def test_events_from_several_threads_are_all_shown() -> None:
    record, console = builders.a_win(), plain_console()
    with Screen(record.task, quiet=False, console=console) as screen:
        workers = [
            threading.Thread(target=screen.handle, args=(Note(text=f"note {number}"),))
            for number in range(40)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert len(set(output_of(console).splitlines())) == 40


def test_the_live_view_keeps_the_best_trial_in_sight() -> None:
    trials = (
        builders.trial(1, builders.correct(builders.timing(4.0)), title="the best of all"),
        *(builders.trial(n, builders.every_verdict()[0], title=f"try {n}") for n in range(2, 30)),
    )
    shown = live_text(builders.record(trials), height=19)
    assert "★ 1  the best of all" in shown
    assert "try 29" in shown
    assert "try 20" not in shown
    assert "1:01 elapsed" in shown


@pytest.mark.parametrize(
    "make", [builders.a_win, builders.nothing_faster, builders.one_of_each, builders.record]
)
@pytest.mark.parametrize("width", [50, 60, 80, 140])
@pytest.mark.parametrize("height", [18, 40])
def test_the_live_view_fits_its_terminal(make: object, width: int, height: int) -> None:
    assert callable(make)
    at_work = [NodeStarted(node="code", detail=f"#{n} more", trial=n) for n in (90, 91)]
    lines = live_text(make(), *at_work, width=width, height=height).splitlines()
    assert all(len(line) <= width for line in lines)
    assert len(lines) <= height


def test_what_is_at_work_has_a_row_until_it_has_a_verdict() -> None:
    record = builders.a_win()
    started = NodeStarted(node="measure", detail="#7 Streaming stores", trial=7)
    shown = live_text(record, started)
    assert "7  Streaming stores" in shown
    assert "timing" in shown
    assert "0:01" in shown
    judged = builders.trial(7, builders.every_verdict()[0], title="Streaming stores")
    shown = live_text(record, started, TrialJudged.of(judged))
    assert "timing" not in shown


def test_a_plan_that_was_never_carried_out_leaves_the_view_with_its_round() -> None:
    shown = live_text(
        builders.a_win(),
        NodeStarted(node="code", detail="#7 Never paid for", trial=7),
        NodeStarted(node="select"),
    )
    assert "Never paid for" not in shown


def test_a_trial_that_is_being_mended_says_so() -> None:
    record = builders.one_of_each()
    failed = record.trials[0]
    mending = NodeStarted(node="debug", detail=f"#{failed.number} x", trial=failed.number)
    assert "did not build, mending" in live_text(record, mending)
    repaired = Repaired(failed_trial=failed.number, action="one more")
    assert "mending" not in live_text(record, mending, repaired)


def test_nothing_on_the_live_view_is_said_by_colour_alone() -> None:
    record = builders.a_win()
    console = Console(
        file=io.StringIO(), width=80, height=40, force_terminal=True, no_color=True, _environ={}
    )
    progress = Progress()
    for event in events_of(record):
        progress.take(event, 5.0)
    console.print(live_view(record.task, progress, 6.0, width=80, height=40))
    codes = set(re.findall(r"\x1b\[([0-9;]*)m", output_of(console)))
    assert codes <= {"0", "1", "2"}  # bold and dim are no colours
    for word in ("correct, faster", "wrong output", "did not build", "★ 6"):
        assert word in output_of(console)


def test_a_run_goes_on_where_nobody_reads_its_progress_any_more() -> None:
    script = (
        "from graph.events import Note\nfrom graph.screen import Screen\n"
        "from tools.task import InputSpec, Task\n"
        "task = Task(name='a', op='torch.relu', inputs=(InputSpec(shape=(2,)),))\n"
        "with Screen(task, quiet=False) as screen:\n"
        "    for text in 'ab':\n        screen.handle(Note(text=text))\n"
        "print('on')\n"
    )
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=writing,
        text=True,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stdout) == (0, "on\n")


def test_the_baseline_that_is_handed_over_is_no_trial_of_the_budget() -> None:
    record = stories.kept_baseline()
    assert len(record.trials) == len(record.tried) + 1
    assert record.document()["trials"] == len(record.tried)


def test_the_screen_rests_while_something_is_timed() -> None:
    progress = Progress()
    progress.take(NodeStarted(node="plan"), 0.0)
    assert not progress.timing
    progress.take(NodeStarted(node="compile", detail="#1 a", trial=1), 1.0)
    assert not progress.timing
    progress.take(NodeStarted(node="measure", detail="#1 a", trial=1), 2.0)
    assert progress.timing
    progress.take(NodeStarted(node="select"), 3.0)
    assert not progress.timing


def test_a_painter_draws_when_it_is_nudged_and_ends_when_it_is_told() -> None:
    drawn = threading.Semaphore(0)
    painter = Painter(drawn.release, lambda: 60.0)
    painter.start()
    assert drawn.acquire(timeout=60)
    painter.nudge()
    assert drawn.acquire(timeout=60)
    painter.end()
    assert not painter.is_alive()


def test_a_run_that_is_interrupted_leaves_what_was_seen_of_it_on_the_terminal() -> None:
    record = builders.a_win()
    console = Console(file=io.StringIO(), force_terminal=True, width=100, height=30)
    with (
        contextlib.suppress(KeyboardInterrupt),
        Screen(record.task, quiet=False, console=console) as screen,
    ):
        for event in events_of(record):
            screen.handle(event)
        raise KeyboardInterrupt
    left = output_of(console).rsplit("\x1b[2K", 1)[-1]
    assert "One fused loop over rows" in left
    assert "\x1b[?25h" in output_of(console)  # the cursor is back


@pytest.mark.parametrize("make", [builders.a_win, builders.nothing_faster, builders.all_failed])
def test_the_final_screen_fits_eighty_columns_and_names_the_report(make: object) -> None:
    assert callable(make)
    record = make()
    lines = [line for line in screen_text(final_screen(record)).splitlines() if line.strip()]
    assert len(lines) <= 15
    assert all(len(line) <= 80 for line in lines)
    assert any("report.html" in line for line in lines)


def test_the_final_screen_of_a_win_shows_both_baselines_with_intervals_and_the_kernel() -> None:
    shown = screen_text(final_screen(builders.a_win()))
    for expected in ("2.30×", "2.26–2.34", "2.94×", "83% reached", "best/kernel.py"):
        assert expected in shown


def test_the_final_screen_says_plainly_that_nothing_was_faster() -> None:
    shown = screen_text(final_screen(builders.nothing_faster()))
    assert "no faster kernel was found" in shown
    assert "0.97×" in shown


def test_the_final_screen_of_a_failure_offers_no_kernel() -> None:
    shown = screen_text(final_screen(builders.all_failed()))
    assert "no correct kernel was found" in shown
    assert "kernel.py" not in shown


def test_markup_in_a_title_is_shown_as_it_is_written() -> None:
    trial = builders.trial(1, builders.every_verdict()[0], title="x[bold]y[/]")
    record = builders.record((trial,))
    assert "x[bold]y[/]" in live_text(record)
    assert "x[bold]y[/]" in plain_line(TrialJudged.of(trial))


def test_events_come_back_from_their_log_as_they_were(tmp_path: Path) -> None:
    events = events_of(builders.one_of_each())
    for event in events:
        append_event(tmp_path / "events.jsonl", event)
    assert tuple(read_events(tmp_path / "events.jsonl")) == events


def test_lines_of_a_log_that_threads_write_at_once_stay_whole(tmp_path: Path) -> None:
    text = "x" * 20_000
    with ThreadPoolExecutor(4) as pool:
        for number in range(40):
            pool.submit(append_event, tmp_path / "events.jsonl", Note(text=f"{number} {text}"))
    found = {event.text for event in read_events(tmp_path / "events.jsonl") if event.kind == "note"}
    assert found == {f"{number} {text}" for number in range(40)}


def test_nodes_keep_events_only_where_they_are_told_to(tmp_path: Path) -> None:
    keep(Note(text="before"))
    with kept_in(tmp_path / "events.jsonl"):
        keep(Note(text="within"))
    keep(Note(text="after"))
    (kept,) = read_events(tmp_path / "events.jsonl")
    assert isinstance(kept, Note)
    assert kept.text == "within"


def test_budgets_are_shown_beside_what_was_taken_of_them() -> None:
    record = builders.a_win()
    share = Share(
        role="coder", model="a:b", calls=2, input_tokens=900, output_tokens=100, usd=0.25, seconds=9
    )
    usage = Usage(tokens=1000, usd=0.25, shares=(share,))
    spent = Spending(usage=usage, seconds=70.0)
    shown = live_text(record, spent, seconds=70.0)
    for figures in ("1:10 of 15:00", "6 of 12", "1,000 of 400,000", "$0.25 of $2.00"):
        assert figures in shown
    assert "asked 2 times, 1,000 tokens, $0.25" in plain_line(spent)
    unpriced = Spending(usage=usage.model_copy(update={"unpriced": ("a:b",)}), seconds=70.0)
    assert "over $0.25 of $2.00" in live_text(record, unpriced)


def test_time_that_was_worked_before_a_restart_counts_on_the_screen() -> None:
    record, console = builders.a_win(), plain_console()
    with Screen(record.task, quiet=False, console=console) as screen:
        screen.handle(Spending(usage=Usage(), seconds=3600.0))
        screen.handle(Note(text="later"))
    assert output_of(console).splitlines()[-1].startswith("1:00:0")


def test_an_estimate_is_one_line_with_the_caps() -> None:
    estimate = Estimate(calls=30, tokens=300_000, usd=1.5, unpriced=("a:b",))
    line = plain_line(Estimated(estimate=estimate, budget=Budget()))
    assert "at most about 30 calls, 300,000 tokens" in line
    assert "price of a:b unknown" in line
    assert "never over 400,000 tokens or $2.00" in line
