"""What a forked runner gives up before it sees any untrusted code.

Every step that the machine refuses is left out of the list of what is in force, which the verdict
shows; none is assumed.
"""

import _thread
import contextlib
import ctypes
import os
import resource
import signal
import socket
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from tools.runner import landlock
from tools.runner.enclose import (
    CAP_DAC_READ_SEARCH,
    MS_NODEV,
    MS_NOSUID,
    MS_PRIVATE,
    MS_REC,
    SHARED_MEMORY,
    become,
    cover,
    die_with_parent,
    drop_capabilities,
    mount,
    set_read_only,
    spare_users,
)

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER = 0x00020000, 0x08000000, 0x10000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
SYS_KEYCTL = {"x86_64": 250, "aarch64": 219}
KEYCTL_JOIN_SESSION_KEYRING, KEYCTL_CLEAR = 1, 7
KEYRING_OF_USER, KEYRING_OF_USER_SESSION = -4, -5
SCRATCH_BYTES = 512 << 20
OPEN_FILES = 1024
OWN_PROCESSES = "own processes"
MESSAGE_QUEUE_BYTES = 1 << 20

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Limits:
    """Caps of one runner.

    `memory` counts bytes of address space beyond what the zygote has; `processes` counts threads
    too.
    """

    memory: int
    processes: int
    file_size: int


@dataclass(frozen=True)
class Room:
    """The paths of one runner, found out by the judge, since a fork must be quick.

    Args:
        folder: holds its source; `scratch` in it is all that it may write to.
        covered: folders of which it is to see nothing but what is kept.
        kept: what stays of them; its own folder does so anyway.
        fence: where no mounts are its own, what it may read.
        devices: where no mounts are its own, what it may write to.
    """

    folder: str
    covered: tuple[str, ...]
    kept: tuple[str, ...]
    fence: tuple[str, ...]
    devices: tuple[str, ...]

    @property
    def scratch(self) -> str:
        """Home, temporary and working folder."""
        return f"{self.folder}/scratch"


def confine(room: Room, user: int | None, limits: Limits, own_namespaces: bool) -> list[str]:
    """Take all the steps that this machine allows; returns what is in force, in words."""
    hidden = own_namespaces and hide_the_others(room)
    own_user = become_nobody(user, room)
    leave_keyrings(own_user)
    fenced = (
        [] if hidden else landlock.fence(room.scratch, (room.folder, *room.fence), room.devices)
    )
    apply_limits(limits)
    die_with_parent()
    names = {
        OWN_PROCESSES: hidden,
        "own folder": hidden,
        "own user": own_user,
        "no network": has_no_network(),
        "processes capped": processes_are_capped(),
    }
    return [name for name, given in names.items() if given] + fenced + ["limits"]


def enter_namespaces() -> bool:
    """Fresh namespaces for the next child; False where the machine refuses.

    Where no user id is to spare the runner gets a user namespace too: processes are counted, and
    keyrings kept, in each of them apart.
    """
    own_user = os.geteuid() == 0 and spare_users()
    apart = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWNET
    user, group = os.geteuid(), os.getegid()
    if _libc.unshare(apart | (0 if own_user else CLONE_NEWUSER)) != 0:
        return False
    if not own_user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    return True


def hide_the_others(room: Room) -> bool:
    """See only one's own processes and files, and write to one's own scratch; False where refused.

    Needs the fresh namespaces of `enter_namespaces`, and to be the first process in them.
    """
    try:
        mount("none", "/", None, MS_REC | MS_PRIVATE)
        cover(room.covered, [*room.kept, room.folder])
        set_read_only("/", read_only=True, recursive=True)
        size = f"size={SCRATCH_BYTES},nr_inodes=64k,mode=700".encode()
        mount("tmpfs", room.scratch, "tmpfs", MS_NOSUID | MS_NODEV, size)
        mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV)
        mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, SHARED_MEMORY)
    except OSError:
        return False
    return True


def has_no_network() -> bool:
    """Whether there is no way out but the loop to oneself."""
    return [name for _, name in socket.if_nameindex()] in ([], ["lo"])


def apply_limits(limits: Limits) -> None:
    """Resource limits, from here on and for every child."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    caps = {
        resource.RLIMIT_AS: used + limits.memory,
        resource.RLIMIT_FSIZE: limits.file_size,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_MSGQUEUE: MESSAGE_QUEUE_BYTES,
        resource.RLIMIT_NPROC: _threads_of_this_user() + limits.processes,
    }
    for kind, value in caps.items():
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def processes_are_capped() -> bool:
    """Whether RLIMIT_NPROC binds this process: tried out, since it does not bind root."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (1, hard))
    try:
        # Threads count as processes do, and need no copy of this process's tables of pages.
        _thread.start_new_thread(int, ())
    except RuntimeError:
        return True
    finally:
        resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))
    return False


def _threads_of_this_user() -> int:
    """What RLIMIT_NPROC counts already; almost nothing where the user id is this runner's own."""
    threads = 0
    for entry in os.scandir("/proc"):
        # A process may end while it is looked at.
        with contextlib.suppress(OSError, IndexError, ValueError):
            if entry.name.isdigit() and entry.stat().st_uid == os.getuid():
                fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
                threads += int(fields[17])
    return threads


def become_nobody(user: int | None, room: Room) -> bool:
    """Change to a user id of this runner's own; False where the machine has none to give.

    Root is not bound by RLIMIT_NPROC and may signal its siblings; a user id that nobody else has
    may not. Where torch or the project can't be read by all, the right to read (and no other) is
    kept.
    """
    if user is None or user not in spare_users():
        drop_capabilities()
        return False
    os.chown(room.scratch, user, user)
    become(user, () if _readable_by_all(room) else (CAP_DAC_READ_SEARCH,))
    # What an earlier runner of this id may have left; no other process has the id.
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    return True


def leave_keyrings(own_user: bool) -> None:
    """Find no keys of the session that the judge was started in, nor of an earlier runner.

    The user's keyring is emptied only where the user id is this runner's own.
    """
    number = SYS_KEYCTL.get(os.uname().machine)
    if number is None:
        return
    _libc.syscall(number, KEYCTL_JOIN_SESSION_KEYRING, None)
    for ring in (KEYRING_OF_USER, KEYRING_OF_USER_SESSION) if own_user else ():
        _libc.syscall(number, KEYCTL_CLEAR, ring)


def _readable_by_all(room: Room) -> bool:
    """Whether any user may read Python, torch and the project, and enter what leads to them."""
    files = (sys.executable, str(torch.__file__), __file__)
    folders = {parent for file in (*files, room.scratch) for parent in Path(file).parents}
    return all(os.stat(file).st_mode & stat.S_IROTH for file in files) and all(  # noqa: PTH116
        folder.stat().st_mode & stat.S_IXOTH for folder in folders
    )
