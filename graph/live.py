"""The live view: a run as it stands, drawn anew a few times a second.

`Progress` takes events and keeps what is to be seen of them; `live_view` draws it. Colours are the
terminal's own sixteen, so that they suit a light ground and a dark one, and none of them says what
no word says.
"""

from dataclasses import dataclass, field
from typing import NamedTuple, assert_never

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
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
from graph.lines import baselines_text, comparison_of, plain_line
from graph.record import BASELINE_PLAN, Usage
from graph.report.words import Tone, describe, duration, interval, money_text, percent, times
from tools.task import Budget, Task

STYLES: dict[Tone, str] = {"good": "green", "plain": "default", "bad": "red", "warn": "yellow"}
# What a node does, as a person would say it.
AT_WORK = {
    "prepare": "tracing the op, and timing what is to be beaten",
    "plan": "planning",
    "approve": "waiting for a word on the plan",
    "select": "choosing what to build on",
    "confirm": "measuring the winner anew, in a new process",
    "conclude": "writing kernel and report",
    "code": "writing",
    "compile": "compiling",
    "verify": "verifying",
    "measure": "timing",
    "profile": "profiling",
    "debug": "mending",
}
# While one of these is at work, a clock runs that a busy screen would disturb.
TIMED = frozenset({"prepare", "measure", "confirm"})
NARROW = 72
LABEL_WIDTH, FIGURES_WIDTH = 8, 20
SHORTEST_BAR, LONGEST_BAR = 6, 32
# Rows that the view takes beside its table's: empty ones, head, bars, what happens now.
AROUND = 14
FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class Step(NamedTuple):
    """A node at work on a trial (0: on the run), since when in seconds of the run."""

    node: str
    title: str
    since: float


NOTHING_YET = Step("", "", 0.0)


@dataclass
class Progress:
    """What is to be seen of a run, taken from its events as they come."""

    prepared: Prepared | None = None
    usage: Usage = field(default_factory=Usage)
    judged: dict[int, TrialJudged] = field(default_factory=dict)
    working: dict[int, Step] = field(default_factory=dict)
    now: Step = field(default=NOTHING_YET)
    aside: str = ""
    done: bool = False

    def take(self, event: Event, seconds: float) -> None:
        """Take in one event, which came when the run was that old."""
        match event:
            case NodeStarted():
                self._begin(event, seconds)
            case Prepared():
                self.prepared = event
            case TrialJudged():
                self.judged[event.number] = event
                self.working.pop(event.number, None)
            case Repaired():
                self.working.pop(event.failed_trial, None)
                self.aside = plain_line(event)
            case Spending():
                self.usage = event.usage
            case Planned() | Estimated() | Note():
                self.aside = plain_line(event)
            case Concluded():
                self.done = True
            case _:
                assert_never(event)

    def _begin(self, event: NodeStarted, seconds: float) -> None:
        if event.trial is not None:
            title = event.detail.removeprefix(f"#{event.trial} ")
            self.working[event.trial] = Step(event.node, title, seconds)
            return
        # A round is over: what was at work in it has its verdict, or was never carried out.
        self.working.clear()
        self.now = Step(event.node, event.detail, seconds)

    @property
    def timing(self) -> bool:
        """Whether a clock is running somewhere."""
        return any(step.node in TIMED for step in (self.now, *self.working.values()))

    @property
    def best(self) -> TrialJudged | None:
        """The fastest trial so far."""
        timed = [one for one in self.judged.values() if comparison_of(one.verdict) is not None]
        return max(timed, key=_speedup, default=None)


def _speedup(event: TrialJudged) -> float:
    comparison = comparison_of(event.verdict)
    return comparison.speedup if comparison is not None else 0.0


def live_view(
    task: Task, progress: Progress, seconds: float, *, width: int, height: int
) -> RenderableType:
    """Everything known so far.

    Args:
        task: what is being run.
        progress: of the run.
        seconds: its age.
        width: of the terminal, in characters.
        height: of the terminal, in lines; the table of trials is what gives way.
    """
    inside = width - 4
    room = max(3, height - AROUND)
    parts: list[RenderableType] = [_head(task, progress, seconds)]
    if progress.prepared is not None:
        parts.append(_dim(baselines_text(progress.prepared)))
    parts += [Text(), _gauges(task, progress, seconds, inside)]
    if progress.judged or progress.working:
        parts += [Text(), _trials(progress, seconds, room, inside)]
    parts.append(Text())
    if not (progress.working or progress.done):
        parts.append(_now(progress.now, seconds))
    if progress.aside:
        parts.append(_dim(progress.aside))
    return Padding(Group(*parts), (1, 2, 0, 2))


def _dim(text: str) -> Text:
    return Text(text, style="dim", overflow="ellipsis", no_wrap=True)


def _head(task: Task, progress: Progress, seconds: float) -> RenderableType:
    line = Table.grid(expand=True)
    line.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    line.add_column(justify="right", no_wrap=True)
    device = (progress.prepared.device,) if progress.prepared is not None else ()
    thinkers = task.model.named if task.way_of_thinking != "playbook" else ()
    about = " · ".join((*device, task.strategy, *thinkers))
    title = Text.assemble((task.name, "bold"), (f"  {about}", "dim"))
    line.add_row(title, Text(f"{duration(seconds)} elapsed", style="dim"))
    return line


class _Gauge(NamedTuple):
    label: str
    taken: float
    cap: float
    figures: str


