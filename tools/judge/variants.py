"""The same op on other shapes and other memory: inputs that a drop-in must take as `Model` does.

Nothing here knows the op. A variant is proposed, and whether the op allows it is decided by running
the reference on it.
"""

import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
from torch.utils import _pytree as pytree

from tools.reference import tensors_of

# More than this is not added to a dimension: a larger batch must not become a memory problem.
LARGEST_BYTES = 128 << 20
PRIMES = (3, 5, 7, 11, 13, 17, 29, 43, 61, 97, 131, 199, 257, 389, 521, 1031, 2053, 4099)
Draw = Callable[[], tuple[Any, ...]]
Which = Literal["one", "fewer", "beside"]


def other_sizes(draw: Draw, dim: int, which: Which) -> Iterator[tuple[Any, ...]]:
    """Inputs with another size in one dimension, the likeliest to be allowed first.

    The dimension is varied in all tensors that have the first one's size there; failing that, in
    the first tensor alone.

    Args:
        draw: gives ordinary inputs.
        dim: 0 for the batch; further ones from the left.
        which: `one`; `fewer`, a secret prime, to be found by a kernel made for some sizes; or a
            size `beside` the given one, by one in whose blocks it does not come out even.
    """
    first = next((leaf for leaf in tensors_of(draw()) if leaf.dim() > dim), None)
    if first is None or first.shape[dim] == 0:
        return
    size = first.shape[dim]
    for new in _sizes(size, which, first.nbytes):
        yield _resized(draw, dim, new, lambda leaf: leaf.dim() > dim and leaf.shape[dim] == size)
        if new > 1:
            # Not with 1, which an op might broadcast: that is another op than the one asked for.
            yield _resized(draw, dim, new, _FirstOf(dim))


class _FirstOf:
    """Picks the first tensor that has this dimension."""

    def __init__(self, dim: int) -> None:
        self._dim = dim
        self._found = False

    def __call__(self, leaf: torch.Tensor) -> bool:
        picked = not self._found and leaf.dim() > self._dim
        self._found = self._found or picked
        return picked


def _sizes(size: int, which: Which, nbytes: int) -> list[int]:
    if which == "one":
        return [1] if size > 1 else []
    if which == "fewer":
        smaller = [prime for prime in PRIMES if prime < size]
        wanted = dict.fromkeys([*([secrets.choice(smaller)] if smaller else []), 2, 3])
        return [new for new in wanted if new != size]
    beside = [size + 1] if nbytes + nbytes // size <= LARGEST_BYTES else []
    beside += [size - 1] if size > 2 else []
    return beside


def _resized(
    draw: Draw, dim: int, new: int, chosen: Callable[[torch.Tensor], bool]
) -> tuple[Any, ...]:
    """Two draws put together along the dimension and cut to size; what is not chosen is kept."""
    one, other = draw(), draw()
    leaves, shape = pytree.tree_flatten(one)
    others = pytree.tree_leaves(other)
    made = [
        _cut(leaf, more, dim, new) if isinstance(leaf, torch.Tensor) and chosen(leaf) else leaf
        for leaf, more in zip(leaves, others, strict=True)
    ]
    rebuilt: tuple[Any, ...] = pytree.tree_unflatten(made, shape)
    return rebuilt


def _cut(leaf: torch.Tensor, more: torch.Tensor, dim: int, new: int) -> torch.Tensor:
    if new <= leaf.shape[dim]:
        return leaf.narrow(dim, 0, new).clone(memory_format=torch.contiguous_format)
    missing = new - leaf.shape[dim]
    return torch.cat([leaf, more.narrow(dim, 0, min(missing, more.shape[dim]))], dim)


def turned(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same values, not contiguous: the last two dimensions stored in the other order.

    A tensor of one dimension is stored with gaps.
    """
    return _relaid(inputs, _turned_strides)


def offset(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same values, contiguous, but one element past where any allocator would put them."""
    return _relaid(inputs, lambda tensor: tuple(tensor.contiguous().stride()), shift=1)


def _relaid(
    inputs: tuple[Any, ...], strides: Callable[[torch.Tensor], tuple[int, ...]], shift: int = 0
) -> tuple[Any, ...]:
    def relay(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.numel() < 2 or 0 in tensor.stride():
            return tensor
        steps = strides(tensor)
        span = shift + 1 + sum((n - 1) * s for n, s in zip(tensor.shape, steps, strict=True))
        memory = torch.zeros(span, dtype=tensor.dtype, device=tensor.device)
        return memory.as_strided(tensor.shape, steps, shift).copy_(tensor)

    made: tuple[Any, ...] = pytree.tree_map_only(torch.Tensor, relay, inputs)
    return made


def _turned_strides(tensor: torch.Tensor) -> tuple[int, ...]:
    if tensor.dim() < 2:
        return tuple(2 * step for step in tensor.contiguous().stride())
    return tuple(tensor.transpose(-1, -2).contiguous().transpose(-1, -2).stride())


def with_special(
    inputs: tuple[Any, ...], value: float, chance: torch.Generator, count: int = 3
) -> tuple[Any, ...] | None:
    """A few elements of the first floating tensor made NaN or Inf; None where there is none."""
    leaves, shape = pytree.tree_flatten(inputs)
    for place, leaf in enumerate(leaves):
        if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() and leaf.numel():
            made = leaf.contiguous().clone()
            flat = made.reshape(-1)
            flat[torch.randint(flat.numel(), (count,), generator=chance)] = value
            leaves[place] = made
            rebuilt: tuple[Any, ...] = pytree.tree_unflatten(leaves, shape)
            return rebuilt
    return None


def same_layout(left: Sequence[torch.Tensor], right: Sequence[torch.Tensor]) -> bool:
    """Whether two lists of tensors lie in memory alike."""
    return all(
        a.stride() == b.stride() and a.storage_offset() == b.storage_offset()
        for a, b in zip(left, right, strict=True)
    )
