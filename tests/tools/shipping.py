"""Small ops with kernels that note who calls them, exported and loaded as their users would."""

import itertools
from pathlib import Path
from types import ModuleType
from typing import Any

from tools.candidate import Candidate
from tools.export import Shipment, export
from tools.importing import import_file
from tools.signature import Signature, Slot
from tools.verdict import Comparison, Correct, Timing

_serial = itertools.count()

REFERENCE = '''"""Scale and shift."""
import torch

class Model(torch.nn.Module):
    def __init__(self, features, by=3.0):
        super().__init__()
        self.shift = torch.nn.Parameter(torch.randn(features))
        self.by = by

    def forward(self, x):
        return x * self.by + self.shift

def get_inputs():
    return [torch.randn(9, 5)]

def get_init_inputs():
    return [5]
'''
KERNEL = '''"""One pass over rows."""

from __future__ import annotations

import torch

from tools.backends.cpp.loader import cpp_kernel as compiled

FLAGS = ("-O2",)
SOURCE = r"""
#include <cstdint>
extern "C" void run(const float* x, const float* s, float* y, int64_t n, int64_t f, double by) {
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < f; j++) y[i * f + j] = x[i * f + j] * (float)by + s[j];
}
"""
run = compiled(SOURCE, "run", "pppiid", FLAGS)
CALLS = []


class ModelNew(torch.nn.Module):
    def __init__(self, features, by=3.0):
        super().__init__()
        self.shift = torch.nn.Parameter(torch.zeros(features))
        self.by = by

    def forward(self, x):
        CALLS.append(tuple(x.shape))
        y = torch.empty_like(x)
        run(x, self.shift, y, x.shape[0], x.shape[1], 3.0)
        return y
'''
EXACT = Signature(
    device="cpu",
    inputs=(Slot(dtype="float32", sizes=(9, 5)),),
    outputs=(Slot(dtype="float32", sizes=(9, 5)),),
    aligned=False,
)
WIDER = Signature(
    device="cpu",
    inputs=(Slot(dtype="float32", sizes=("n", 5)),),
    sizes={"n": (1, 10)},
    aligned=False,
)
TIMING = Timing(
    candidate_ms=0.5,
    comparisons=(
        Comparison(
            baseline="eager", baseline_ms=1.0, candidate_ms=0.5, speedup=2.0, low=1.9, high=2.1,
            blocks=20,
        ),
    ),
    noise=0.01, page_faults=0, checked_outputs=4, confirmed=True,
)  # fmt: skip

# Statistics of the batch and running ones: forward changes what the module keeps.
NORM_REFERENCE = """
import torch

class Model(torch.nn.Module):
    def __init__(self, features):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(features)

    def forward(self, x):
        return torch.relu(self.norm(x)), x.argmax(dim=1)

def get_inputs():
    return [torch.randn(8, 4)]

def get_init_inputs():
    return [4]
"""
NORM_KERNEL = """
import torch

CALLS = []

class ModelNew(torch.nn.Module):
    def __init__(self, features):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(features)

    def forward(self, x):
        CALLS.append(tuple(x.shape))
        norm = self.norm
        mean, var = x.mean(0), x.var(0, correction=0)
        norm.running_mean.mul_(0.9).add_(mean, alpha=0.1)
        norm.running_var.mul_(0.9).add_(x.var(0), alpha=0.1)
        norm.num_batches_tracked.add_(1)
        made = (x - mean) * torch.rsqrt(var + norm.eps) * norm.weight + norm.bias
        return made.clamp(min=0), x.argmax(dim=1)
"""
NORM = Signature(
    device="cpu",
    inputs=(Slot(dtype="float32", sizes=(8, 4)),),
    outputs=(Slot(dtype="float32", sizes=(8, 4)), Slot(dtype="int64", sizes=(8,))),
    layout="any",
    aligned=False,
)
UPDATES = ("norm.running_mean", "norm.running_var", "norm.num_batches_tracked")


def shipment(**changes: Any) -> Shipment:
    """The scale-and-shift kernel, or what the changes make of it."""
    usual: dict[str, Any] = {
        "candidate": Candidate(source=KERNEL, backend="cpp", labels=("assumes: a test",)),
        "reference": REFERENCE,
        "verdict": Correct(timing=TIMING),
        "subject": "scale and shift",
        "device": "a small machine",
        "signatures": (WIDER, EXACT),
        "returns": "tensor",
        "updates": (),
    }
    return Shipment(**{**usual, **changes})


def norm_shipment(**changes: Any) -> Shipment:
    """The batch-norm kernel."""
    return shipment(
        candidate=Candidate(source=NORM_KERNEL, backend="torch"), reference=NORM_REFERENCE,
        subject="norm", signatures=(NORM,), returns="tuple", updates=UPDATES, **changes,
    )  # fmt: skip


def load(path: Path) -> ModuleType:
    """The module in a file, under a name of its own."""
    return import_file(path, f"shipped_{next(_serial)}")


def shipped(folder: Path, what: Shipment | None = None) -> ModuleType:
    """The exported kernel, imported."""
    return load(export(what or shipment(), folder / "best"))
