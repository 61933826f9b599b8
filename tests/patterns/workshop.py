"""What tests of patterns share: from a module's text to a candidate, and on to float64."""

import copy
import functools
import itertools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from knowledge.emit import emit
from knowledge.opgraph import OpGraph
from knowledge.pattern import Refusal, Situation, Step, load_pattern
from knowledge.program import Program
from tools.importing import import_file
from tools.trace import trace

HEADER = """import math

import torch
import torch.nn as nn
import torch.nn.functional as F


class Model(nn.Module):
"""
SITUATION = Situation(
    best_ms=10.0, bandwidth_gbps=20.0, peak_gflops=150.0, fault_us=0.25, cores=2, huge_pages=False
)
FUSED = (Step(pattern="row_loop"),)
_folder = Path(tempfile.mkdtemp(prefix="kernelwright-test-"))
_numbers = itertools.count()


def load(source: str) -> ModuleType:
    """A source text as an imported module, registered the way the tracer needs it."""
    name = f"kernelwright_test_{next(_numbers)}"
    path = _folder / f"{name}.py"
    path.write_text(source, encoding="utf-8")
    return import_file(path, name)


def reference(body: str, inputs: str) -> str:
    """A reference's source: the class body of Model, and what get_inputs returns, as text."""
    return (
        f"{HEADER}{body}\n\n\ndef get_inputs():\n    return [{inputs}]\n\n\n"
        "def get_init_inputs():\n    return []\n"
    )


def function(arguments: str, expression: str, inputs: str) -> str:
    """A reference whose forward is one expression."""
    return reference(f"    def forward(self, {arguments}):\n        return {expression}", inputs)


@dataclass
class Built:
    """A reference and a candidate made from it, with the same weights."""

    model: torch.nn.Module
    inputs: list[Any]
    graph: OpGraph
    program: Program
    source: str

    def candidate(self) -> torch.nn.Module:
        """A fresh instance of the emitted module."""
        torch.manual_seed(0)
        made: torch.nn.Module = load(self.source).ModelNew()
        made.load_state_dict(self.model.state_dict())
        return made


_built: dict[str, Built] = {}


def build(source: str, steps: tuple[Step, ...] | None = None) -> Built:
    """Trace a reference and emit it with these steps; None means the best that are proposed."""
    key = f"{source}{steps}"
    if key not in _built:
        _built[key] = _build(source, steps)
    return _built[key]


@functools.cache
def _traced(source: str) -> tuple[torch.nn.Module, list[Any], OpGraph]:
    """A reference's module, inputs and graph: tracing takes longer than all that follows."""
    module = load(source)
    torch.manual_seed(0)
    model = module.Model()
    inputs = module.get_inputs()
    others = (tuple(module.get_inputs()) for _ in range(2))
    return model, inputs, trace(model, tuple(inputs), others)


def _build(source: str, steps: tuple[Step, ...] | None) -> Built:
    model, inputs, graph = _traced(source)
    # A test may change what it is given.
    model, inputs = copy.deepcopy(model), copy.deepcopy(inputs)
    program = Program.of(graph, source)
    for step in steps if steps is not None else ():
        program = load_pattern(step.pattern).apply(program, step)
    for name in () if steps is not None else ("algebra", "row_loop", "output_pages"):
        answer = load_pattern(name).propose(program, SITUATION)
        if not isinstance(answer, Refusal):
            program = load_pattern(name).apply(program, answer[0].step)
    return Built(model, inputs, graph, program, emit(program))


def _run(module: torch.nn.Module, inputs: list[Any]) -> list[torch.Tensor]:
    torch.manual_seed(1)
    with torch.no_grad():
        made = module(*inputs)
    return list(made) if isinstance(made, tuple | list) else [made]


def _double(value: Any) -> Any:
    floating = isinstance(value, torch.Tensor) and value.is_floating_point()
    return value.double() if floating else value


def complaints(built: Built, inputs: list[Any] | None = None) -> list[str]:
    """What is wrong with a candidate: shapes, types, non-finite values, errors, and buffers.

    An error may be 4 times eager's own worst, or 32 units in the last place of the largest value.
    """
    given = built.inputs if inputs is None else inputs
    oracle, eager = copy.deepcopy(built.model).double(), copy.deepcopy(built.model)
    candidate = built.candidate()
    before = [t.clone() if isinstance(t, torch.Tensor) else t for t in given]
    found: list[str] = []
    ours = _run(candidate, given)
    theirs = _run(eager, given)
    exact = _run(oracle, [_double(value) for value in given])
    if len(ours) != len(theirs):
        return [f"{len(ours)} outputs, not {len(theirs)}"]
    for position, (y, a, c) in enumerate(zip(ours, theirs, exact, strict=True)):
        found += [f"output {position}: {text}" for text in _differences(y, a, c)]
    for value, kept in zip(given, before, strict=True):
        if isinstance(value, torch.Tensor) and not torch.equal(
            value.nan_to_num(), kept.nan_to_num()
        ):
            found.append("an input was changed")
    for (name, mine), other in zip(candidate.named_buffers(), eager.buffers(), strict=True):
        if not torch.allclose(mine.double(), other.double(), rtol=1e-5, atol=1e-6):
            found.append(f"buffer {name} differs")
    return found


def _differences(y: torch.Tensor, eager: torch.Tensor, exact: torch.Tensor) -> list[str]:
    if y.shape != eager.shape or y.dtype != eager.dtype:
        return [f"{y.dtype}{tuple(y.shape)}, not {eager.dtype}{tuple(eager.shape)}"]
    if not eager.is_floating_point():
        return [] if torch.equal(y, eager) else ["other whole numbers"]
    if not torch.equal(y.isnan(), exact.isnan()):
        return ["NaN in other places"]
    finite = exact.isfinite() & y.isfinite() & eager.isfinite()
    if not bool(finite.any()):
        return []
    scale = exact[finite].abs().max().item()
    allowed = max(
        4 * (eager.double() - exact)[finite].abs().max().item(),
        32 * torch.finfo(eager.dtype).eps * scale,
    )
    worst = (y.double() - exact)[finite].abs().max().item()
    return [f"off by {worst:.3g} where {allowed:.3g} is allowed"] if worst > allowed else []
