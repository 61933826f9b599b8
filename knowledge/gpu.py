"""The GPU of this machine, as its driver describes it: name, limits, clocks, bandwidth.

`python -m knowledge.gpu` prints it as one JSON object. It is a program of its own because opening
the driver leaves a context in the process that asks, which its forks could not use.
"""

import json
import subprocess
import sys
from typing import Any

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
            [sys.executable, "-m", "knowledge.gpu"], capture_output=True, text=True,
            timeout=SECONDS, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return DriverFacts.model_validate_json(done.stdout) if done.returncode == 0 else None
    except (OSError, subprocess.TimeoutExpired, ValidationError):
        return None


def _describe() -> dict[str, Any] | None:
    """The facts, asked of the driver in this process; None where there is nothing to ask."""
    try:
        from cuda.bindings import driver  # noqa: PLC0415 - not on every machine
    except ImportError:
        return None
    # Without a driver's library the bindings raise, and not always the same.
    try:
        if driver.cuInit(0)[0] != driver.CUresult.CUDA_SUCCESS:
            return None
        device = _value(driver.cuDeviceGet(0))
    except (RuntimeError, OSError):
        return None
    attributes = driver.CUdevice_attribute

    def attribute(name: str) -> int:
        which = getattr(attributes, f"CU_DEVICE_ATTRIBUTE_{name}")
        return int(_value(driver.cuDeviceGetAttribute(which, device)))

    raw = _value(driver.cuDeviceGetName(256, device))
    major, minor = attribute("COMPUTE_CAPABILITY_MAJOR"), attribute("COMPUTE_CAPABILITY_MINOR")
    return {
        "name": raw.split(b"\0")[0].decode(),
        "capability": 10 * major + minor,
        "multiprocessors": attribute("MULTIPROCESSOR_COUNT"),
        "memory_bytes": int(_value(driver.cuDeviceTotalMem(device))),
        "l2_bytes": attribute("L2_CACHE_SIZE"),
        "shared_per_sm": attribute("MAX_SHARED_MEMORY_PER_MULTIPROCESSOR"),
        "shared_per_block": attribute("MAX_SHARED_MEMORY_PER_BLOCK_OPTIN"),
        "registers_per_sm": 4 * attribute("MAX_REGISTERS_PER_MULTIPROCESSOR"),
        "threads_per_sm": attribute("MAX_THREADS_PER_MULTIPROCESSOR"),
        "blocks_per_sm": attribute("MAX_BLOCKS_PER_MULTIPROCESSOR"),
        "clock_khz": attribute("CLOCK_RATE"),
        "memory_clock_khz": attribute("MEMORY_CLOCK_RATE"),
        "memory_bus_bits": attribute("GLOBAL_MEMORY_BUS_WIDTH"),
    }


def _value(answer: tuple[Any, ...]) -> Any:
    """What a call of the driver returns beside its status.

    Raises:
        RuntimeError: the status is an error.
    """
    status, *values = answer
    if int(status) != 0:
        raise RuntimeError(f"the driver answered {status}")
    return values[0]


def main() -> None:
    """Print the facts; exit code 1 where there are none."""
    found = _describe()
    if found is None:
        raise SystemExit(1)
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
