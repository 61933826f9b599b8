"""What a person sees in the terminal: live progress on standard error, and the final screen.

On a terminal a rich live view; elsewhere one plain line an event; with `quiet` nothing. It only
watches: nothing here decides.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import NamedTuple, Self, assert_never

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

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
)
from graph.record import RunRecord, Usage
from graph.report.words import (
    TONES,
    Tone,
    baseline_name,
    bound_of,
    describe,
    duration,
    estimate_text,
    headline,
    interval,
    milliseconds,
    money_text,
    percent,
    spending_text,
    times,
)
from tools.task import Budget, Task
from tools.verdict import Comparison, Correct, Verdict

ROWS_SHOWN = 12
BAR_WIDTH = 22
STYLES: dict[Tone, str] = {"good": "green", "plain": "default", "bad": "red", "warn": "yellow"}


class Screen:
    """Shows a run while it goes; a context manager fed with events, from any thread.

    Args:
        task: what is being run; its budget is what time and trials are counted against.
        quiet: show nothing.
        console: where to draw; standard error if not given.
    """

    def __init__(self, task: Task, quiet: bool, console: Console | None = None) -> None:
        self._task = task
        self._console = console or Console(stderr=True)
        self._quiet = quiet
        self._animated = self._console.is_terminal and not self._console.is_dumb_terminal
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._events: list[Event] = []
        self._live: Live | None = None

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        if not self._quiet and self._animated:
            self._live = Live(
                console=self._console,
                get_renderable=self._view,
                refresh_per_second=8,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    @contextmanager
    def aside(self) -> Iterator[Console]:
        """The console for a conversation, with the live view out of its way."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()
        try:
            yield self._console
        finally:
            if live is not None:
                self._live = live
                live.start()

    def handle(self, event: Event) -> None:
        """Show one event."""
        with self._lock:
            self._events.append(event)
            if isinstance(event, Spending):
                # What was worked before a restart counts as well.
                self._began = time.monotonic() - event.seconds
        if not self._quiet and not self._animated:
            line = Text(f"{duration(self._seconds())} {plain_line(event)}")
            self._console.print(line, soft_wrap=True)

    def _seconds(self) -> float:
        return time.monotonic() - self._began

    def _view(self) -> RenderableType:
        with self._lock:
            events = tuple(self._events)
        room = max(3, min(ROWS_SHOWN, self._console.height - 12))
        return live_view(self._task, events, self._seconds(), room)


def plain_line(event: Event) -> str:
    """An event as one line of plain text."""
    match event:
        case NodeStarted(node=node, detail=detail):
            return f"{node}: {detail}" if detail else node
        case Prepared():
            return f"measured: {_baselines_text(event)}"
        case Planned(plans=plans):
            titles = "; ".join(
                f"{plan.title} (expected {times(plan.expected_speedup)})" for plan in plans
            )
            return f"plans: {titles}" if plans else "plans: nothing worth trying is left"
        case TrialJudged():
            return f"trial {event.number}: {_verdict_text(event)}: {event.title}"
        case Repaired(failed_trial=failed_trial, action=action):
            return f"repair of trial {failed_trial}: {_one_line(action)}"
        case Concluded(status=status, ended=ended, trials=trials):
            return f"concluded: {status}, {trials} trials, {_one_line(ended)}"
        case Estimated():
            return f"estimate: {estimate_text(event.estimate, event.budget)}"
        case Spending(usage=usage, seconds=seconds):
            device = f"{usage.device_seconds:.0f} s on the device"
            return f"spent: {duration(seconds)}, {device}, models {spending_text(usage)}"
        case Note(text=text):
            return _one_line(text)
        case _:
            assert_never(event)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]


def _baselines_text(event: Prepared) -> str:
    rows = [
        f"{baseline_name(row.name)} {_time_text(row.median_ms)}" for row in event.baselines.rows
    ]
    roof = event.roofline
    return " · ".join((*rows, f"roofline {milliseconds(roof.floor_ms)}, {roof.bound}-bound"))


def _time_text(ms: float | None) -> str:
    return milliseconds(ms) if ms is not None else "not measured"


def _comparison(verdict: Verdict) -> Comparison | None:
    if isinstance(verdict, Correct) and verdict.timing is not None:
        return verdict.timing.against_best
    return None


def _verdict_text(event: TrialJudged) -> str:
    words, comparison = describe(event.verdict), _comparison(event.verdict)
    if comparison is None:
        last_words = _one_line(words.log.splitlines()[-1] if words.log else words.sentence)
        return f"{words.label} ({last_words[:160]})"
    return f"{words.label}, {times(comparison.speedup)} ({interval(comparison)})"


class _Progress(NamedTuple):
    """What the live view shows, picked from the events so far."""

    prepared: Prepared | None
    usage: Usage
    judged: tuple[TrialJudged, ...]
    now: str
    aside: str


