"""The tunables of row loops printed as Triton, and which of their settings are worth trying."""

import re
from typing import Literal, cast

from knowledge.loops.plan import Options
from knowledge.loops.triton_tile import Wish
from knowledge.pattern import Parameter
from knowledge.program import Kernel

DEFAULTS: dict[str, Parameter] = {
    "exp": "libm", "accumulate": "float", "block": 0, "rows": 0, "warps": 0
}  # fmt: skip
BLOCKS = (0, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
ROWS = (0, 1, 2, 4, 8, 16, 32, 64, 128)
WARPS = (0, 1, 2, 4, 8, 16, 32)
# An order of preference, not a measurement: what the sizes suggest comes first.
VARIANT_PENALTY = 0.98


def settings(parameters: dict[str, Parameter]) -> tuple[Options, Wish]:
    """The tunables of a step.

    Raises:
        ValueError: one is unknown, or has a value that it can't have.
    """
    given = {**DEFAULTS, **parameters}
    known = (
        set(given) <= set(DEFAULTS)
        and given["exp"] in ("inline", "libm")
        and given["accumulate"] in ("float", "double")
        and given["block"] in BLOCKS
        and given["rows"] in ROWS
        and given["warps"] in WARPS
    )
    if not known:
        raise ValueError(f"row_loop: unknown tunables {parameters}")
    options = Options(
        exp=cast(Literal["inline", "libm"], given["exp"]),
        accumulate=cast(Literal["float", "double"], given["accumulate"]),
    )
    return options, Wish(int(given["block"]), int(given["rows"]), int(given["warps"]))


def variants(kernels: list[Kernel]) -> list[tuple[dict[str, Parameter], str, float, str]]:
    """Tunables worth trying for these kernels, with their names, their expected factor, and why."""
    found = [(DEFAULTS, "tiles by the sizes", 1.0, "")]
    text = "\n".join(kernel.source for kernel in kernels)
    changes: list[tuple[str, Parameter, str, str]] = []
    if "BLOCK=1024" in text or "start in range" in text:
        changes.append(("block", 2048, "blocks of 2048", "Fewer, larger blocks of a run."))
    if "ROWS=" in text or "LANES=" in text:
        changes.append(("rows", 32, "32 rows a program", "Another number of rows side by side."))
    why = "Fewer threads have more loads under way in each; more have fewer registers each."
    for warps in (2, 8, 16):
        if set(re.findall(r"num_warps=(\d+)", text)) not in ({str(warps)}, set()):
            changes.append(("warps", warps, f"{warps} warps", why))
    if "libdevice.exp(" in text:
        why = "The hardware's exponential: fewer operations, larger errors far from 0."
        changes.append(("exp", "inline", "the hardware's exp", why))
    for name, value, words, why in changes:
        found.append(({**DEFAULTS, name: value}, words, VARIANT_PENALTY, why))
    return found
