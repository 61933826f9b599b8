"""Turns at a machine: any number may judge at once, but who times has it alone.

Held by threads and processes alike: a turn is a lock on a file, and the system lets go of it with
the process. Turns are given in the order in which they are asked for, so that many who judge can't
keep out one who wants to time.
"""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Names the folder where this process and others take turns; without it, a run asks nobody.
VARIABLE = "KERNELWRIGHT_TURNS"


def turns_of_process() -> "Turns | None":
    """The turns that whoever started this process wants it to take; None where nobody does."""
    named = os.environ.get(VARIABLE)
    return Turns(Path(named)) if named else None


class Turns:
    """The turns at one machine, for all who name the same folder.

    Args:
        folder: of the two files that are locked; None for one of this user's on this machine.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or Path(tempfile.gettempdir()) / f"kernelwright-turns-{os.getuid()}"

    @contextmanager
    def judging(self) -> Iterator[None]:
        """Within this block others may judge, and nobody times."""
        with self._turn(fcntl.LOCK_SH):
            yield

    @contextmanager
    def timing(self) -> Iterator[None]:
        """Within this block nobody else does either."""
        with self._turn(fcntl.LOCK_EX):
            yield

    @contextmanager
    def _turn(self, kind: int) -> Iterator[None]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self._folder / "lane").open("a") as lane:
            with self._locked("gate", fcntl.LOCK_EX):
                # Whoever comes later waits at the gate.
                fcntl.flock(lane, kind)
            try:
                yield
            finally:
                # Not left to closing: a process forked meanwhile has the file open too.
                fcntl.flock(lane, fcntl.LOCK_UN)

    @contextmanager
    def _locked(self, name: str, kind: int) -> Iterator[None]:
        with (self._folder / name).open("a") as file:
            fcntl.flock(file, kind)
            try:
                yield
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)