def _gauges(task: Task, progress: Progress, seconds: float, inside: int) -> RenderableType:
    """What was taken of each budget: two bars a row where they fit."""
    gauges = _budgets(task, progress, seconds)
    columns = 1 if inside < NARROW else 2
    free = inside // columns - LABEL_WIDTH - FIGURES_WIDTH - 2
    bar_width = max(SHORTEST_BAR, min(LONGEST_BAR, free))
    table = Table.grid(padding=(0, 1, 0, 0))
    for _ in range(columns):
        table.add_column(width=LABEL_WIDTH - 1, style="dim", no_wrap=True)
        table.add_column(width=bar_width)
        table.add_column(width=FIGURES_WIDTH, no_wrap=True, overflow="ellipsis")
    for start in range(0, len(gauges), columns):
        cells: list[RenderableType] = []
        for gauge in gauges[start : start + columns]:
            cells += [gauge.label, _bar(gauge, bar_width), gauge.figures]
        table.add_row(*cells)
    return table


def _bar(gauge: _Gauge, width: int) -> RenderableType:
    if gauge.cap <= 0:
        return Text("─" * width, style="dim")
    return ProgressBar(
        total=gauge.cap,
        completed=min(gauge.taken, gauge.cap),
        width=width,
        style="dim",
        complete_style="cyan",
        finished_style="yellow",
    )


def _budgets(task: Task, progress: Progress, seconds: float) -> list[_Gauge]:
    budget, usage = task.budget, progress.usage
    cap = budget.minutes * 60
    tried = sum(one.plan != BASELINE_PLAN for one in progress.judged.values())
    gauges = [
        _Gauge("time", seconds, cap, f"{duration(seconds)} of {duration(cap)}"),
        _Gauge("trials", tried, budget.trials, f"{tried} of {budget.trials}"),
    ]
    if usage.shares or task.way_of_thinking != "playbook":
        gauges += _paid(budget, usage)
    if budget.device_seconds is not None:
        figures = f"{usage.device_seconds:.0f} of {budget.device_seconds:g} s"
        gauges.append(_Gauge("device", usage.device_seconds, budget.device_seconds, figures))
    return gauges


def _paid(budget: Budget, usage: Usage) -> list[_Gauge]:
    tokens = f"{usage.tokens:,} of {budget.tokens:,}"
    money = f"{money_text(usage.usd)} of ${budget.usd:.2f}"
    if usage.unpriced:
        money = f"over {money}" if usage.usd else "price unknown"
    return [
        _Gauge("tokens", usage.tokens, budget.tokens, tokens),
        _Gauge("money", usage.usd, budget.usd, money),
    ]


def _trials(progress: Progress, seconds: float, room: int, inside: int) -> RenderableType:
    """The newest trials that fit, those at work, and always the best one."""
    best, wide = progress.best, inside >= NARROW
    judged = [progress.judged[number] for number in sorted(progress.judged)]
    working = sorted((n, s) for n, s in progress.working.items() if n not in progress.judged)
    space = max(1, room - len(working))
    shown = judged[-space:]
    if best is not None and best not in shown:
        shown = [best, *shown[1:]]
    columns = 6 if wide else 4
    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column(no_wrap=True)
    for _ in range(columns - 3):
        table.add_column(justify="right", no_wrap=True)
    heads = ("#", "attempt", "verdict", "speedup", "95% range", "roof")
    table.add_row(*(Text(head, style="dim") for head in heads[:columns]))
    for event in shown:
        row = _judged_row(event, event is best, progress.working.get(event.number), seconds)
        table.add_row(*row[:columns])
    for number, step in working:
        row = _working_row(number, step, seconds)
        table.add_row(*row[:columns])
    return table


def _working_row(number: int, step: Step, seconds: float) -> tuple[RenderableType, ...]:
    return (
        Text.assemble((_frame(seconds), "cyan"), (f" {number}", "dim")),
        Text(step.title),
        Text(AT_WORK.get(step.node, step.node), style="cyan"),
        Text(duration(seconds - step.since), style="dim"),
        "",
        "",
    )


def _judged_row(
    event: TrialJudged, leads: bool, mending: Step | None, seconds: float
) -> tuple[RenderableType, ...]:
    words, comparison = describe(event.verdict), comparison_of(event.verdict)
    title = f"{event.title} (repair {event.repair})" if event.repair else event.title
    label = Text(words.label, style=STYLES[words.tone])
    mark = ("★ ", "green") if leads else ("", "")
    if mending is not None:
        label.append(f", {AT_WORK[mending.node]}", style="cyan")
        mark = (f"{_frame(seconds)} ", "cyan")
    fraction = event.roofline_fraction
    return (
        Text.assemble(mark, (str(event.number), "green" if leads else "dim")),
        Text(title, style="bold" if leads else ""),
        label,
        Text(times(comparison.speedup) if comparison else "", style="bold" if leads else ""),
        Text(interval(comparison) if comparison else "", style="dim"),
        Text(percent(fraction) if fraction is not None else "", style="dim"),
    )


def _now(now: Step, seconds: float) -> RenderableType:
    """What happens now, and for how long it has."""
    doing = AT_WORK.get(now.node, now.node) or "starting"
    age = (f"  {duration(seconds - now.since)}", "dim")
    line = Text.assemble((_frame(seconds), "cyan"), f" {doing}", age)
    line.no_wrap, line.overflow = True, "ellipsis"
    return line


def _frame(seconds: float) -> str:
    """A spinner's shape at that time; it turns in seven steps a second, so that it does in one."""
    return FRAMES[int(seconds * 7) % len(FRAMES)]
