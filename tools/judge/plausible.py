"""The floor under every time: reading what the answer depends on, and writing the answer.

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

from tools.judge.buffers import InputSets
from tools.judge.ceilings import LARGE_BYTES, bandwidth_gbps
from tools.judge.inputs import storage
from tools.judge.oracle import own
from tools.judge.rotation import bytes_that_must_move
from tools.judge.subject import Subject
from tools.reference import tensors_of

MARGIN = 0.5
# Below this the handshake's own jitter is as large as what would be judged.
LEAST_FLOOR_MS = 0.05
PASSES = 5
PIECE_ELEMENTS = 1 << 18


def floor_ms(subject: Subject, sets: InputSets) -> float:
    """Milliseconds below which no time of this op is believed; 0 where nothing can be said."""
    needed = _needed_bytes(subject)
    if subject.site.l2_bytes():
        needed = bytes_that_must_move(needed, subject.site.l2_bytes())
    if needed <= 0:
        return 0.0
    if subject.device.type != "cpu":
        best = max(bandwidth_gbps(LARGE_BYTES, subject.device)) * 1e6
        floor = MARGIN * needed / best
        return floor if floor >= LEAST_FLOOR_MS else 0.0
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
            outputs = [t for t in tensors_of(model(*inputs)) if t.requires_grad]
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
    """What all cores could move at best: the fastest piece of several sums and copies, times cores.

    One thread and short pieces, because a neighbour on the machine can then slow most of them down
    but hardly all, and because cores never add up to more than their number.
    """
    pieces = [
        piece
        for tensor in (*sets.bundles[0].tensors, *outputs)
        if tensor.numel() and tensor.dtype is torch.float32
        for piece in torch.split(storage(tensor), PIECE_ELEMENTS)
    ] or [torch.ones(PIECE_ELEMENTS)]
    target = torch.empty(PIECE_ELEMENTS)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    best = 0.0
    try:
        for _ in range(PASSES):
            for piece in pieces:
                began = time.perf_counter_ns()
                piece.sum()
                read = time.perf_counter_ns()
                target[: piece.numel()].copy_(piece)
                copied = time.perf_counter_ns()
                best = max(best, piece.nbytes / (read - began), 2 * piece.nbytes / (copied - read))
    finally:
        torch.set_num_threads(threads)
    return best * threads * 1e6
