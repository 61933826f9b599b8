"""`python -m benchmarks.drop_in`: what the drop-in, exported or worn, adds to a kernel's call.

The kernel squares 64 numbers and has as many parameters as is asked for, so that nothing is seen
but who looks at the tensors. Times are the thread's own on the processor, in medians over rounds in
which the ways take turns.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from tools.candidate import Candidate
from tools.export import Shipment, export
from tools.importing import import_file
from tools.signature import Signature, Slot
from tools.verdict import Correct
from tools.wear import wear

ROUNDS, CALLS = 30, 400

REFERENCE = """import torch


class Model(torch.nn.Module):
    def __init__(self, count):
        super().__init__()
        self.shifts = torch.nn.ParameterList(torch.randn(64) for _ in range(count))

    def forward(self, x):
        for shift in self.shifts:
            x = x + shift
        return x * x


def get_inputs():
    return [torch.randn(64)]


def get_init_inputs():
    return [{count}]
"""
KERNEL = """import torch

from tools.backends.cpp.loader import cpp_kernel

SOURCE = r'''
#include <cstdint>
extern "C" void square(const float* x, const float* s, float* y, int64_t n) {{
    for (int64_t i = 0; i < n; i++) y[i] = (x[i] + s[i]) * (x[i] + s[i]);
}}
'''
square = cpp_kernel(SOURCE, "square", "pppi")


class ModelNew(torch.nn.Module):
    def __init__(self, count):
        super().__init__()
        self.shifts = torch.nn.ParameterList(torch.zeros(64) for _ in range(count))

    def forward(self, x):
        y = torch.empty_like(x)
        square(x, self.shifts[0], y, 64)
        return y
"""


def exported(count: int, folder: Path) -> ModuleType:
    """The drop-in of a module with so many parameters."""
    slot = Slot(dtype="float32", sizes=(64,))
    shipment = Shipment(
        candidate=Candidate(source=KERNEL.format(), backend="cpp"),
        reference=REFERENCE.replace("{count}", str(count)),
        verdict=Correct(),
        subject=f"square {count}",
        signatures=(Signature(device="cpu", inputs=(slot,), outputs=(slot,)),),
        returns="tensor",
        updates=(),
    )
    path = export(shipment, folder / str(count))
    return import_file(path, f"square_{count}")


def ways_of(kernel: ModuleType, count: int) -> dict[str, Callable[[], Any]]:
    """The ways of calling one kernel."""
    x = torch.randn(64)
    alone: Any = kernel.KernelModel(count)
    new: Any = kernel.ModelNew(count)
    with torch.no_grad():
        assert new.takes_kernel(x)
    worn: Any = wear(kernel.REFERENCE.Model(count), kernel.KernelModel(count), (x,))
    compiled: Any = torch.compile(new, fullgraph=True)
    operator: Any = getattr(torch.ops.kernelwright, kernel.OPERATOR["name"]).default
    state = [tensor.detach() for _, tensor in sorted(new.state_dict().items())]

    def without_gradients(call: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            with torch.no_grad():
                return call()

        return run

    return {
        "kernel alone": without_gradients(lambda: alone(x)),
        "drop-in": without_gradients(lambda: new(x)),
        "live module": without_gradients(lambda: worn(x)),
        "operator": without_gradients(lambda: operator([x], state)),
        "drop-in, compiled": without_gradients(lambda: compiled(x)),
        "drop-in, with gradients": lambda: new(x),
    }


def measure(ways: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Microseconds for one call of each."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, call in ways.items():
            call()
            began = time.thread_time()
            for _ in range(CALLS):
                call()
            found[name].append((time.thread_time() - began) / CALLS * 1e6)
    return {name: statistics.median(times) for name, times in found.items()}


def main(
    counts: Annotated[list[int] | None, typer.Option("--parameters", help="how many")] = None,
) -> None:
    """Print a table of microseconds a call."""
    torch.set_num_threads(1)
    table = Table("way", *(f"{count} parameters, µs" for count in counts or (1, 16)))
    rows: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in counts or (1, 16):
            for name, micros in measure(ways_of(exported(count, Path(folder)), count)).items():
                rows.setdefault(name, []).append(micros)
    for name, columns in rows.items():
        table.add_row(name, *(f"{micros:.1f}" for micros in columns))
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
