"""What a forked runner gives up before it sees any untrusted code.

Every step that the machine refuses is left out of the list of what is in force, which the verdict
shows; none is assumed.
"""

import ctypes
import os
import resource
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from tools.runner.enclose import (
    MS_BIND,
    MS_NODEV,
    MS_NOSUID,
    MS_PRIVATE,
    MS_REC,
    mount,
    set_read_only,
)

CLONE_NEWNS, CLONE_NEWPID = 0x00020000, 0x20000000
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_CAPBSET_DROP = 1, 4, 8, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 36, 38, 47, 2
CAP_DAC_READ_SEARCH, CAP_SETPCAP, LAST_CAPABILITY = 2, 8, 40
CAPABILITY_VERSION = 0x20080522
SIGKILL = 9
FIRST_USER, USERS = 61_000, 4_000

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


def die_with_parent() -> None:
    """Have the kernel end this process when the one that forked it ends."""
    _libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def enter_namespaces() -> bool:
    """Fresh process and mount namespaces for the next child; False where the machine refuses."""
    return bool(_libc.unshare(CLONE_NEWNS | CLONE_NEWPID) == 0)


def hide_the_others(folder: Path) -> bool:
    """See only one's own processes, and write to one's own folder alone; False where refused.

    Needs the fresh namespaces of `enter_namespaces`, and to be the first process in them.
    """
    try:
        mount("none", "/", None, MS_REC | MS_PRIVATE)
        mount(str(folder), str(folder), None, MS_BIND)
        set_read_only("/", read_only=True, recursive=True)
        set_read_only(str(folder), read_only=False, recursive=False)
        mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV)
        mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, b"size=1g,mode=1777")
    except OSError:
        return False
    return True


def apply_limits(limits: Limits) -> None:
    """Resource limits, from here on and for every child."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    caps = {
        resource.RLIMIT_AS: used + limits.memory,
        resource.RLIMIT_FSIZE: limits.file_size,
        resource.RLIMIT_CORE: 0,
    }
    if os.getuid() == 0 or FIRST_USER <= os.getuid() < FIRST_USER + USERS:
        caps[resource.RLIMIT_NPROC] = limits.processes
    for kind, value in caps.items():
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def become_nobody(number: int, folder: Path) -> bool:
    """Change to a user id of this runner's own; False where the machine has none to give.

    Root is not bound by RLIMIT_NPROC and may signal its siblings; a user id that nobody else has
    may not. Where torch or the project lie in a folder that only root may enter, the right to read
    (and no other) is kept.
    """
    if os.geteuid() != 0:
        return False
    user = FIRST_USER + number % USERS
    keep = () if _readable_by_all() else (CAP_DAC_READ_SEARCH,)
    try:
        os.chown(folder, user, user)
        os.setgroups([])
        _libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    except OSError:
        return False
    drop_capabilities(keep)
    # Changing the user made /proc/self unreadable, which torch's own profiler reads.
    _libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
    return True


def drop_capabilities(keep: tuple[int, ...] = ()) -> None:
    """Give up every capability but these, for good, and for all programs started later."""
    for capability in range(LAST_CAPABILITY + 1):
        if capability not in keep:
            _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    mask = sum(1 << capability for capability in keep)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    sets = (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0)
    _libc.capset(ctypes.byref(header), ctypes.byref(sets))
    for capability in keep:
        _libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0)
    _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _readable_by_all() -> bool:
    """Whether any user may enter every folder that holds Python, torch and the project."""
    needed = {
        Path(sys.prefix),
        Path(sys.executable).resolve(),
        Path(str(torch.__file__)),
        Path(__file__),
    }
    folders = {parent for path in needed for parent in path.resolve().parents}
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in folders)
