"""What untrusted programs are started in: the strongest jail that this machine allows, probed once.

bubblewrap where it is installed and works, else `unshare`, else resource limits alone; `Jail.name`
says which, and every verdict repeats it. KERNELWRIGHT_JAIL names another one to use. Imported by
the judge; nothing untrusted runs in here.
"""

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from knowledge.errors import BadInput

CHOICE = "KERNELWRIGHT_JAIL"
PROJECT = Path(__file__).resolve().parents[2]
ENCLOSE = Path(__file__).with_name("enclose.py")
PROBE_SECONDS = 10.0

# What a kernel may need to find its compiler, its device and its threads. No key, token or proxy is
# in this list, and whatever is not in it does not enter.
PASSED = (
    "PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "CXX", "CC", "CUDA_HOME",
    "CUDA_PATH", "TRITON_PTXAS_PATH", "TRITON_LIBCUDA_PATH", "TRITON_LIBDEVICE_PATH",
    "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NVIDIA_VISIBLE_DEVICES", "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OMP_PROC_BIND", "OMP_PLACES", "KMP_AFFINITY",
    "GOMP_CPU_AFFINITY", "TRITON_INTERPRET",
)  # fmt: skip
# Those of them that hold folders or files, one or several.
PLACES = (
    "PATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "CXX", "CC", "CUDA_HOME", "CUDA_PATH",
    "TRITON_PTXAS_PATH", "TRITON_LIBCUDA_PATH", "TRITON_LIBDEVICE_PATH",
)  # fmt: skip

# Homes hold keys; the others hold sockets of services, and what other programs left lying.
PRIVATE_PLACES = ("/home", "/root", "/tmp", "/var/tmp", "/run")
# What GPU drivers and some distributions keep there, and need.
SHARED_PLACES = (
    "/run/nvidia-persistenced", "/run/nvidia-fabricmanager", "/run/opengl-driver",
    "/run/current-system", "/run/booted-system", "/tmp/nvidia-mps",
)  # fmt: skip


@dataclass(frozen=True)
class Jail:
    """A way of starting programs: the name that verdicts show, and the command's prefix.

    `mounts`: the prefix gives a mount namespace to restrict. `namespaces`: each runner asks for
    namespaces of its own.
    """

    name: str
    prefix: tuple[str, ...]
    mounts: bool
    namespaces: bool = True

    def command(self, command: list[str], writable: list[Path], limits: list[str]) -> list[str]:
        """The command line that runs `command` in this jail.

        Args:
            command: an argument list.
            writable: the only folders that it may write to.
            limits: options of `enclose.py`.
        """
        folders = [str(folder) for folder in writable]
        options = [*(["--mounts", *folders] if self.mounts else ["--reap"]), *limits]
        enclose = [sys.executable, "-I", "-S", str(ENCLOSE), *options, "--", *command]
        return [*self._opened(folders), *enclose]

    def compiling(self, command: list[str], folder: Path, limits: list[str]) -> list[str]:
        """As `command`, for a compiler: no privilege, and no home but what it is made of.

        Its options come from the candidate, and some of them run any program.
        """
        paths = {"--hide": private_places(), "--keep": needed_paths()}
        options = [x for name, found in paths.items() for x in (name, _joined(found))]
        return self.command(command, [folder], ["--drop", *options, *limits])

    def _opened(self, folders: list[str]) -> list[str]:
        """The prefix; bubblewrap's read-only binding of everything is opened for the folders."""
        if not self.prefix or self.prefix[0] != "bwrap":
            return list(self.prefix)
        return [*self.prefix, *(part for folder in folders for part in ("--bind", folder, folder))]


_ENTERED = (
    "--unshare-net", "--unshare-ipc", "--unshare-pid", "--die-with-parent",
    "--ro-bind", "/", "/", "--dev-bind", "/dev", "/dev", "--proc", "/proc",
)  # fmt: skip
# Root stays root in the zygote, with what it takes to give each runner a user id of its own: one
# that is mapped to root alone, as in a user namespace, is not bound by RLIMIT_NPROC.
_KEPT = ("SYS_ADMIN", "SETUID", "SETGID", "SETPCAP", "CHOWN", "FOWNER", "KILL",
         "DAC_OVERRIDE", "DAC_READ_SEARCH")  # fmt: skip
BUBBLEWRAP_AS_ROOT = Jail(
    "bubblewrap",
    ("bwrap", *_ENTERED, *(part for name in _KEPT for part in ("--cap-add", f"CAP_{name}"))),
    mounts=True,
)
# Without CAP_SETFCAP, Linux lets no process map root into a user namespace, as each runner needs.
BUBBLEWRAP_AS_USER = Jail(
    "bubblewrap",
    ("bwrap", "--unshare-user", "--uid", "0", "--gid", "0", *_ENTERED,
     "--cap-add", "CAP_SYS_ADMIN", "--cap-add", "CAP_SETFCAP"),
    mounts=True,
)  # fmt: skip
_SHARED = ("--net", "--ipc", "--pid", "--mount", "--fork", "--kill-child")
UNSHARE_AS_ROOT = Jail("unshare", ("unshare", *_SHARED), mounts=True)
UNSHARE_AS_USER = Jail("unshare", ("unshare", "--user", "--map-root-user", *_SHARED), mounts=True)
LIMITS_ONLY = Jail("rlimits", (), mounts=False, namespaces=False)


