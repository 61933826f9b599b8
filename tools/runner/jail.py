"""What untrusted programs are started in: the strongest jail that this machine allows, probed once.

bubblewrap where it is installed and works, else `unshare`, else resource limits alone; `Jail.name`
says which, and every verdict repeats it. Imported by the judge; nothing untrusted runs in here.
"""

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
ENCLOSE = Path(__file__).with_name("enclose.py")
PROBE_SECONDS = 10.0

# What a kernel may need to find its compiler, its device and its threads. No key, token or proxy is
# in this list, and whatever is not in it does not enter.
PASSED = (
    "PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "CXX", "CC", "CUDA_HOME",
    "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS",
    "OMP_PROC_BIND", "OMP_PLACES", "KMP_AFFINITY",
    "GOMP_CPU_AFFINITY", "TRITON_INTERPRET",
)  # fmt: skip


@dataclass(frozen=True)
class Jail:
    """A way of starting programs: the name that verdicts show, and the command's prefix."""

    name: str
    prefix: tuple[str, ...]
    mounts: bool

    def command(self, command: list[str], writable: list[Path], limits: list[str]) -> list[str]:
        """The command line that runs `command` in this jail.

        Args:
            command: an argument list.
            writable: the only folders that it may write to.
            limits: options of `enclose.py`.
        """
        folders = [str(folder) for folder in writable]
        if self.name == "bubblewrap":
            binds = [part for folder in folders for part in ("--bind", folder, folder)]
            inner = [sys.executable, "-I", "-S", str(ENCLOSE), *limits, "--", *command]
            return [*self.prefix, *binds, *inner]
        options = [*(["--mounts", *folders] if self.mounts else []), *limits]
        return [*self.prefix, sys.executable, "-I", "-S", str(ENCLOSE), *options, "--", *command]


BUBBLEWRAP = Jail(
    "bubblewrap",
    (
        "bwrap", "--unshare-user-try", "--unshare-net", "--unshare-ipc", "--unshare-pid",
        "--die-with-parent", "--cap-add", "CAP_SYS_ADMIN", "--ro-bind", "/", "/",
        "--dev-bind", "/dev", "/dev", "--proc", "/proc",
        "--tmpfs", "/dev/shm",
    ),
    mounts=False,
)  # fmt: skip
_SHARED = ("--net", "--ipc", "--pid", "--mount", "--fork", "--kill-child")
UNSHARE_AS_ROOT = Jail("unshare", ("unshare", *_SHARED), mounts=True)
UNSHARE_AS_USER = Jail("unshare", ("unshare", "--user", "--map-root-user", *_SHARED), mounts=True)
LIMITS_ONLY = Jail("rlimits", (), mounts=False)


@functools.cache
def strongest_jail() -> Jail:
    """The first of bubblewrap, unshare and plain limits that works here."""
    unshare = UNSHARE_AS_ROOT if os.geteuid() == 0 else UNSHARE_AS_USER
    for jail in (BUBBLEWRAP, unshare):
        if shutil.which(jail.prefix[0]) and _works(jail):
            return jail
    return LIMITS_ONLY


def _works(jail: Jail) -> bool:
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
        "PYTHONPATH": str(PROJECT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    environment.setdefault("PATH", os.defpath)
    if huge_pages:
        environment["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
    return environment
