"""`python -m benchmarks.experience`: does a run on one op help the next run on an op like it?

For each of ten pairs the first op is run in a fresh library; then the second, once in a fresh
library (cold) and once in the first's (warm). What counts is how many trials and seconds of
search either takes until a kernel is about as fast as the best that both of them found.

All of it takes an hour. With `--work FOLDER` what is finished is kept there, run by run, and the
same command goes on with what is left; `--runs N` stops it after so many runs.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import median
from typing import Annotated, NamedTuple

import typer
import yaml
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from benchmarks.pairs import PAIRS, Op, Pair
from eval.process import Ended, Execute, execute
from eval.rows import ENDED_WELL, SLACK_S, Document
from graph.events import Event, Planned, Prepared, TrialJudged, read_events
from graph.record import BASELINE_PLAN
from knowledge.errors import BadInput
from tools.verdict import Correct

BAD_INPUT = 2
# Two readings of one kernel differ by so much; what is this near the best counts as the best.
REACHED = 0.95


class Measured(NamedTuple):
    """A trial: seconds of search until its verdict, and its speedup, None if it was rejected."""

    seconds: float
    speedup: float | None


@dataclass(frozen=True)
class Run:
    """One run. `trials` leaves out the baseline that a fruitless run hands over."""

    status: str
    confirmed: float | None
    trials: tuple[Measured, ...]
    led: bool

    @property
    def best(self) -> float | None:
        """The best measured speedup."""
        return max((one.speedup for one in self.trials if one.speedup), default=None)

    def until(self, goal: float) -> tuple[int, float] | None:
        """Trials and seconds of search until a speedup was reached; None if it never was."""
        for count, trial in enumerate(self.trials, 1):
            if trial.speedup is not None and trial.speedup >= goal:
                return count, trial.seconds
        return None


@dataclass(frozen=True)
class Row:
    """The second op of a pair, cold and warm. `failed` says why there are no figures.

    `goal` is the speedup that is to be reached, and `led` whether the warm run's first plan cites
    the first op's.
    """

    pair: str
    failed: str = ""
    goal: float | None = None
    led: bool = False
    cold_trials: int | None = None
    warm_trials: int | None = None
    cold_seconds: float | None = None
    warm_seconds: float | None = None
    cold_best: float | None = None
    warm_best: float | None = None
    cold_confirmed: float | None = None
    warm_confirmed: float | None = None


class RunFailed(Exception):
    """A run did not come to its end; the message says how."""


class Enough(Exception):
    """As many runs as were asked for have been started; the rest is for another call."""


def at_most(count: int, run: Execute) -> Execute:
    """The same as `run`, so many times; then `Enough`."""
    left = count

    def limited(command: list[str], deadline_s: float, log: Path) -> Ended:
        nonlocal left
        if left < 1:
            raise Enough
        left -= 1
        return run(command, deadline_s, log)

    return limited


def compare(pair: Pair, folder: Path, settings: Sequence[str], run: Execute) -> Row:
    """The three runs of a pair, in a folder of its own; those that it has already are not made."""
    folder.mkdir(parents=True, exist_ok=True)
    shared, fresh = folder / "shared", folder / "fresh"
    try:
        _one(pair.first, "first", folder, shared, settings, run)
        cold = _one(pair.second, "cold", folder, fresh, settings, run)
        warm = _one(pair.second, "warm", folder, shared, settings, run)
    except RunFailed as failure:
        return Row(pair.name, failed=str(failure))
    return row_of(pair.name, cold, warm)


def row_of(name: str, cold: Run, warm: Run) -> Row:
    """Both runs of the second op against the speedup that both of them came near to."""
    if cold.best is None or warm.best is None:
        return Row(name, failed="no kernel was right", cold_best=cold.best, warm_best=warm.best)
    goal = REACHED * min(cold.best, warm.best)
    cold_until, warm_until = cold.until(goal), warm.until(goal)
    assert cold_until is not None, "the best of its trials reaches it"
    assert warm_until is not None, "the best of its trials reaches it"
    return Row(
        name, "", goal, warm.led, cold_until[0], warm_until[0], cold_until[1], warm_until[1],
        cold.best, warm.best, cold.confirmed, warm.confirmed,
    )  # fmt: skip


def _one(
    op: Op, name: str, folder: Path, library: Path, settings: Sequence[str], run: Execute
) -> Run:
    kept = folder / f"{name}.json"
    if kept.exists():
        return _read_kept(kept)
    reference = folder / f"{name}.py"
    reference.write_text(op.source, encoding="utf-8")
    task = folder / f"{name}.yaml"
    task.write_text(yaml.safe_dump({"name": name, "reference": reference.name}), encoding="utf-8")
    command = ["env", f"KERNELWRIGHT_LIBRARY={library}", sys.executable, "-m", "graph.run"]
    command += [str(task), "--json", "--out", str(folder / "runs")]
    command += [part for setting in settings for part in ("--set", setting)]
    log = folder / f"{name}.log"
    ended = run(command, _deadline_s(settings), log)
    if ended.code not in ENDED_WELL:
        how = "was stopped at its deadline" if ended.code is None else f"exited with {ended.code}"
        raise RunFailed(f"{name}: {how}: {' '.join(ended.log.split())[-200:]}")
    try:
        document = Document.model_validate_json(ended.output)
        events = read_events(Path(document.run_dir) / "events.jsonl")
    except (OSError, ValidationError) as error:
        raise RunFailed(f"{name}: its answer cannot be read ({error})") from error
    finished = read_run(document, events)
    fresh = kept.with_suffix(".new")
    fresh.write_text(json.dumps(asdict(finished)), encoding="utf-8")
    fresh.replace(kept)
    return finished


def _read_kept(kept: Path) -> Run:
    told = json.loads(kept.read_text(encoding="utf-8"))
    return Run(**told | {"trials": tuple(Measured(*trial) for trial in told["trials"])})


def _deadline_s(settings: Sequence[str]) -> float:
    given = dict(setting.partition("=")[::2] for setting in settings)
    return float(given.get("budget.minutes", "15")) * 60 + SLACK_S


def read_run(document: Document, events: Sequence[Event]) -> Run:
    """What a run's events tell; time counts from the end of its preparation."""
    began: datetime | None = None
    trials: list[Measured] = []
    first_plan = ""
    for event in events:
        match event:
            case Prepared():
                began = datetime.fromisoformat(event.at)
            case Planned() if event.plans and not first_plan:
                first_plan = event.plans[0].arithmetic
            case TrialJudged() if event.plan != BASELINE_PLAN and began is not None:
                seconds = (datetime.fromisoformat(event.at) - began).total_seconds()
                trials.append(Measured(seconds, _speedup(event)))
            case _:
                pass
    return Run(
        status=document.status,
        confirmed=document.speedup.best_baseline,
        trials=tuple(trials),
        led="Experience:" in first_plan,
    )


