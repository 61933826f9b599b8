"""Run a command with all but named folders read-only. Executed by path, in fresh namespaces.

`jail.py` starts it as `python -I -S enclose.py [--mounts] [--reap] [--drop] [--memory BYTES]
[--seconds N] [--hide PATHS] [--keep PATHS] FOLDER... -- COMMAND...`. It imports the standard
library alone, because it runs for every compiler call and must start in milliseconds. Runners take
many of its steps too, in `confine.py`.
"""

import contextlib
import ctypes
import os
import resource
import signal
import stat
import sys
from collections.abc import Iterable
from pathlib import Path

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 4096, 16384, 1 << 18
SYS_OPEN_TREE, SYS_MOVE_MOUNT, SYS_MOUNT_SETATTR = 428, 429, 442
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
OPEN_TREE_CLONE, MOVE_MOUNT_EMPTY_PATH = 1, 4
MOUNT_ATTR_RDONLY = 1
SHARED_MEMORY = b"size=512m,nr_inodes=16k,mode=1777"
COVER = b"size=1m,nr_inodes=4k,mode=755"
OUT_OF_MEMORY_SCORE = "500"

SWITCHES = ("--mounts", "--reap", "--drop")

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_CAPBSET_DROP = 4, 8, 24
PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 38, 47, 2
CAP_DAC_READ_SEARCH, LAST_CAPABILITY = 2, 40
CAPABILITY_VERSION = 0x20080522
# Neither people, services (below 65,536) nor the ranges of containers (from 100,000) have these;
# the second range is for a container that knows no ids beyond 65,535.
USER_RANGES = ((70_000, 20_000), (61_000, 4_000))

_libc = ctypes.CDLL(None, use_errno=True)


class MountAttributes(ctypes.Structure):
    """`struct mount_attr` of mount_setattr(2)."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns")]


def mount(
    source: str, target: str, kind: str | None, flags: int, data: bytes | None = None
) -> None:
    """Attach a file system, or change the way that one is attached, as the manual has it.

    Raises:
        OSError: the kernel refused.
    """
    done = _libc.mount(
        source.encode(), target.encode(), kind.encode() if kind else None, flags, data
    )
    _check(done, f"mount {target}")


def set_read_only(path: str, read_only: bool, recursive: bool) -> None:
    """Make a mount (and all below it) read-only, or writable again.

    Raises:
        OSError: the kernel refused, or is older than 5.12.
    """
    change = MountAttributes()
    change.set = MOUNT_ATTR_RDONLY if read_only else 0
    change.clear = 0 if read_only else MOUNT_ATTR_RDONLY
    flags = AT_RECURSIVE if recursive else 0
    done = _libc.syscall(
        SYS_MOUNT_SETATTR, AT_FDCWD, path.encode(), flags, ctypes.byref(change),
        ctypes.sizeof(change),
    )  # fmt: skip
    _check(done, f"mount_setattr {path}")


def _check(done: int, what: str) -> int:
    if done < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return done


def plan_cover(places: Iterable[Path], keep: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Which folders to cover, and which paths in them to keep, neither within each other.

    A place that is kept itself, or that lies in a kept path, stays as it is. Added to the places
    are folders on the way to what is kept that other users may not enter.
    """
    kept = _outermost(keep_existing(keep))
    covered = [
        place
        for place in _outermost(keep_existing([*places, *gates(kept)]))
        if place.is_dir() and not any(place.is_relative_to(path) for path in kept)
    ]
    inside = [path for path in kept if any(path.is_relative_to(place) for place in covered)]
    return covered, inside


def cover(covered: Iterable[str], keep: Iterable[str]) -> None:
    """Put empty folders over these, in which only the kept paths are found again.

    Raises:
        OSError: the kernel refused.
    """
    flags = OPEN_TREE_CLONE | os.O_CLOEXEC | AT_RECURSIVE
    trees: list[tuple[str, int, bool]] = []
    for path in keep:
        found = _libc.syscall(SYS_OPEN_TREE, AT_FDCWD, os.fsencode(path), flags)
        trees.append((path, _check(found, f"open_tree {path}"), os.path.isdir(path)))  # noqa: PTH112
    for place in covered:
        mount("tmpfs", place, "tmpfs", MS_NOSUID | MS_NODEV, COVER)
    for path, tree, is_folder in trees:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        if is_folder:
            Path(path).mkdir()
        else:
            Path(path).touch()
        done = _libc.syscall(
            SYS_MOVE_MOUNT, tree, b"", AT_FDCWD, os.fsencode(path), MOVE_MOUNT_EMPTY_PATH
        )
        os.close(tree)
        _check(done, f"move_mount {path}")


def _outermost(paths: Iterable[Path]) -> list[Path]:
    """Without links, and without those that lie in another."""
    found: list[Path] = []
    for path in sorted({path.resolve() for path in paths}):
        if not (found and path.is_relative_to(found[-1])):
            found.append(path)
    return found


def gates(paths: Iterable[Path]) -> list[Path]:
    """For each path the outermost folder on the way to it that other users may not enter."""
    found = []
    for path in paths:
        for folder in reversed(path.resolve().parents):
            if not folder.stat().st_mode & stat.S_IXOTH:
                found.append(folder)
                break
    return found


