"""The GPU of this machine, as its driver describes it: name, limits, clocks, bandwidth.

The driver is asked by a program of its own, `knowledge.gpu_driver`: a process that opened it can't
be forked any more.
"""

import subprocess
import sys

from pydantic import ValidationError

from knowledge.opgraph import Frozen

SECONDS = 60.0


class DriverFacts(Frozen):
    """What the CUDA driver says of the first GPU; sizes in bytes, clocks in kHz."""

    name: str
    capability: int
    multiprocessors: int
    memory_bytes: int
    l2_bytes: int
    shared_per_sm: int
    shared_per_block: int
    registers_per_sm: int
    threads_per_sm: int
    blocks_per_sm: int
    clock_khz: int
    memory_clock_khz: int
    memory_bus_bits: int

    @property
    def bandwidth_gbps(self) -> float:
        """Two transfers a clock over the bus; 0 where the driver no longer tells the clock."""
        return 2 * self.memory_clock_khz * self.memory_bus_bits / 8 / 1e6


def ask_driver() -> DriverFacts | None:
    """The first GPU of this machine; None without one, a driver, or cuda-python."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "knowledge.gpu_driver"], capture_output=True, text=True,
            timeout=SECONDS, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return DriverFacts.model_validate_json(done.stdout) if done.returncode == 0 else None
    except (OSError, subprocess.TimeoutExpired, ValidationError):
        return None
