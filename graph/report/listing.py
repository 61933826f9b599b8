"""One row for each run in a folder, read off its files: finished, at work, stopped or broken.

It only reads, and a run that can't be read is a row that says why.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import yaml
from pydantic import ValidationError

from graph.events import legible_events
from graph.folder import RunFolder
from graph.record import RunRecord
from knowledge.errors import BadInput
from knowledge.opgraph import Frozen
from tools.verdict import Comparison

State = Literal["faster", "correct", "compiled", "failed", "running", "stopped", "broken"]
STATES: tuple[State, ...] = get_args(State)
# What only a run's folder holds, and what it is called by.
MARKS = ("task.yaml", "report.json", "events.jsonl", "checkpoint.sqlite")


class RunRow(Frozen):
    """What is known of one run.

    `speedup`, `low` and `high` are against the fastest baseline; of a run that is not `finished`
    they are the best reading so far, which nothing has confirmed. `usd` is None where a model's
    price is unknown. `note` says what is wrong, or why it ended.
    """

    run_id: str
    run_dir: str
    op: str
    device: str = ""
    state: State
    speedup: float | None = None
    low: float | None = None
    high: float | None = None
    trials: int = 0
    seconds: float | None = None
    usd: float | None = None
    started: str = ""
    note: str = ""
    report: bool = False

    @property
    def finished(self) -> bool:
        """Whether its figures are final."""
        return self.state in ("faster", "correct", "compiled", "failed")


class Wanted(NamedTuple):
    """Which rows are shown: all that fit every filter that is set."""

    states: tuple[State, ...] = ()
    op: str = ""
    device: str = ""
    since: datetime | None = None

    def fits(self, row: RunRow) -> bool:
        """Whether a row passes; texts are looked for anywhere, in any case."""
        return (
            (not self.states or row.state in self.states)
            and self.op.lower() in f"{row.op} {row.run_id}".lower()
            and self.device.lower() in row.device.lower()
            and (self.since is None or _moment(row.started) >= self.since)
        )


def list_runs(folders: Iterable[Path], wanted: Wanted = Wanted()) -> list[RunRow]:  # noqa: B008
    """A row for each run in these folders, the latest first.

    Args:
        folders: of runs, or a run's own.
        wanted: which of them.

    Raises:
        BadInput: one is no folder.
    """
    places = dict.fromkeys(place for folder in folders for place in _places(folder))
    rows = [row for row in map(row_of, places) if wanted.fits(row)]
    return sorted(rows, key=lambda row: (_moment(row.started), row.run_id), reverse=True)


def _places(folder: Path) -> Iterator[Path]:
    """The run folders in a folder, in its `runs/`, and where an evaluation lays each problem's."""
    if not folder.is_dir():
        raise BadInput(str(folder), "is not a folder.", "Give a folder that holds runs.")
    resolved = folder.resolve()
    if _is_run(resolved):
        yield resolved
        return
    for parent in (resolved, resolved / "runs", *sorted(resolved.glob("problems/*/run"))):
        try:
            entries = sorted(parent.iterdir()) if parent.is_dir() else []
        except OSError as error:
            raise BadInput(str(parent), f"cannot be read ({error.strerror}).") from error
        yield from (entry for entry in entries if _is_run(entry))


def _is_run(path: Path) -> bool:
    try:
        if not path.is_dir():
            return False
        # A process that was killed at its very start leaves an empty folder for trials.
        return any((path / mark).exists() for mark in MARKS) or (path / "trials").is_dir()
    except OSError:
        return False


def row_of(path: Path) -> RunRow:
    """One run's row, whatever state its folder is in."""
    report = (path / "report.html").is_file()
    try:
        stat = (path / "report.json").stat()
        row = _written(path, stat.st_mtime_ns, stat.st_size)
        if row.state == "stopped":
            # What went on after its report was written is in its events.
            row = _unfinished(path, row.note)
    except FileNotFoundError:
        row = _unfinished(path, "")
    except OSError as error:
        row = _broken(path, f"report.json cannot be read ({error.strerror})")
    return row.model_copy(update={"report": report})


