"""Sees to it that the GPU of this machine has a page: one that has none is measured once.

Measuring needs torch and a context on the device, so it is done by a process of its own.
"""

import subprocess
import sys

from knowledge.device import present_gpu
from knowledge.gpu import ask_driver

COMMAND = ("-m", "tools.profile.measure_device", "cuda")
SECONDS = 300.0


def ensure_described(target: str) -> str:
    """Measure this machine's GPU where a task's target is it and it has no page.

    Returns:
        What went wrong, as a clause; empty where nothing did, or nothing was to be done.
    """
    if target.strip().lower() != "cuda" or present_gpu() is not None or ask_driver() is None:
        return ""
    try:
        done = subprocess.run(
            [sys.executable, *COMMAND], capture_output=True, text=True, timeout=SECONDS,
            check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"measuring the GPU was ended after {SECONDS:g} s"
    if done.returncode == 0:
        return ""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return f"measuring the GPU failed: {lines[-1][:200] if lines else 'it said nothing'}"
