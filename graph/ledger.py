"""A file of JSON lines that outlives its process: a line counts once it is whole."""

import os
import threading
from pathlib import Path


class Ledger:
    """Lines appended for good, from any thread.

    Args:
        path: the file; made with its first line.
        durable: a line also outlives the machine's end, which takes a few milliseconds each.
    """

    def __init__(self, path: Path, *, durable: bool = False) -> None:
        self.path = path
        self._durable = durable
        self._lock = threading.Lock()

    def whole_lines(self) -> list[str]:
        """Every whole line; the file stays as it is, for somebody else may write to it."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return []
        return _lines(data[: data.rfind(b"\n") + 1])

    def recover(self) -> tuple[list[str], bool]:
        """Every whole line, and whether a half-written one had to be dropped.

        A process that is killed while it writes leaves a line without an end; it is cut off, so
        that the next one starts where a line should.
        """
        if not self.path.exists():
            return [], False
        with self._lock, self.path.open("r+b") as file:
            data = file.read()
            whole = data.rfind(b"\n") + 1
            if whole < len(data):
                file.truncate(whole)
                os.fsync(file.fileno())
        return _lines(data[:whole]), whole < len(data)

    def append(self, line: str) -> None:
        """Write one line; it outlives this process when this returns."""
        data = line.encode() + b"\n"
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                while data:
                    data = data[os.write(descriptor, data) :]
                if self._durable:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _lines(data: bytes) -> list[str]:
    # Not splitlines: a line of JSON may hold other ends of lines.
    return [line for line in data.decode("utf-8", errors="replace").split("\n") if line]
