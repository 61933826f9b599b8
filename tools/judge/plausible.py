"""The floor under every time: what the machine needs merely to read what the answer depends on, and to write the answer.

Nothing here counts operations, since good algebra does a hundredth of them. An input counts with
the share of its elements that the gradient shows to matter; the bandwidth is that of the fastest
pass over the very same memory; and the floor is halved before a kernel is called impossible,
because a cache that serves an honest kernel must never convict it.
"""

import copy
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from tools.judge.lane import InputSets
from tools.judge.oracle import own
from tools.judge.subject import Subject

MARGIN = 0.5
# Below this the handshake's own jitter is as large as what would be judged.
LEAST_FLOOR_MS = 0.05
PASSES = 7


def floor_ms(subject: Subject, sets: InputSets) -> float:
    """Milliseconds below which no time of this op is believed; 0 where nothing can be said."""
    needed = _needed_bytes(subject)
    if needed <= 0:
        return 0.0
    floor = MARGIN * needed / _fastest_bytes_per_ms(sets, subject.outputs)
    return floor if floor >= LEAST_FLOOR_MS else 0.0


def _needed_bytes(subject: Subject) -> float:
    """Bytes of outputs, and of those input elements which change them."""
    if subject.private or any(subject.aliases):
        return 0.0
    written = sum(tensor.nbytes for tensor in subject.outputs)
    if any(subject.expanded):
        return 0.0
    inputs = own(subject.loaded.inputs(subject.seed))
    leaves = [
        leaf.requires_grad_() for leaf in pytree.tree_leaves(inputs)
        if isinstance(leaf, torch.Tensor) and leaf.dtype is torch.float32
    ]  # fmt: skip
    return written + sum(_read_shares(subject, inputs, leaves))


def _read_shares(
    subject: Subject, inputs: tuple[Any, ...], leaves: list[torch.Tensor]
) -> list[float]:
    """For each input, the bytes whose gradient is not zero; nothing for ops that have none."""
    model = copy.deepcopy(subject.model)
    try:
        with torch.enable_grad():
            outputs = [t for t in pytree.tree_leaves(model(*inputs)) if t.requires_grad]
            if not outputs or not leaves:
                return []
            weights = [torch.rand_like(output) for output in outputs]
            gradients = torch.autograd.grad(outputs, leaves, weights, allow_unused=True)
    except (RuntimeError, TypeError, NotImplementedError):
        return []  # An op without a gradient is held to its outputs alone.
    return [
        leaf.nbytes * float((gradient != 0).float().mean())
        for leaf, gradient in zip(leaves, gradients, strict=True)
        if gradient is not None
    ]


def _fastest_bytes_per_ms(sets: InputSets, outputs: Sequence[torch.Tensor]) -> float:
    """The best of several sums and copies over the memory that kernels read."""
    flats = [
        tensor.as_strided((tensor.untyped_storage().nbytes() // tensor.itemsize,), (1,), 0)
        for tensor in sets.bundles[0].tensors if tensor.numel() and tensor.dtype is torch.float32
    ]  # fmt: skip
    flats += [tensor.flatten() for tensor in outputs if tensor.dtype is torch.float32]
    flats = flats or [torch.ones(1 << 20)]
    size = sum(flat.nbytes for flat in flats)
    targets = [torch.empty_like(flat) for flat in flats]
    best = 0.0
    for _ in range(PASSES):
        began = time.perf_counter_ns()
        for flat in flats:
            flat.sum()
        read = size / (time.perf_counter_ns() - began)
        began = time.perf_counter_ns()
        for flat, target in zip(flats, targets, strict=True):
            target.copy_(flat)
        copied = 2 * size / (time.perf_counter_ns() - began)
        best = max(best, read, copied)
    return best * 1e6
