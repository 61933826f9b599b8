"""Whether a graph computes what its module does: what the tracer sees may be another thing.

Runs in the judge's process, on the reference's own graph, before anything is made of it.

One measure for all: a graph has the calls one by one that the library may do as one, so results may
differ by rounding, also in half precision, and where that tips an argmax, in a few elements. No
kernel passes for that: it is judged against the module itself. A tensor that forward leaves in its
module has been written to if one bit of it is another.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from knowledge.opgraph import OpGraph
from tools.calls import NotRunnable, replay

# Of a tensor's elements, so many may be others: where rounding tips an argmax, say.
TIPPED = 1e-3
# How far off an element may be that is the same but for rounding, of the largest near it.
ROUNDING = 1e-2
# Elements that are compared at once, so that no large tensor needs several of its size beside it.
COMPARED = 1 << 20


def agrees(graph: OpGraph, module: torch.nn.Module, inputs: tuple[Any, ...]) -> bool:
    """Whether the graph computes what the module does, and leaves nothing else behind."""
    apart, theirs = copy.deepcopy(module), copy.deepcopy(inputs)
    try:
        made = replay(graph, module, inputs)
        with torch.no_grad():
            returned = apart(*theirs)
    except (NotRunnable, RuntimeError, ValueError, TypeError):
        return False
    before, after = module.state_dict(), apart.state_dict()
    if before.keys() != after.keys():
        return False
    changed = {name for name in before if not _is_untouched(before[name], after[name])}
    return changed <= set(graph.mutations) and _alike(made, returned)


def contradicts(
    graph: OpGraph, module: torch.nn.Module, inputs: tuple[Any, ...], returned: Any
) -> bool:
    """Whether the graph plainly makes something else than forward returned on these inputs.

    Not where that can't be told: it draws random numbers, changes the module, can't be walked, or
    there is no data.
    """
    if graph.mutations or any(leaf.is_meta for leaf in _tensors_in(returned)):
        return False
    before = _generators()
    try:
        made = replay(graph, module, inputs)
    except NotRunnable:
        return False
    drew = any(
        not torch.equal(one, other) for one, other in zip(before, _generators(), strict=False)
    )
    return not drew and not _alike(made, returned)


def _generators() -> list[torch.Tensor]:
    """The state of torch's random generators."""
    cuda: Any = torch.cuda
    return [torch.get_rng_state(), *([cuda.get_rng_state()] if cuda.is_initialized() else [])]


def _tensors_in(returned: Any) -> list[torch.Tensor]:
    """The tensors that forward returned; a graph has no others, and None beside them."""
    return [leaf for leaf in pytree.tree_leaves(returned) if isinstance(leaf, torch.Tensor)]


def _is_untouched(before: torch.Tensor, after: torch.Tensor) -> bool:
    """Whether a tensor is the same, bit by bit."""
    same = before.shape == after.shape and before.dtype == after.dtype
    bits = (one.reshape(-1).view(torch.uint8) for one in (before, after))
    return same and torch.equal(*bits)


def _alike(made: Sequence[torch.Tensor], returned: Any) -> bool:
    """Whether a graph's results are what forward returned."""
    leaves = _tensors_in(returned)
    return len(made) == len(leaves) and all(map(_is_like, made, leaves))


def _is_like(made: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether a result is the same but for rounding, and for the few elements that this may tip."""
    if made.shape != expected.shape or made.dtype != expected.dtype:
        return False
    flat = made.reshape(-1), expected.reshape(-1)
    others = sum(
        _others(*(one[first : first + COMPARED] for one in flat))
        for first in range(0, expected.numel(), COMPARED)
    )
    return others <= TIPPED * expected.numel()


def _others(made: torch.Tensor, expected: torch.Tensor) -> int:
    """How many elements are not those that were expected."""
    if torch.equal(made, expected):
        return 0
    if not (expected.is_floating_point() or expected.is_complex()):
        return int((made != expected).sum())
    sizes = expected.abs()
    finite = sizes[sizes.isfinite()]
    largest = float(finite.max()) if finite.numel() else 0.0
    near = torch.isclose(
        made, expected, rtol=ROUNDING, atol=ROUNDING * largest + 1e-5, equal_nan=True
    )
    return int((~near).sum())