def _progress(events: tuple[Event, ...]) -> _Progress:
    prepared, usage, now, aside = None, Usage(), "starting", ""
    judged: dict[int, TrialJudged] = {}
    for event in events:
        match event:
            case NodeStarted():
                now = plain_line(event)
            case Prepared():
                prepared = event
            case TrialJudged():
                judged[event.number] = event
            case Spending():
                usage = event.usage
            case Planned() | Repaired() | Estimated() | Note():
                aside = plain_line(event)
            case Concluded():
                now = "done"
            case _:
                assert_never(event)
    return _Progress(prepared, usage, tuple(judged.values()), now, aside)


def live_view(task: Task, events: tuple[Event, ...], seconds: float, room: int) -> RenderableType:
    """Everything known so far, in about `room` rows of trials and five lines around them."""
    progress = _progress(events)
    parts: list[RenderableType] = [_status_line(task, len(progress.judged), seconds)]
    if figures := _budget_text(task.budget, progress.usage):
        parts.append(Text(figures, style="dim", overflow="ellipsis", no_wrap=True))
    if progress.prepared is not None:
        parts.append(
            Text(_baselines_text(progress.prepared), style="dim", overflow="ellipsis", no_wrap=True)
        )
    if progress.judged:
        parts += [Text(), _trial_table(progress.judged, room)]
    parts.append(Text())
    parts.append(
        Spinner("dots", Text(progress.now, overflow="ellipsis", no_wrap=True), style="cyan")
    )
    if progress.aside:
        parts.append(Text(f"  {progress.aside}", style="dim", overflow="ellipsis", no_wrap=True))
    return Padding(Group(*parts), (1, 2, 0, 2))


def _status_line(task: Task, judged: int, seconds: float) -> RenderableType:
    line = Table.grid(expand=True)
    line.add_column(ratio=1, no_wrap=True)
    line.add_column(justify="right", no_wrap=True)
    left = max(0.0, task.budget.minutes * 60 - seconds)
    trials_left = max(0, task.budget.trials - judged)
    line.add_row(
        Text(task.name, style="bold"),
        Text(
            f"{duration(seconds)} elapsed · {duration(left)} and {trials_left} trials left",
            style="dim",
        ),
    )
    return line


def _budget_text(budget: Budget, usage: Usage) -> str:
    """Tokens, money and device time beside their caps, as far as any was taken."""
    figures = []
    if usage.shares:
        money = money_text(usage.usd, usage.unpriced)
        figures.append(f"{usage.tokens:,} of {budget.tokens:,} tokens")
        figures.append(money if usage.unpriced else f"{money} of ${budget.usd:.2f}")
    if budget.device_seconds is not None:
        figures.append(f"{usage.device_seconds:.0f} of {budget.device_seconds:g} s on the device")
    return " · ".join(figures)


def _trial_table(judged: tuple[TrialJudged, ...], room: int) -> RenderableType:
    """The newest trials that fit, and always the best one."""
    best = max(judged, key=lambda event: c.speedup if (c := _comparison(event.verdict)) else 0.0)
    shown = judged[-room:]
    if best not in shown:
        shown = (best, *shown[1:])
    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    table.add_column(justify="right", style="dim", no_wrap=True)
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    for _ in range(4):
        table.add_column(justify="right", no_wrap=True)
    for event in shown:
        words, comparison = describe(event.verdict), _comparison(event.verdict)
        title = f"{event.title} (repair {event.repair})" if event.repair else event.title
        table.add_row(
            str(event.number),
            Text(title, style="bold" if event is best and comparison else ""),
            Text(words.label, style=STYLES[words.tone]),
            times(comparison.speedup) if comparison else "",
            Text(interval(comparison) if comparison else "", style="dim"),
            Text(_roofline_share(event.roofline_fraction), style="dim"),
        )
    return table


def _roofline_share(fraction: float | None) -> str:
    if fraction is None:
        return ""
    return f"{percent(fraction)} roof"


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
    parts += [Text(), _times_table(record), Text(), _summary(record)]
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
        table.add_row(name, _time_text(ms), bar, gain, Text(bounds, style="dim"))
    return table


def _bar(share: float) -> str:
    """A bar drawn in eighths of a character."""
    eighths = max(1, round(share * BAR_WIDTH * 8))
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def _summary(record: RunRecord) -> RenderableType:
    work = f"{len(record.trials)} trial{'' if len(record.trials) == 1 else 's'}"
    usage = record.usage
    cost = f"in {duration(record.seconds)}, models {spending_text(usage)}"
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("work", f"{work} {cost}")
    if record.winner is not None:
        table.add_row("kernel", f"{record.run_dir}/best/kernel.py")
    table.add_row("report", f"{record.run_dir}/report.html")
    return table
