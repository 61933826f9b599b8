"""`python -m benchmarks.elementary`: what a function of one number costs in a loop, on one core.

Each is evaluated over 8192 numbers that stay in cache, by the text that kernels bring along and by
the library's function, in float32 and in bfloat16; the fastest of many rounds. Copies are what the
loads, stores and conversions take without it.
"""

from typing import Annotated, NamedTuple

import torch
import typer
from rich.console import Console
from rich.table import Table

from knowledge.emit import LOOP_FLAGS
from knowledge.loops.mathematics import helpers
from knowledge.loops.scalars import SCALARS
from tools.backends.cpp.loader import cpp_kernel
from tools.profile.roofline import best_seconds

COUNT, CALLS = 8192, 50
HEADERS = "#include <cmath>\n#include <cstdint>\n#include <cstring>\n"
FORMULAS = {
    "copy": "x * 2.0f",
    **{name: SCALARS[name].cpp.format("x") for name in ("exp", "sigmoid", "tanh", "erf", "sin")},
    **{name: SCALARS[name].cpp.format("std::fabs(x)") for name in ("log", "log1p", "sqrt")},
    "power 2.2": SCALARS["power"].cpp.format("std::fabs(x)", "2.2f"),
    "fmod by 3": SCALARS["fmod_by"].cpp.format("x", "3.0f"),
    "SiLU": "x * vector_sigmoid(x)",
    "GELU": "0.5f * x * (1.0f + vector_erf(0.70710678f * x))",
    "softplus": "nan_max(x, 0.0f) + vector_log1p_unit(vector_exp(-std::fabs(x)))",
}
LOOP = """
extern "C" void run(const {storage}* from, {storage}* to, int64_t count, int64_t calls) {{
    for (int64_t call = 0; call < calls; ++call) {{
        #pragma omp simd
        for (int64_t i = 0; i < count; ++i) {{
            const float x = {loaded};
            to[i] = {stored};
        }}
        asm volatile("" ::: "memory");
    }}
}}
"""


class Kind(NamedTuple):
    """How a loop holds its numbers."""

    dtype: torch.dtype
    storage: str
    loaded: str
    stored: str


KINDS = (
    Kind(torch.float32, "float", "from[i]", "{}"),
    Kind(torch.bfloat16, "bfloat16", "float_of(from[i])", "bfloat16_of({})"),
)


def nanoseconds(formula: str, kind: Kind, inline: bool) -> float:
    """What one number takes."""
    body = LOOP.format(storage=kind.storage, loaded=kind.loaded, stored=kind.stored.format(formula))
    run = cpp_kernel(HEADERS + helpers(body, inline) + body, "run", "ppii", flags=LOOP_FLAGS)
    given = (2 * torch.randn(COUNT)).to(kind.dtype)
    made = torch.empty_like(given)
    seconds = best_seconds(lambda: run(given, made, COUNT, CALLS))
    return seconds / (COUNT * CALLS) * 1e9


def main(
    only: Annotated[str, typer.Option("--only", help="one function; all by default")] = "",
) -> None:
    """Time the functions that loops are made of."""
    table = Table(title="ns a number, on one core")
    table.add_column("function")
    for kind in KINDS:
        name = str(kind.dtype).removeprefix("torch.")
        table.add_column(name, justify="right")
        table.add_column(f"{name}, the library's", justify="right")
    for name, formula in FORMULAS.items():
        if only in ("", name):
            taken = [nanoseconds(formula, kind, own) for kind in KINDS for own in (True, False)]
            table.add_row(name, *(f"{each:.3f}" for each in taken))
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
