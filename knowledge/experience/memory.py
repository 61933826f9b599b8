"""The memory: every judged trial of every finished run, in one SQLite file beside the library.

Any number of processes may use it at once: each call opens the file, does one transaction and
closes it. A run is never stopped by it: what cannot be read or written is told, not raised.
"""

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from knowledge.catalogue import folder_lock
from knowledge.errors import BadInput
from knowledge.experience.lesson import ALIKE, likeness
from knowledge.experience.tried import Tried
from knowledge.pattern import Step

SCHEMA = 1
# Longer than any write takes, so that only a stuck process is given up on.
BUSY_S = 30.0
COLUMNS = tuple(Tried.model_fields)
TABLE = """
CREATE TABLE trials (
    run_id TEXT NOT NULL,
    trial INTEGER NOT NULL,
    fingerprint TEXT NOT NULL,
    signature TEXT NOT NULL,
    device TEXT NOT NULL,
    architecture TEXT NOT NULL,
    title TEXT NOT NULL,
    steps TEXT NOT NULL,
    verdict TEXT NOT NULL,
    speedup REAL,
    low REAL,
    high REAL,
    confirmed INTEGER NOT NULL,
    won INTEGER NOT NULL,
    bottleneck TEXT NOT NULL,
    roofline REAL,
    mended TEXT NOT NULL,
    repair TEXT NOT NULL,
    "when" TEXT NOT NULL,
    PRIMARY KEY (run_id, trial)
)
"""
INDEX = "CREATE INDEX by_op ON trials (signature, device)"
# What SQLite says of a file that is torn, or that never was a database.
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

_STEPS: TypeAdapter[tuple[Step, ...]] = TypeAdapter(tuple[Step, ...])
Answer = TypeVar("Answer")


