"""What a person sees in the terminal: live progress on standard error, and the final screen.

On a terminal a rich live view; elsewhere one plain line an event; with `quiet` nothing. It only
watches: nothing here decides.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from graph.events import Event, Spending
from graph.lines import plain_line, time_text
from graph.live import STYLES, Progress, live_view
from graph.record import RunRecord
from graph.report.words import (
    TONES,
    baseline_name,
    bound_of,
    duration,
    headline,
    interval,
    percent,
    spending_text,
    times,
)
from graph.report.workloads import rows as workload_rows
from tools.task import Task

BAR_WIDTH = 22
# Between two drawings, in seconds: a redraw takes some milliseconds of a core, which whoever is
# being timed would notice.
USUAL_PAUSE, PAUSE_WHILE_TIMING = 0.2, 1.0


class _Watched(Console):
    """Standard error. Where nobody reads it any more, a run goes on unseen."""

    def on_broken_pipe(self) -> None:
        """Show nothing from now on; rich would end the process."""
        self.quiet = True
        # What is left in the stream's buffer would fail once more when the process ends.
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stderr.fileno())


class Screen:
    """Shows a run while it goes; a context manager fed with events, from any thread.

    Args:
        task: what is being run; its budget is what time and trials are counted against.
        quiet: show nothing.
        console: where to draw; standard error if not given.
    """

    def __init__(self, task: Task, quiet: bool, console: Console | None = None) -> None:
        self._task = task
        # Asked for here: FORCE_COLOR makes rich take a pipe for a terminal, and draw into it.
        self._console = console or _Watched(stderr=True, force_terminal=sys.stderr.isatty())
        self._quiet = quiet
        self._animated = self._console.is_terminal and not self._console.is_dumb_terminal
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._progress = Progress()
        self._live: Live | None = None
        self._painter: Painter | None = None

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        if not self._quiet and self._animated:
            self._show()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A run that ends in order has a screen of its own; of one that doesn't, this is what a
        # person has.
        self._progress.done = True
        self._hide(keep=error is not None)

    @contextmanager
    def aside(self) -> Iterator[Console]:
        """The console for a conversation, the live view out of its way, its clock stopped."""
        shown, since = self._live is not None, time.monotonic()
        self._hide()
        try:
            yield self._console
        finally:
            with self._lock:
                self._began += time.monotonic() - since
            if shown:
                self._show()

    def handle(self, event: Event) -> None:
        """Show one event, which may have happened a while ago."""
        with self._lock:
            happened = time.monotonic() - _age(event)
            if isinstance(event, Spending):
                # What was worked before a restart counts as well.
                self._began = happened - event.seconds
            self._began = min(self._began, happened)
            seconds = happened - self._began
            self._progress.take(event, seconds)
        if self._painter is not None:
            self._painter.nudge()
        elif not self._quiet and not self._animated:
            line = Text(f"{duration(seconds)} {plain_line(event)}")
            self._console.print(line, soft_wrap=True)

    def _show(self) -> None:
        live = Live(
            console=self._console, get_renderable=self._view, auto_refresh=False, transient=True
        )
        live.start(refresh=True)
        self._live = live
        self._painter = Painter(live.refresh, self._pause)
        self._painter.start()

    def _hide(self, *, keep: bool = False) -> None:
        live, self._live = self._live, None
        painter, self._painter = self._painter, None
        if painter is not None:
            painter.end()
        if live is not None:
            live.transient = not keep
            live.stop()

    def _pause(self) -> float:
        with self._lock:
            return PAUSE_WHILE_TIMING if self._progress.timing else USUAL_PAUSE

    def _seconds(self) -> float:
        return time.monotonic() - self._began

    def _view(self) -> RenderableType:
        width, height = self._console.size
        with self._lock:
            return live_view(
                self._task, self._progress, self._seconds(), width=width, height=height
            )


def _age(event: Event) -> float:
    """How long ago it happened, in seconds."""
    happened = datetime.fromisoformat(event.at)
    return max(0.0, (datetime.now(UTC) - happened).total_seconds())


class Painter(threading.Thread):
    """Draws again and again, until it is told to end.

    Args:
        draw: draws once.
        pause: how long to wait for the next time, in seconds; asked after each drawing.
    """

    def __init__(self, draw: Callable[[], None], pause: Callable[[], float]) -> None:
        super().__init__(daemon=True, name="screen")
        self._draw = draw
        self._pause = pause
        self._woken = threading.Event()
        self._ended = False

    def nudge(self) -> None:
        """Something happened that is worth a drawing now."""
        self._woken.set()

    def end(self) -> None:
        """Draw no more."""
        self._ended = True
        self._woken.set()
        self.join()

    def run(self) -> None:
        """Draw, wait, and so on."""
        while not self._ended:
            self._draw()
            self._woken.wait(self._pause())
            self._woken.clear()


def final_screen(record: RunRecord) -> RenderableType:
    """What was found, in about fifteen lines that fit 80 columns."""
    found = headline(record)
    parts: list[RenderableType] = [
        Text(
            f"{record.task.name}: {_lower_first(found.title)}",
            style=f"bold {STYLES[TONES[record.status]]}",
        ),
        Text(found.sentence, style="dim"),
    ]
    if record.winner is not None:
        labels = (*record.trial(record.winner).candidate.labels, *record.facts.cautions)
        parts += [Text(f"Note: {label}", style="yellow") for label in dict.fromkeys(labels)]
    parts += [Text(), _times_table(record), Text()]
    if record.workloads:
        parts += [_workloads_table(record), Text()]
    parts.append(_summary(record))
    return Padding(Group(*parts), (1, 2))


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def _times_table(record: RunRecord) -> RenderableType:
    against = {c.baseline: c for c in record.timing.comparisons} if record.timing else {}
    rows: list[tuple[str, float | None, str, str, str]] = []
    for row in record.baselines.rows:
        comparison = against.get(row.name)
        ms = comparison.baseline_ms if comparison else row.median_ms
        gain = times(comparison.speedup) if comparison else ""
        rows.append(
            (baseline_name(row.name), ms, gain, interval(comparison) if comparison else "", "dim")
        )
    if record.timing:
        rows.append(
            (
                "kernel",
                record.timing.candidate_ms,
                "",
                "",
                "green" if record.status == "faster" else "cyan",
            )
        )
    bound = bound_of(record)
    reached = f"{percent(bound.fraction)} reached" if bound.fraction is not None else ""
    rows.append(("memory roof" if bound.rewritten else "roofline", bound.ms, reached, "", "dim"))
    longest = max(ms for _, ms, _, _, _ in rows if ms is not None)
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    for _ in range(3):
        table.add_column(no_wrap=True)
    if record.timing:
        table.add_row("", "", "", Text("speedup", style="dim"), Text("95% interval", style="dim"))
    for name, ms, gain, bounds, style in rows:
        bar = Text(_bar(ms / longest) if ms is not None else "", style=style)
        table.add_row(name, time_text(ms), bar, gain, Text(bounds, style="dim"))
    return table


def _workloads_table(record: RunRecord) -> RenderableType:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(overflow="fold")
    for _ in range(4):
        table.add_column(no_wrap=True, justify="right")
    headings = ("workload", "baseline", "kernel", "speedup", "95% interval")
    table.add_row(*(Text(heading, style="dim") for heading in headings))
    for row in workload_rows(record):
        style = "green" if row.tone == "winner" else ""
        gain, bounds = Text(row.speedup, style=style), Text(row.interval, style="dim")
        table.add_row(Text(row.name), row.baseline_time, row.kernel_time, gain, bounds)
    return table


def _bar(share: float) -> str:
    """A bar drawn in eighths of a character."""
    eighths = max(1, round(share * BAR_WIDTH * 8))
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def _summary(record: RunRecord) -> RenderableType:
    work = f"{len(record.tried)} trial{'' if len(record.tried) == 1 else 's'}"
    usage = record.usage
    cost = f"in {duration(record.seconds)}, models {spending_text(usage)}"
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("work", f"{work} {cost}")
    if record.winner is not None:
        table.add_row("kernel", Text(f"{record.run_dir}/best/kernel.py"))
    table.add_row("report", Text(f"{record.run_dir}/report.html"))
    return table
