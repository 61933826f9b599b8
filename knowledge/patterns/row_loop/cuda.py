"""The tunables of row loops printed as CUDA C++, and which of their settings are worth trying."""

import re
from typing import Literal, cast

from knowledge.loops.cuda_shape import CudaWish
from knowledge.loops.plan import Options
from knowledge.pattern import Parameter
from knowledge.program import Kernel

DEFAULTS: dict[str, Parameter] = {"accumulate": "float", "threads": 0, "keep": "registers"}
THREADS = (0, 32, 64, 128, 256, 512, 1024)
# An order of preference, not a measurement: what the sizes suggest comes first.
VARIANT_PENALTY = 0.98


def settings(parameters: dict[str, Parameter]) -> tuple[Options, CudaWish]:
    """The tunables of a step.

    Raises:
        ValueError: one is unknown, or has a value that it can't have.
    """
    given = {**DEFAULTS, **parameters}
    known = (
        set(given) <= set(DEFAULTS)
        and given["accumulate"] in ("float", "double")
        and given["threads"] in THREADS
        and given["keep"] in ("registers", "nothing")
    )
    if not known:
        raise ValueError(f"row_loop: unknown tunables {parameters}")
    options = Options(accumulate=cast(Literal["float", "double"], given["accumulate"]))
    keep = cast(Literal["registers", "nothing"], given["keep"])
    return options, CudaWish(int(given["threads"]), keep)


def variants(kernels: list[Kernel]) -> list[tuple[dict[str, Parameter], str, float, str]]:
    """Tunables worth trying for these kernels, with their names, their expected factor, and why."""
    found = [(DEFAULTS, "threads by the sizes", 1.0, "")]
    text = "\n".join(kernel.source for kernel in kernels)
    changes: list[tuple[str, Parameter, str, str]] = []
    blocks = set(re.findall(r"\), \((\d+), (\d+)\),", text))
    along = {y if "over_column" in text else x for x, y in blocks}
    why = "Fewer threads a row have more loads under way in each; more have fewer registers each."
    for threads in (128, 256, 512):
        if along != {str(threads)}:
            changes.append(("threads", threads, f"{threads} threads a row", why))
    if "float kept_" in text:
        why = "A row read again from the caches leaves registers for more threads."
        changes.append(("keep", "nothing", "rows read again", why))
    for name, value, words, why in changes:
        found.append(({**DEFAULTS, name: value}, words, VARIANT_PENALTY, why))
    return found
