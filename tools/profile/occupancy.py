"""How many blocks of a kernel a multiprocessor of a device can hold at once: theory, no reading.

The rules are those of NVIDIA's occupancy calculator (`cuda_occupancy.h` of the CUDA toolkit) and of
the CUDA C++ Programming Guide, technical specifications per compute capability: registers are dealt
to warps 256 at a time and each of a multiprocessor's four parts has a quarter of them; a block's
shared memory is rounded up to 128 bytes (256 before sm_80), with 1 KiB on top that the system keeps
of each block since sm_80; nothing holds more warps or blocks than the architecture has room for.
"""

import re
from typing import Literal

from knowledge.device import Device
from knowledge.opgraph import Frozen

WARP, PARTS, REGISTER_UNIT = 32, 4, 256


class Occupancy(Frozen):
    """What is resident on one multiprocessor at most, and what sets that bound.

    `share` is of the warps that the multiprocessor has room for, from 0 (the kernel can't be
    launched) to 1.
    """

    blocks: int
    warps: int
    share: float
    limit: Literal["warps", "blocks", "registers", "shared memory"]


def capability_of(device: Device) -> int:
    """A GPU's compute capability in two or three digits: 90 for sm_90.

    Raises:
        ValueError: the device is no NVIDIA GPU.
    """
    found = re.fullmatch(r"sm_(\d+)", device.architecture)
    if found is None:
        raise ValueError(f"{device.name} ({device.architecture}) is no NVIDIA GPU")
    return int(found.group(1))


def occupancy(device: Device, threads: int, registers: int, shared_bytes: int) -> Occupancy:
    """The occupancy of blocks of `threads`, with so many registers a thread and bytes a block.

    Raises:
        ValueError: the device is no NVIDIA GPU.
    """
    modern = capability_of(device) >= 80
    most = int(device.figures["warps_per_sm"].value)
    warps = -(-threads // WARP)
    bounds: dict[Literal["warps", "blocks", "registers", "shared memory"], int] = {
        "warps": most // warps,
        "blocks": int(device.figures["blocks_per_sm"].value),
    }
    if registers:
        # The table gives registers in bytes, four each.
        a_part = device.caches["registers_per_sm"] // 4 // PARTS
        a_warp = -(-registers * WARP // REGISTER_UNIT) * REGISTER_UNIT
        bounds["registers"] = a_part // a_warp * PARTS // warps
    unit = 128 if modern else 256
    a_block = -(-(shared_bytes + (1024 if modern else 0)) // unit) * unit
    if shared_bytes > device.caches["shared_per_block"]:
        bounds["shared memory"] = 0
    elif a_block:
        bounds["shared memory"] = device.caches["shared_per_sm"] // a_block
    limit = min(bounds, key=lambda name: bounds[name])
    blocks = bounds[limit]
    return Occupancy(blocks=blocks, warps=blocks * warps, share=blocks * warps / most, limit=limit)