@lru_cache(maxsize=10_000)
def _written(path: Path, changed: int, size: int) -> RunRow:
    """The row of a `report.json`; kept as long as the file stays as it is.

    Args:
        path: the run's folder.
        changed: when the file was written last, in nanoseconds.
        size: of the file in bytes.
    """
    try:
        return _told(path, RunRecord.model_validate_json((path / "report.json").read_bytes()))
    except ValidationError as error:
        return _broken(path, f"report.json is no record of a run ({first_problem(error)})")
    # What its winner names may not be there.
    except KeyError as error:
        return _broken(path, f"report.json contradicts itself (no {error})")


def _told(path: Path, record: RunRecord) -> RunRow:
    """What a record tells; of a run that stopped, its note is why."""
    best = record.timing.against_best if record.timing is not None else None
    return RunRow(
        run_id=path.name,
        run_dir=str(path),
        op=record.task.name,
        device=record.device.title,
        state=record.status if record.finished else "stopped",
        speedup=best.speedup if best else None,
        low=best.low if best else None,
        high=best.high if best else None,
        trials=len(record.tried),
        seconds=record.seconds,
        usd=None if record.usage.unpriced else record.usage.usd,
        started=record.started,
        note=record.ended,
    )


def _broken(path: Path, why: str) -> RunRow:
    return RunRow(
        run_id=path.name,
        run_dir=str(path),
        op=_op(path),
        state="broken",
        started=_began(path, []),
        note=why,
    )


def _unfinished(path: Path, ended: str) -> RunRow:
    """A run at work, or one that stopped, by its events."""
    events = legible_events(RunFolder(path).events)
    working = RunFolder(path).is_held()
    if not events and not working and not (path / "task.yaml").is_file():
        return _broken(path, "it has neither a task.yaml nor a report.json")
    device, trials = "", 0
    best: Comparison | None = None
    last: dict[str, Any] = {}
    for event in events:
        match event.get("kind"):
            case "prepared":
                device = str(event.get("device", ""))
            case "trial_judged":
                trials += 1
                best = _better(best, event)
            case "spending":
                last = event
            case _:
                pass
    usage = last.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    hint = f"go on with: {RunFolder(path).going_on}"
    return RunRow(
        run_id=path.name,
        run_dir=str(path),
        op=_op(path),
        device=device,
        state="running" if working else "stopped",
        speedup=best.speedup if best else None,
        low=best.low if best else None,
        high=best.high if best else None,
        trials=trials,
        seconds=_number(last.get("seconds")),
        usd=None if usage.get("unpriced") else _number(usage.get("usd")) or 0.0,
        started=_began(path, events),
        note="" if working else f"{ended or 'it ended without a word'}; {hint}",
    )


def _better(best: Comparison | None, event: dict[str, Any]) -> Comparison | None:
    """The faster of the best so far and what an event tells of."""
    try:
        compared = [
            Comparison.model_validate(one) for one in event["verdict"]["timing"]["comparisons"]
        ]
        found = min(compared, key=lambda one: one.speedup)
    except (KeyError, TypeError, ValueError):
        return best
    return found if best is None or found.speedup > best.speedup else best


def _op(path: Path) -> str:
    """The task's name, else what the folder's own name tells."""
    try:
        task = yaml.safe_load((path / "task.yaml").read_text(encoding="utf-8"))
        if isinstance(task, dict) and isinstance(task.get("name"), str):
            return str(task["name"])
    except (OSError, ValueError, yaml.YAMLError):
        pass
    parts = path.name.split("-")
    return "-".join(parts[2:-1]) or path.name


def _began(path: Path, events: list[dict[str, Any]]) -> str:
    """When a run began: by its first event, else by its folder's name, else by its folder."""
    if events and isinstance(events[0].get("at"), str):
        return str(events[0]["at"])
    try:
        stamp = datetime.strptime(path.name[:15], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        stamp = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return stamp.isoformat(timespec="seconds")


def _moment(text: str) -> datetime:
    """A time as it is written in a record; what can't be read sorts last."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def first_problem(error: ValidationError) -> str:
    """What is wrong with a record, in a few words."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else first["msg"]


def age(row: RunRow, now: datetime | None = None) -> str:
    """How long ago a run began, in the largest unit that says something."""
    since = (now or datetime.now(UTC)) - _moment(row.started)
    if since >= timedelta(days=10_000):
        return "?"
    minutes = max(0, int(since.total_seconds() // 60))
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // (24 * 60)} days"