def jail_named(name: str) -> Jail | None:
    """The jail of that name for this user, where it works on this machine.

    Raises:
        KeyError: there is no such jail.
    """
    root = os.geteuid() == 0
    jails = {
        "bubblewrap": BUBBLEWRAP_AS_ROOT if root else BUBBLEWRAP_AS_USER,
        "unshare": UNSHARE_AS_ROOT if root else UNSHARE_AS_USER,
        "rlimits": LIMITS_ONLY,
    }
    jail = jails[name]
    return jail if jail is LIMITS_ONLY or _works(jail) else None


@functools.cache
def strongest_jail() -> Jail:
    """The first of bubblewrap, unshare and plain limits that works here; or the user's choice.

    Raises:
        BadInput: the user's choice is unknown, or does not work here.
    """
    if os.environ.get(CHOICE):
        return _chosen(os.environ[CHOICE])
    for name in ("bubblewrap", "unshare"):
        if (jail := jail_named(name)) is not None:
            return jail
    # Without either command, a runner may still be allowed part of what they give.
    return replace(LIMITS_ONLY, namespaces=True)


def check_choice() -> None:
    """Find out now whether the user chose a jail that can't be had.

    Raises:
        BadInput: so it is.
    """
    if os.environ.get(CHOICE):
        strongest_jail()


def _chosen(name: str) -> Jail:
    try:
        jail = jail_named(name)
    except KeyError:
        mend = "Known: bubblewrap, unshare, rlimits; unset it for the strongest of them."
        raise BadInput(CHOICE, f'"{name}" is no jail.', mend) from None
    if jail is None:
        mend = "Unset it for the strongest jail that does."
        raise BadInput(CHOICE, f'the jail "{name}" does not work on this machine.', mend)
    return jail


@functools.cache
def _works(jail: Jail) -> bool:
    if shutil.which(jail.prefix[0]) is None:
        return False
    with tempfile.TemporaryDirectory(prefix="jail-") as folder:
        command = jail.command(
            ["sh", "-c", "touch inside && ! touch /etc/outside"], [Path(folder)], []
        )
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, timeout=PROBE_SECONDS, check=False,
                env=scrubbed_environment(Path(folder)),
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired):
            return False
        return done.returncode == 0 and Path(folder, "inside").exists()


def private_places() -> list[Path]:
    """Folders that no untrusted program has any business in, but for what it needs of them."""
    return [*map(Path, PRIVATE_PLACES), Path.home()]


def _joined(paths: list[Path]) -> str:
    return os.pathsep.join(map(str, paths))


def _carried() -> list[Path]:
    """The folder of PYTHONPATH in which NumPy is, which torch needs; none where Python has it."""
    found = importlib.util.find_spec("numpy")
    folder = Path(found.origin).parents[1] if found and found.origin else None
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return [folder] if folder in [Path(entry) for entry in given if entry] and folder else []


def needed_paths() -> list[Path]:
    """What Python, torch, compilers and this project are made of, wherever they are installed."""
    paths = {
        *map(Path, SHARED_PLACES),
        PROJECT,
        Path(sys.prefix),
        Path(sys.base_prefix),
        Path(sys.executable).resolve(),
    }
    paths |= {Path(entry) for entry in sys.path if entry}
    for name in PLACES:
        paths |= {Path(entry) for entry in os.environ.get(name, "").split(os.pathsep) if entry}
    for compiler in ("g++", "clang++", "c++", "nvcc"):
        if found := shutil.which(compiler):
            paths.add(Path(found).resolve().parent.parent)
    return sorted(path for path in paths if path.is_absolute() and path.exists())


def scrubbed_environment(scratch: Path, huge_pages: bool = False) -> dict[str, str]:
    """The whole environment of anything that runs in a jail.

    Args:
        scratch: home and temporary folder.
        huge_pages: make malloc ask for huge pages; set for judge, baselines and candidates alike,
            or for none.
    """
    environment = {name: os.environ[name] for name in PASSED if name in os.environ}
    environment |= {
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
        "XDG_CACHE_HOME": str(scratch / ".cache"),
        "TORCHINDUCTOR_CACHE_DIR": str(scratch / "inductor"),
        "TRITON_CACHE_DIR": str(scratch / "triton"),
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
        "PYTHONPATH": _joined([PROJECT, *_carried()]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    environment.setdefault("PATH", os.defpath)
    if huge_pages:
        environment["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
    return environment