def _speedup(event: TrialJudged) -> float | None:
    verdict = event.verdict
    if not isinstance(verdict, Correct) or verdict.timing is None:
        return None
    return verdict.timing.against_best.speedup


def chosen(only: str | None) -> list[Pair]:
    """The pairs whose names match.

    Raises:
        BadInput: none does.
    """
    wanted = [name.strip() for name in only.split(",")] if only else ["*"]
    pairs = [pair for pair in PAIRS if any(fnmatchcase(pair.name, name) for name in wanted)]
    if not pairs:
        known = ", ".join(pair.name for pair in PAIRS)
        raise BadInput(f"--only {only}", "names no pair.", f"Known: {known}.")
    return pairs


def measure(
    pairs: Sequence[Pair],
    folder: Path,
    settings: Sequence[str] = (),
    run: Execute = execute,
    tell: Callable[[str], None] = print,
) -> Iterator[Row]:
    """The rows, one pair after the other, until all are made or `run` has had enough."""
    for pair in pairs:
        try:
            row = compare(pair, folder / pair.name, settings, run)
        except Enough:
            tell(f"{pair.name}: to be gone on with; the same command does")
            return
        tell(_line(row))
        yield row


def document_of(rows: Sequence[Row], settings: Sequence[str]) -> dict[str, object]:
    """What is written as JSON."""
    complete = [row for row in rows if not row.failed]
    medians = {
        name: median(getattr(row, name) for row in complete) if complete else None
        for name in ("cold_trials", "warm_trials", "cold_seconds", "warm_seconds")
    }
    return {
        "settings": list(settings),
        "rows": [asdict(row) for row in rows],
        "pairs": len(rows),
        "fewer_trials": sum((row.warm_trials or 0) < (row.cold_trials or 0) for row in complete),
        "more_trials": sum((row.warm_trials or 0) > (row.cold_trials or 0) for row in complete),
        "median": medians,
    }