def restrict_mounts(writable: list[str], hidden: list[Path], keep: list[Path]) -> None:
    """Everything read-only but these folders; a process table and shared memory of its own.

    Args:
        writable: folders.
        hidden: folders to cover, with those that other users may not enter.
        keep: what stays visible in them, besides the writable folders.

    Raises:
        OSError: the kernel refused.
    """
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    if hidden:
        covered, inside = plan_cover(hidden, [*keep, *map(Path, writable)])
        cover(map(str, covered), map(str, inside))
    for folder in writable:
        mount(folder, folder, None, MS_BIND)
    set_read_only("/", read_only=True, recursive=True)
    for folder in writable:
        set_read_only(folder, read_only=False, recursive=False)
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV)
    mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, SHARED_MEMORY)


def keep_existing(paths: Iterable[Path]) -> list[Path]:
    """Those that are there, and that this process may look at."""
    found = []
    for path in paths:
        with contextlib.suppress(OSError):
            path.stat()
            found.append(path)
    return found


def spare_users() -> range:
    """User ids that nobody else has; empty where this process may not become them."""
    if os.geteuid() == 0:
        lines = Path("/proc/self/uid_map").read_text().splitlines()
        for first, count in USER_RANGES:
            for begin, _, length in (map(int, line.split()) for line in lines):
                if begin <= first and first + count <= begin + length:
                    return range(first, first + count)
    return range(0)


def become(user: int, keep: tuple[int, ...]) -> None:
    """Change to a user id, with no groups and no capability but these, for good.

    Raises:
        OSError: the kernel refused.
    """
    # Only root may do this, and the next steps leave root.
    _drop_bounding(keep)
    _libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    drop_capabilities(keep)
    # Changing the user made /proc/self unreadable, which torch's own profiler reads.
    _libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)


def drop_capabilities(keep: tuple[int, ...] = ()) -> None:
    """Give up every capability but these, for good, and for all programs started later."""
    _drop_bounding(keep)
    mask = sum(1 << capability for capability in keep)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    sets = (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0)
    _libc.capset(ctypes.byref(header), ctypes.byref(sets))
    for capability in keep:
        _libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0)
    _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _drop_bounding(keep: tuple[int, ...]) -> None:
    for capability in range(LAST_CAPABILITY + 1):
        if capability not in keep:
            _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


def prefer_as_victim() -> None:
    """Where memory runs out, the kernel ends this process and not the user's own."""
    # Raising the score is always allowed; without /proc there is nothing to raise.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OUT_OF_MEMORY_SCORE)


def _drop(needed: list[Path]) -> None:
    """What a compiler gives up: its options come from the candidate, and can run any program."""
    spare = spare_users()
    if not spare:
        drop_capabilities()
        return
    become(spare[-1], (CAP_DAC_READ_SEARCH,) if gates(keep_existing(needed)) else ())


def die_with_parent() -> None:
    """Have the kernel end this process when the one that forked it ends."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _become_child_of_reaper() -> None:
    """Fork; the child goes on, and its parent ends all that is left once the child has ended.

    A process namespace does the same, where there is one.
    """
    adopt_orphans()
    child = os.fork()
    if child == 0:
        die_with_parent()
        return
    # An end that is kept open here would hide that the child closed its own.
    os.closerange(3, 1 << 20)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while True:
        ended, status = os.wait()
        if ended == child:
            break
    end_children()
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def end_children() -> None:
    """End every child of this process, and the orphans that it is handed meanwhile."""
    listed = Path(f"/proc/self/task/{os.getpid()}/children")
    with contextlib.suppress(ChildProcessError):
        while True:
            for process in listed.read_text().split() if listed.exists() else ():
                os.kill(int(process), signal.SIGKILL)
            os.wait()


def _take(options: list[str], name: str) -> str | None:
    if name not in options:
        return None
    place = options.index(name)
    value = options[place + 1]
    del options[place : place + 2]
    return value


def _take_paths(options: list[str], name: str) -> list[Path]:
    return [Path(path) for path in (_take(options, name) or "").split(os.pathsep) if path]


def main(arguments: list[str]) -> None:
    """Restrict this process, then become the command."""
    split = arguments.index("--")
    options, command = arguments[:split], arguments[split + 1 :]
    keep, hidden = _take_paths(options, "--keep"), _take_paths(options, "--hide")
    for name, limit in (("--memory", resource.RLIMIT_AS), ("--seconds", resource.RLIMIT_CPU)):
        value = _take(options, name)
        if value is not None:
            resource.setrlimit(limit, (int(value), int(value)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    prefer_as_victim()
    folders = [option for option in options if option not in SWITCHES]
    here = Path.cwd()
    if "--mounts" in options:
        restrict_mounts(folders, hidden, keep)
        # The working folder was found before the mounts changed, and still lies under the old,
        # read-only one.
        os.chdir(here)
    if "--reap" in options:
        _become_child_of_reaper()
    if "--drop" in options:
        _drop([*keep, here])
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
