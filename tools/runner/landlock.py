"""A fence for runners on machines that allow no namespaces, as most containers do: Landlock.

Any process may restrict itself with it, and its children with it. It fences files off from Linux
5.13 on, TCP from 6.7, signals and abstract sockets from 6.12; what the kernel lacks is left out.
"""

import contextlib
import ctypes
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

SYS_CREATE_RULESET, SYS_ADD_RULE, SYS_RESTRICT_SELF = 444, 445, 446
CREATE_RULESET_VERSION, RULE_PATH_BENEATH = 1, 1
# Bits of LANDLOCK_ACCESS_FS: execute, read a file, list a folder; then write, and truncate.
READ, LISTING, WRITE, TRUNCATE = 0b101, 0b1000, 0b10, 1 << 14
EVERYTHING_BY_VERSION = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1}
TCP, TCP_SINCE = 0b11, 4
SIGNALS_AND_ABSTRACT_SOCKETS, SCOPES_SINCE = 0b11, 6
# NVIDIA's driver names its threads in there as it starts, and does not start where it may not.
THREADS, NVIDIA = "/proc/self/task", "nvidia"
DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "nvidia*", "dri", "kfd", "dxg",
           "infiniband")  # fmt: skip

_libc = ctypes.CDLL(None, use_errno=True)


class Ruleset(ctypes.Structure):
    """`struct landlock_ruleset_attr`."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("files", "network", "scoped")]


class PathBeneath(ctypes.Structure):
    """`struct landlock_path_beneath_attr`."""

    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("descriptor", ctypes.c_int32)]


def fence(scratch: str, readable: Iterable[str], devices: Iterable[str]) -> list[str]:
    """Restrict this process for good; returns what is in force, in words.

    Args:
        scratch: the only folder that may be written to.
        readable: all that may be read besides.
        devices: files, or folders of them, that may be written to as well.
    """
    version = _libc.syscall(SYS_CREATE_RULESET, None, 0, CREATE_RULESET_VERSION)
    if version < 1:
        return []
    everything = EVERYTHING_BY_VERSION[min(version, max(EVERYTHING_BY_VERSION))]
    rules = Ruleset(
        everything,
        TCP if version >= TCP_SINCE else 0,
        SIGNALS_AND_ABSTRACT_SOCKETS if version >= SCOPES_SINCE else 0,
    )
    size = 24 if version >= SCOPES_SINCE else 16 if version >= TCP_SINCE else 8
    ruleset = _libc.syscall(SYS_CREATE_RULESET, ctypes.byref(rules), size, 0)
    if ruleset < 0:
        return []
    for path in readable:
        _allow(ruleset, path, READ | LISTING)
    written = [*devices]
    if any(os.path.basename(path).startswith(NVIDIA) for path in written):  # noqa: PTH119
        # The rule is bound to what stands there now: held open, it is not made anew.
        os.open(THREADS, os.O_PATH | os.O_CLOEXEC)
        written.append(THREADS)
    for path in written:
        _allow(ruleset, path, (READ | LISTING | WRITE | TRUNCATE) & everything)
    _allow(ruleset, scratch, everything)
    refused = _libc.syscall(SYS_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)
    if refused:
        return []
    names = ["files fenced"]
    if version >= TCP_SINCE:
        names.append("no TCP")
    return [*names, "signals fenced"] if version >= SCOPES_SINCE else names


def outside(hidden: Iterable[Path], folder: Path = Path("/")) -> Iterator[Path]:
    """The largest folders, and files, that hold nothing hidden."""
    hidden = set(hidden)
    for path in folder.iterdir():
        if path.is_symlink() or path in hidden:
            continue
        if any(place.is_relative_to(path) for place in hidden):
            # What this process may not list, it may not enter either.
            with contextlib.suppress(PermissionError):
                yield from outside(hidden, path)
        else:
            yield path


def devices() -> list[Path]:
    """What a kernel may open for writing: the usual ones, and the machine's accelerators."""
    return [path for pattern in DEVICES for path in Path("/dev").glob(pattern)]


def _allow(ruleset: int, path: str, access: int) -> None:
    """Let these rights hold for a path and all below; what can't be opened stays fenced off."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    if not os.path.isdir(path):  # noqa: PTH112
        access &= READ | WRITE | TRUNCATE
    rule = PathBeneath(access, descriptor)
    _libc.syscall(SYS_ADD_RULE, ruleset, RULE_PATH_BENEATH, ctypes.byref(rule), 0)
    os.close(descriptor)
