"""How an evaluation goes on, for whoever watches: a bar on a terminal, plain lines elsewhere."""

from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.progress import TimeElapsedColumn as Elapsed

from eval.problem import Problem
from eval.results import Results
from eval.rows import Row, Skipped
from eval.score import is_correct, is_faster
from eval.tables import in_words
from graph.report.words import duration, times


class Watcher(Protocol):
    """Is told what happens."""

    def begin(self, problem: Problem) -> None:
        """A problem's process starts."""

    def end(self, row: Row, results: Results) -> None:
        """It has a row, which the results hold already."""


class Screen:
    """The progress of one evaluation on standard error.

    Args:
        console: where it is shown.
        results: the rows so far.
        quiet: show nothing.
    """

    def __init__(self, console: Console, results: Results, *, quiet: bool = False) -> None:
        self._console = console
        self._quiet = quiet
        self._total = len(results.problems)
        self._at_work: dict[str, None] = {}
        self._bar: Progress | None = None
        if console.is_terminal and not quiet:
            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                Elapsed(),
                TextColumn("[dim]{task.fields[so_far]}"),
                console=console,
                transient=True,
            )
            self._task = self._bar.add_task(
                "", total=self._total, completed=len(results.rows), so_far=so_far(results)
            )

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def begin(self, problem: Problem) -> None:
        """Show which problem is at work, or how many are."""
        self._at_work[problem.task.name] = None
        self._show_at_work()

    def _show_at_work(self) -> None:
        if self._bar is not None:
            names = list(self._at_work)
            told = names[0][:39] if len(names) == 1 else f"{len(names)} problems on their way"
            self._bar.update(self._task, description=escape(told) if names else "")

    def end(self, row: Row, results: Results) -> None:
        """A line for the row, and the figures so far."""
        self._at_work.pop(row.name, None)
        if self._quiet:
            return
        place = f"[{len(results.rows)}/{self._total}]"
        line = f"{place} {row.name}: {in_words(row)}, {duration(row.seconds)}"
        console = self._bar.console if self._bar is not None else self._console
        style = _style(row) if self._bar is not None else None
        console.print(line, markup=False, highlight=False, soft_wrap=True, style=style)
        if self._bar is not None:
            self._bar.update(self._task, completed=len(results.rows), so_far=so_far(results))
            self._show_at_work()


def so_far(results: Results) -> str:
    """The scores while the evaluation goes on."""
    judged = [row for row in results.rows if not isinstance(row, Skipped)]
    if not judged:
        return ""
    correct = sum(is_correct(row) for row in judged)
    mean = results.summary.geomean
    told = f", geomean {times(mean)}" if mean is not None else ""
    return f"{correct} of {len(judged)} correct{told}"


def _style(row: Row) -> str | None:
    if is_faster(row, 1.0):
        return "green"
    return None if is_correct(row) else "yellow"