def show(rows: Sequence[Row]) -> None:
    """The table, for people."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    headings = ("pair", "trials cold", "warm", "seconds cold", "warm", "best cold", "warm", "led")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left")
    for row in rows:
        if row.failed:
            table.add_row(row.pair, row.failed)
            continue
        table.add_row(
            row.pair, str(row.cold_trials), str(row.warm_trials), f"{row.cold_seconds:.1f}",
            f"{row.warm_seconds:.1f}", f"{row.cold_best:.2f}x", f"{row.warm_best:.2f}x",
            "yes" if row.led else "no",
        )  # fmt: skip
    Console(highlight=False, markup=False).print(table)


def _line(row: Row) -> str:
    if row.failed:
        return f"{row.pair}: {row.failed}"
    return (
        f"{row.pair}: {row.cold_trials} trials and {row.cold_seconds:.1f} s cold, "
        f"{row.warm_trials} and {row.warm_seconds:.1f} s warm, to {row.goal:.2f}x"
    )


def run(
    out: Annotated[Path | None, typer.Option("--out", help="the JSON file to write")] = None,
    only: Annotated[
        str | None, typer.Option("--only", metavar="NAME[,NAME]", help="these pairs")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="of every task")
    ] = None,
    work: Annotated[
        Path | None, typer.Option("--work", help="a folder that keeps finished runs, to go on from")
    ] = None,
    runs: Annotated[
        int | None, typer.Option("--runs", min=1, help="start so many at most, of three a pair")
    ] = None,
) -> None:
    """Run all pairs, about five minutes each; the machine should be doing nothing else.

    What is kept in --work belongs to the settings that it was made with.

    Exit code 0, whatever the figures are; 2 on bad input.
    """
    console = Console(stderr=True, highlight=False, markup=False)
    rows: list[Row] = []
    try:
        pairs = chosen(only)
        if out is not None and not out.parent.is_dir():
            raise BadInput(f"--out {out}", "lies in a folder that does not exist.")
        started = execute if runs is None else at_most(runs, execute)
        with _home(work, settings or ()) as home:
            for row in measure(pairs, home, settings or (), started, console.print):
                rows.append(row)
                if out is not None:
                    text = json.dumps(document_of(rows, settings or ()), indent=1) + "\n"
                    out.write_text(text, encoding="utf-8")
    except BadInput as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(BAD_INPUT) from error
    show(rows)


@contextmanager
def _home(work: Path | None, settings: Sequence[str]) -> Iterator[Path]:
    """The folder that runs are made in: the given one, or one that is gone in the end.

    Raises:
        BadInput: it cannot be made, or holds runs of other settings.
    """
    if work is None:
        with tempfile.TemporaryDirectory(prefix="experience-", ignore_cleanup_errors=True) as home:
            yield Path(home)
        return
    note = work / "settings.json"
    try:
        work.mkdir(parents=True, exist_ok=True)
        if not note.exists():
            note.write_text(json.dumps(list(settings)), encoding="utf-8")
        made_with = json.loads(note.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"--work {work}", f"cannot be used ({error.strerror}).") from error
    if made_with != list(settings):
        told = " ".join(f"--set {setting}" for setting in made_with) or "no --set"
        raise BadInput(f"--work {work}", f"holds runs with {told}.", "Give the same, or another.")
    yield work.resolve()


def main() -> None:
    """The command."""
    typer.run(run)


if __name__ == "__main__":
    main()
