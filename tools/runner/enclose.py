"""Run a command with all but named folders read-only. Executed by path, in fresh namespaces.

`jail.py` starts it as `python -I -S enclose.py [--mounts] [--memory BYTES] [--seconds N] FOLDER...
-- COMMAND...`. It imports the standard library alone, because it runs for every compiler call and
must start in milliseconds.
"""

import ctypes
import os
import resource
import sys

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 4096, 16384, 1 << 18
SYS_MOUNT_SETATTR = 442
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
MOUNT_ATTR_RDONLY = 1
SHARED_MEMORY = b"size=1g,mode=1777"
OUT_OF_MEMORY_SCORE = "500"

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
    if done != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mount {target}: {os.strerror(number)}")


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
    if done != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mount_setattr {path}: {os.strerror(number)}")


def restrict_mounts(writable: list[str]) -> None:
    """Everything read-only but these folders; a process table and shared memory of its own.

    Raises:
        OSError: the kernel refused.
    """
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    for folder in writable:
        mount(folder, folder, None, MS_BIND)
    set_read_only("/", read_only=True, recursive=True)
    for folder in writable:
        set_read_only(folder, read_only=False, recursive=False)
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV)
    mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, SHARED_MEMORY)


def prefer_as_victim() -> None:
    """Where memory runs out, the kernel ends this process and not the user's own."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
            file.write(OUT_OF_MEMORY_SCORE)
    except OSError:
        pass  # Raising the score is always allowed; without /proc there is nothing to raise.


def main(arguments: list[str]) -> None:
    """Restrict this process, then become the command."""
    split = arguments.index("--")
    options, command = arguments[:split], arguments[split + 1 :]
    mounts = "--mounts" in options
    for name, limit in (("--memory", resource.RLIMIT_AS), ("--seconds", resource.RLIMIT_CPU)):
        if name in options:
            value = int(options[options.index(name) + 1])
            resource.setrlimit(limit, (value, value))
            del options[options.index(name) : options.index(name) + 2]
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    prefer_as_victim()
    if mounts:
        options.remove("--mounts")
        here = os.getcwd()  # noqa: PTH109
        restrict_mounts(options)
        # The working folder was found before the mounts changed, and still lies under the old,
        # read-only one.
        os.chdir(here)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