class Memory:
    """The trials that are remembered in a folder; nothing is made there before the first call."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "experience.sqlite"
        self._said: dict[str, bool] = {}

    def complaints(self) -> tuple[str, ...]:
        """What went wrong and was not told yet: sentences for whoever watches the run."""
        untold = tuple(sentence for sentence, told in self._said.items() if not told)
        self._said.update(dict.fromkeys(untold, True))
        return untold

    def complain(self, sentence: str) -> None:
        """Have whoever watches the run told, once: the planner asks in every round."""
        self._said.setdefault(sentence, False)

    def keep(self, trials: Sequence[Tried]) -> None:
        """Remember a finished run; told twice of the same run, the second account stands."""
        runs = sorted({one.run_id for one in trials})

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "DELETE FROM trials WHERE run_id = ?", [(run_id,) for run_id in runs]
            )
            connection.executemany(_insert("INSERT"), map(_row, trials))

        try:
            self._use(work, writes=True)
        except BadInput as error:
            self.complain(f"This run is not remembered: {error}")

    def like(self, signature: str, *, device: str = "", architecture: str = "") -> list[Tried]:
        """Trials of ops like this one, oldest first.

        Args:
            signature: as `signature` makes it.
            device: only from this device.
            architecture: only from devices that kernels are written for alike.
        """

        def work(connection: sqlite3.Connection) -> list[Tried]:
            known = connection.execute("SELECT DISTINCT signature FROM trials").fetchall()
            alike = [theirs for (theirs,) in known if likeness(signature, theirs) >= ALIKE]
            found: list[Tried] = []
            for theirs in alike:
                found += _select(
                    connection,
                    {"signature": theirs, "device": device, "architecture": architecture},
                )
            return sorted(found, key=lambda one: (one.when, one.run_id, one.trial))

        try:
            return self._use(work)
        except BadInput as error:
            self.complain(f"Earlier runs are not looked at: {error}")
            return []

    def entries(self, *, run_id: str = "", op: str = "", device: str = "") -> list[Tried]:
        """Every trial, oldest first.

        Args:
            run_id: only this run's.
            op: only those of this signature or fingerprint.
            device: only those on it.

        Raises:
            BadInput: the file cannot be read.
        """
        return self._use(
            lambda connection: _select(connection, {"run_id": run_id, "device": device}, op)
        )

    def add(self, trials: Sequence[Tried]) -> list[Tried]:
        """Add those that are not known yet, all or none, and return them.

        Raises:
            BadInput: the file cannot be written.
        """

        def work(connection: sqlite3.Connection) -> list[Tried]:
            insert = _insert("INSERT OR IGNORE")
            return [one for one in trials if connection.execute(insert, _row(one)).rowcount > 0]

        return self._use(work, writes=True)

    def drop(self, *, run_id: str = "", op: str = "", device: str = "") -> list[Tried]:
        """Forget the trials that `entries` gives for the same choice, and return them.

        Raises:
            BadInput: the file cannot be written.
        """

        def work(connection: sqlite3.Connection) -> list[Tried]:
            gone = _select(connection, {"run_id": run_id, "device": device}, op)
            connection.executemany(
                "DELETE FROM trials WHERE run_id = ? AND trial = ?",
                [(one.run_id, one.trial) for one in gone],
            )
            return gone

        return self._use(work, writes=True)

    def _use(self, work: Callable[[sqlite3.Connection], Answer], *, writes: bool = False) -> Answer:
        """One transaction; a damaged file is set aside first and an empty one put in its place."""
        try:
            try:
                return self._transact(work, writes)
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                self._set_aside()
                return self._transact(work, writes)
        except (sqlite3.Error, OSError) as error:
            raise BadInput(
                str(self.file),
                f"cannot be used ({error}).",
                "Make the library's folder writable, or set KERNELWRIGHT_LIBRARY to another.",
            ) from error

    def _transact(self, work: Callable[[sqlite3.Connection], Answer], writes: bool) -> Answer:
        with closing(self._connect()) as connection:
            self._prepare(connection)
            # A transaction that turns writer halfway may be refused, however long it waits.
            connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
            answer = work(connection)
            # Whatever is raised before this closes the connection, which undoes it all.
            connection.execute("COMMIT")
            return answer

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.file, timeout=BUSY_S, isolation_level=None)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Make the table in a new file.

        Raises:
            BadInput: a later version has made it otherwise.
        """
        if _version(connection) == 0:
            # SQLite does not wait where two processes change one file's journal at once.
            with folder_lock(self.file.parent, exclusive=True):
                if _version(connection) == 0:
                    connection.execute("PRAGMA journal_mode = WAL")
                    connection.execute("BEGIN IMMEDIATE")
                    connection.execute(TABLE)
                    connection.execute(INDEX)
                    connection.execute(f"PRAGMA user_version = {SCHEMA}")
                    connection.execute("COMMIT")
        if (version := _version(connection)) > SCHEMA:
            raise BadInput(
                str(self.file),
                f"is of a later version ({version}; {SCHEMA} is known).",
                "Update Kernelwright.",
            )

    def _set_aside(self) -> None:
        """Rename a damaged file, unless another process has done so since."""
        with folder_lock(self.file.parent, exclusive=True):
            try:
                with closing(self._connect()) as connection:
                    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
                if verdict == "ok":
                    return
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
            stamp = f"{datetime.now(UTC):%Y%m%d-%H%M%S-%f}"
            aside = self.file.with_name(f"{self.file.name}.damaged-{stamp}")
            for suffix in ("-shm", "-wal", ""):
                part = self.file.with_name(self.file.name + suffix)
                if part.exists():
                    part.rename(f"{aside}{suffix}")
        self.complain(
            f"{self.file} is damaged; it was set aside as {aside.name}, and a new one begun."
        )


def is_damage(error: Exception) -> bool:
    """Whether SQLite says so of its file."""
    # The lower byte is the kind of error, the rest its details.
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF in DAMAGED


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _insert(how: str) -> str:
    names = ", ".join(f'"{name}"' for name in COLUMNS)
    return f"{how} INTO trials ({names}) VALUES ({', '.join('?' * len(COLUMNS))})"


def _row(one: Tried) -> tuple[object, ...]:
    plain = one.model_dump(mode="json") | {"steps": _STEPS.dump_json(one.steps).decode()}
    return tuple(plain[name] for name in COLUMNS)


def _select(connection: sqlite3.Connection, wanted: dict[str, str], op: str = "") -> list[Tried]:
    """The trials with the wanted values, where they are not empty; unreadable rows are left out."""
    conditions = {name: value for name, value in wanted.items() if value}
    tests = [f'"{name}" = ?' for name in conditions]
    values = list(conditions.values())
    if op:
        tests.append("(signature = ? OR fingerprint = ?)")
        values += [op, op]
    names = ", ".join(f'"{name}"' for name in COLUMNS)
    where = f" WHERE {' AND '.join(tests)}" if tests else ""
    rows = connection.execute(
        f'SELECT {names} FROM trials{where} ORDER BY "when", run_id, trial',
        values,
    )
    found: list[Tried] = []
    for row in rows:
        try:
            plain = dict(zip(COLUMNS, row, strict=True))
            steps = _STEPS.validate_json(plain["steps"])
            found.append(Tried.model_validate(plain | {"steps": steps}))
        except ValidationError:
            continue
    return found
