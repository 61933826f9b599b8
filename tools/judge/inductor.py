"""What torch.compile finds out and builds in every empty cache, kept for the next judge here.

Its probes of the vector unit and its precompiled header take ten seconds of a first compilation and
have nothing to do with the op. A process of our own makes them, in a jail; a baseline's runner may
read them. Where they are not to be had, torch.compile does as it always did.
"""

import functools
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

from tools.runner.jail import Jail, scrubbed_environment

SECONDS = 120.0
MEMORY = 8 << 30


class Furnishing:
    """The folder of this machine, made by a process in the background if it is not there.

    Args:
        jail: for that process.
        home: where such folders are kept; None for the user's cache.
    """

    def __init__(self, jail: Jail, home: Path | None = None) -> None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        self._jail = jail
        self._path = (home or cache / "kernelwright" / "inductor") / machine_key()
        self._making: tuple[subprocess.Popen[bytes], Path] | None = None

    def start(self) -> None:
        """Begin to make it, unless it is there or being made; does not wait."""
        if self._path.exists() or self._making is not None:
            return
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            for left in self._path.parent.glob("making-*"):
                # Of a judge that was killed.
                if time.time() - left.stat().st_mtime > 2 * SECONDS:
                    shutil.rmtree(left, ignore_errors=True)
            folder = Path(tempfile.mkdtemp(prefix="making-", dir=self._path.parent))
            # The process may be run as another user.
            folder.chmod(0o777)
            limits = ["--memory", str(MEMORY), "--seconds", str(int(SECONDS))]
            command = [sys.executable, "-m", "tools.runner.furnish"]
            self._making = (
                subprocess.Popen(
                    self._jail.compiling(command, folder, limits), cwd=folder,
                    env=scrubbed_environment(folder), start_new_session=True,
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                ),
                folder,
            )  # fmt: skip

    @property
    def ready(self) -> bool:
        """Whether nobody would have to wait for it."""
        return self._path.exists()

    def folder(self) -> Path | None:
        """The folder, waited for if it is being made; None where it could not be."""
        if self._making is not None:
            (process, made), self._making = self._making, None
            try:
                failed = process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                failed = process.wait()
            if not failed:
                # Another judge may have been quicker; its folder is as good.
                with suppress(OSError):
                    _adopt(made)
                    made.rename(self._path)
            shutil.rmtree(made, ignore_errors=True)
        return self._path if self._path.exists() else None

    def close(self) -> None:
        """End what is still being made."""
        if self._making is not None:
            process, made = self._making
            self._making = None
            process.kill()
            process.wait()
            shutil.rmtree(made, ignore_errors=True)


def _adopt(folder: Path) -> None:
    """Make it this user's own, for all to read: runners are other users where that is possible."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, os.geteuid(), os.getegid())
        path.chmod(0o755 if path.is_dir() else 0o644)


@functools.cache
def machine_key() -> str:
    """A name for all that decides what torch.compile would find and build here."""
    compiler = shutil.which(os.environ.get("CXX") or "g++") or ""
    said = subprocess.run([compiler, "--version"], capture_output=True).stdout if compiler else b""
    parts = [
        version("torch"), sys.version, sys.prefix, str(Path(compiler).resolve()),
        said.decode(errors="replace"), platform.machine(), _processor_flags(),
    ]  # fmt: skip
    return sha256("\n".join(parts).encode()).hexdigest()[:24]


def _processor_flags() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("flags", "Features")):
                return line
    return ""
