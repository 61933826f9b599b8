"""In the child: candidates run under Triton's interpreter on CPU tensors, against float64.

The environment says TRITON_INTERPRET=1 before Triton is imported. The interpreter knows nothing of
libdevice, so its functions are lent it from torch. Logic is what this checks: numpy's float32 is
not a GPU's.
"""

import copy
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import torch
import triton.language as tl
from torch.utils import _pytree as pytree
from triton.language.extra import libdevice
from triton.runtime.interpreter import TensorHandle

from tools.backends.triton.child import (
    CANDIDATE,
    constructor_arguments,
    doubled,
    load,
    place_of,
    told,
)

# Libdevice's names that differ from torch's.
RENAMED = {
    "rint": "round", "nearbyint": "round", "fast_expf": "exp", "fast_tanhf": "tanh",
    "fast_logf": "log", "fast_sinf": "sin", "fast_cosf": "cos", "fabs": "abs",
}  # fmt: skip
# An error may be 4 times the reference's own worst, or 32 units in the last place of the largest.
YARDSTICK, EPSILONS = 4.0, 32.0
MOST_ELEMENTS = 1 << 18
BATCH = 2
# What forward returns: tensors, and None beside them.
Results = list[torch.Tensor | None]


def _lend(function: Callable[..., torch.Tensor]) -> Callable[..., Any]:
    def call(*args: Any, **_: Any) -> Any:
        first = next(arg for arg in args if isinstance(arg, tl.tensor))
        given = [
            torch.as_tensor(arg.handle.data if isinstance(arg, tl.tensor) else arg) for arg in args
        ]
        made = function(*torch.broadcast_tensors(*given)).numpy()  # type: ignore[no-untyped-call]
        made = np.asarray(made, dtype=first.handle.data.dtype)
        # The interpreter keeps a scalar in an array of one element.
        blocks = any(isinstance(arg, tl.tensor) and arg.type.is_block() for arg in args)
        kind = tl.block_type(first.dtype, list(made.shape)) if blocks else first.dtype
        return tl.tensor(TensorHandle(made, first.dtype), kind)

    return call


def lend_libdevice() -> None:
    """Give every libdevice function that torch has too a body that the interpreter can run."""
    for name in dir(libdevice):
        known = RENAMED.get(name, name)
        function = getattr(torch, known, getattr(torch.special, known, None))
        if callable(getattr(libdevice, name)) and callable(function) and name[0] != "_":
            setattr(libdevice, name, _lend(function))


def _smaller(inputs: list[Any]) -> list[Any]:
    """The inputs with a smaller batch, where they are too much for the interpreter."""
    tensors = [leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, torch.Tensor)]
    sizes = {tensor.shape[0] for tensor in tensors if tensor.dim()}
    if sum(tensor.numel() for tensor in tensors) <= MOST_ELEMENTS or len(sizes) != 1:
        return inputs
    return list(
        pytree.tree_map(
            lambda leaf: leaf[:BATCH] if isinstance(leaf, torch.Tensor) and leaf.dim() else leaf,
            inputs,
        )
    )


def _run(module: torch.nn.Module, inputs: list[Any]) -> Results:
    """The tensors that forward returns, and None where it returns that."""
    torch.manual_seed(1)
    with torch.no_grad():
        made = module(*inputs)
    return [
        leaf for leaf in pytree.tree_leaves(made) if leaf is None or isinstance(leaf, torch.Tensor)
    ]


def _complaints(ours: Results, theirs: Results, exact: Results) -> list[str]:
    if len(ours) != len(theirs):
        return [f"{len(ours)} outputs, not {len(theirs)}"]
    found = []
    for position, (y, eager, truth) in enumerate(zip(ours, theirs, exact, strict=True)):
        found += [f"output {position}: {text}" for text in _differences(y, eager, truth)]
    return found


def _differences(
    y: torch.Tensor | None, eager: torch.Tensor | None, exact: torch.Tensor | None
) -> list[str]:
    if y is None or eager is None or exact is None:
        return [] if y is eager is None else [f"{_kind(y)}, not {_kind(eager)}"]
    if y.shape != eager.shape or y.dtype != eager.dtype:
        return [f"{_kind(y)}, not {_kind(eager)}"]
    if not eager.is_floating_point():
        return [] if torch.equal(y, eager) else ["other whole numbers"]
    if not torch.equal(y.isnan(), exact.isnan()):
        return ["NaN in other places"]
    finite = exact.isfinite() & y.isfinite() & eager.isfinite()
    infinite = eager.isinf() | y.isinf()
    if not torch.equal(y[infinite & ~exact.isnan()], eager[infinite & ~exact.isnan()]):
        return ["infinity in other places"]
    if not bool(finite.any()):
        return []
    scale = exact[finite].abs().max().item()
    error = (eager.double() - exact)[finite].abs().max().item()
    allowed = max(YARDSTICK * error, EPSILONS * torch.finfo(eager.dtype).eps * scale)
    worst = (y.double() - exact)[finite].abs().max().item()
    return [f"off by {worst:.3g} where {allowed:.3g} is allowed"] if worst > allowed else []


def _kind(result: torch.Tensor | None) -> str:
    return "None" if result is None else f"{result.dtype}{tuple(result.shape)}"


def _interpreted(one: dict[str, str]) -> dict[str, Any]:
    """One candidate's complaints, or how it failed."""
    reference = load(one["reference"], "reference")
    torch.manual_seed(0)
    model = reference.Model(*constructor_arguments(reference))
    torch.manual_seed(0)
    inputs = _smaller(list(_inputs(reference, one)))
    wide, wide_inputs = doubled(model, inputs)
    exact, theirs = _run(wide, wide_inputs), _run(copy.deepcopy(model), inputs)
    try:
        candidate = load(one["candidate"], CANDIDATE)
        # Tensors that no state_dict has are drawn as the reference's were.
        torch.manual_seed(0)
        made = candidate.ModelNew(*constructor_arguments(reference))
        made.load_state_dict(model.state_dict())
        ours = _run(made, inputs)
    except Exception as error:  # noqa: BLE001 - a candidate may raise anything
        return {"failure": {"line": place_of(error), "message": told(error)}}
    return {"complaints": _complaints(ours, theirs, exact)}


def _inputs(reference: ModuleType, one: dict[str, str]) -> Any:
    """What forward takes: the reference's own, or an expression over its module's names."""
    if not one.get("inputs"):
        return reference.get_inputs()
    return eval(one["inputs"], dict(vars(reference)))  # noqa: S307 - in the jail, by the caller


def answer(job: dict[str, Any]) -> dict[str, Any]:
    """For each of `candidates`, its complaints or its failure."""
    lend_libdevice()
    # Masked lanes hold whatever was there, and numpy says so.
    warnings.simplefilter("ignore", RuntimeWarning)
    return {"answers": [_interpreted(one) for one in job["candidates"]]}
