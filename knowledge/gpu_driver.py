"""`python -m knowledge.gpu_driver`: prints what the CUDA driver says of the first GPU, as JSON.

Fails where there is no GPU, no driver or no cuda-python; `knowledge.gpu.ask_driver` reads it.
"""

import json
import sys
from typing import Any

from cuda.bindings import driver


def describe() -> dict[str, Any]:
    """The fields of `knowledge.gpu.DriverFacts`.

    Raises:
        RuntimeError: there is no driver, no GPU, or the driver refuses.
    """
    _value(driver.cuInit(0))
    device = _value(driver.cuDeviceGet(0))
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
    """Print the facts."""
    sys.stdout.write(json.dumps(describe()))


if __name__ == "__main__":
    main()
