"""What one candidate leaves behind, no later one finds; and none finds another's files (28, 48)."""

import pytest

from tools.verdict import BuildFailed, Correct, Crashed, Verdict

KERNEL = """
import ctypes, os
from pathlib import Path
import torch

libc = ctypes.CDLL(None, use_errno=True)
KEY, SIZE = 0x6B77, 4096
{body}

class ModelNew(torch.nn.Module):
    def forward(self, x):
        if not found():
            leave()
            raise RuntimeError("nothing was found")
        return torch.softmax(x, dim=-1)
"""
CHANNELS = {
    "files": """
def places():
    named = [os.environ[n] for n in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "KERNELWRIGHT_CPP_CACHE")]
    for folder in [*named, ".", "..", "../..", "/tmp", "/var/tmp", "/dev/shm", "/run", "/dev"]:
        yield Path(folder, "left-behind")
def found():
    return any(place.exists() for place in places())
def leave():
    for place in places():
        try:
            place.parent.mkdir(exist_ok=True)
            place.write_text("left")
        except OSError:
            pass
""",
    "shared memory of System V": """
def found():
    return libc.shmget(KEY, SIZE, 0) >= 0
def leave():
    libc.shmget(KEY, SIZE, 0o1666)
""",
    "message queues": """
def found():
    return libc.msgget(KEY, 0) >= 0
def leave():
    libc.msgget(KEY, 0o1666)
""",
    "settings of torch and of the process": """
def found():
    changed = torch.get_default_dtype() is torch.float64 or torch.get_num_threads() == 64
    return changed or "LEFT_BEHIND" in os.environ or os.umask(0o22) == 0o77
def leave():
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(64)
    torch.use_deterministic_algorithms(True)
    os.environ["LEFT_BEHIND"] = "1"
    os.umask(0o77)
""",
    "a process that stays": """
def found():
    alive = [pid for pid in os.listdir("/proc") if pid.isdigit() and int(pid) != os.getpid()]
    return bool(alive)
def leave():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            while True:
                libc.sleep(60)
        os._exit(0)
""",
}
THIEF = """
from pathlib import Path
import torch

found = [p for p in Path("..").glob("*/kernel.py") if "class Model(" in p.read_text()]
if not found:
    raise RuntimeError("no reference was found")


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return torch.softmax(x, dim=-1)
"""
HONEST = """
import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return torch.softmax(x, dim=-1)
"""


def found_nothing(verdict: Verdict) -> bool:
    return isinstance(verdict, Crashed) and "nothing was found" in verdict.log


@pytest.mark.parametrize("channel", CHANNELS)
def test_what_a_candidate_leaves_behind_no_later_one_finds(channel, judge_fully):
    source = KERNEL.format(body=CHANNELS[channel])
    assert found_nothing(judge_fully("softmax", source, False))
    assert found_nothing(judge_fully("softmax", source, False))


def test_a_candidate_does_not_find_the_reference_beside_it(judge_fully):
    assert isinstance(judge_fully("softmax", HONEST, True), Correct)
    verdict = judge_fully("softmax", THIEF, False)
    assert isinstance(verdict, BuildFailed), verdict
    assert "no reference was found" in verdict.log
