"""What `optimize` gives back: the kernel as a callable in the op's place, and the evidence."""

from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

from graph.record import RunRecord
from graph.report import plots
from graph.report.words import baseline_name, headline, interval, milliseconds, times
from graph.shipping import shipment_of
from tools.facts import MUTATES
from tools.snapshot import Snapshot
from tools.verdict import Timing
from tools.wear import load_kernel, wear

# The colours that the plots name, in the light and the dark of a notebook.
STYLE = """
.kernelwright { --ink: #1a1d21; --muted: #646b75; --line: #e2e3e0; --accent: #0f766e;
  --bad: #b3392f; --card: transparent; color: var(--ink); max-width: 640px;
  font: 14px/1.5 system-ui, sans-serif; font-variant-numeric: tabular-nums; }
@media (prefers-color-scheme: dark) { .kernelwright { --ink: #e6e7e9; --muted: #979ea8;
  --line: #2c3036; --accent: #4fc3b3; --bad: #f08a7e; } }
.kernelwright h4 { font-size: 18px; margin: 0 0 4px; }
.kernelwright p { margin: 0 0 8px; color: var(--muted); }
.kernelwright table { border-collapse: collapse; margin: 0 0 8px; }
.kernelwright td { padding: 2px 16px 2px 0; text-align: right; border: 0; }
.kernelwright td:first-child { text-align: left; }
.kernelwright svg { width: 100%; height: auto; }
.kernelwright svg.narrow { display: none; }
"""


class Result:
    """A finished run on a function or a module.

    Call it as you would call what was optimised: where the kernel was verified (same shapes and
    dtypes) it runs, and everywhere else the original does. For a module, `module` is one of the
    same class with the same parameters.

    Args:
        record: of the run.
        subject: what was optimised.
        arguments: what it was optimised for; tensors are looked at, and never changed.
        built_with: arguments of the kernel's constructor.
    """

    def __init__(
        self,
        record: RunRecord,
        subject: Any,
        arguments: tuple[Any, ...],
        built_with: tuple[Any, ...] = (),
    ) -> None:
        self.record = record
        self._subject = subject
        self._arguments = arguments
        self._built_with = built_with
        # The kernel is of this day's subject, and put in its place on first use alone.
        self._then = Snapshot(subject)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """As the original."""
        return self.module(*arguments, **named)

    @cached_property
    def module(self) -> Any:
        """The drop-in; where nothing right was found, the original itself."""
        kernel = self.folder / "best" / "kernel.py"
        if self.record.confirmation is None or not kernel.is_file():
            return self._subject
        if self._then.heard or not self._then.same():
            return self._subject
        shipment = shipment_of(self.record)
        if shipment is not None and shipment.rebuilds_weights:
            # It can't be given the subject's, which may be others by now.
            return self._subject
        in_place = any(MUTATES in caution for caution in self.record.facts.cautions)
        made = load_kernel(kernel, self._built_with)
        return wear(self._subject, made, self._arguments, in_place=in_place)

    @property
    def folder(self) -> Path:
        """The run's folder, with every trial in it."""
        return Path(self.record.run_dir)

    @property
    def report(self) -> Path:
        """The run's report, one HTML page."""
        return self.folder / "report.html"

    @property
    def source(self) -> str | None:
        """The exported kernel's text, which needs nothing of Kernelwright; None without one."""
        kernel = self.folder / "best" / "kernel.py"
        return kernel.read_text(encoding="utf-8") if kernel.is_file() else None

    @property
    def source_sha256(self) -> str | None:
        """Of the winner's source as it was judged: the same from every way in."""
        winner = self.record.winner
        return None if winner is None else self.record.trial(winner).candidate.digest

    @property
    def timing(self) -> Timing | None:
        """The confirmed figures; None where nothing was timed."""
        return self.record.timing

    @property
    def speedup(self) -> float | None:
        """Confirmed, over the faster of eager and torch.compile; None where nothing was timed."""
        return None if self.timing is None else self.timing.against_best.speedup

    @property
    def status(self) -> str:
        """`faster`, `correct`, `compiled` or `failed`, as a run's."""
        return self.record.status

    def __repr__(self) -> str:
        said = headline(self.record).title
        return f"<Result of {self.record.task.name}: {said}; {self.folder}>"

    def _repr_html_(self) -> str:
        """For a notebook: the headline, the times, and the plot of all trials."""
        said = headline(self.record)
        plot = plots.speedup_plot(self.record)
        return "".join([
            f'<div class="kernelwright"><style>{STYLE}</style>',
            f"<h4>{escape(said.title)}</h4><p>{escape(said.sentence)}</p>",
            self._table(),
            str(plot) if plot is not None else "",
            f"<p>{escape(str(self.report))}</p></div>",
        ])  # fmt: skip

    def _table(self) -> str:
        if self.timing is None:
            return ""
        rows = [
            f"<tr><td>{escape(baseline_name(one.baseline))}</td>"
            f"<td>{milliseconds(one.baseline_ms)}</td>"
            f"<td>{times(one.speedup)}</td><td>{interval(one)}</td></tr>"
            for one in self.timing.comparisons
        ]
        kernel = f"<tr><td>kernel</td><td>{milliseconds(self.timing.candidate_ms)}</td></tr>"
        return f"<table>{''.join(rows)}{kernel}</table>"
