"""Which sizes of a program's inputs may differ from the traced ones, and which may not."""

import re
from collections.abc import Iterator
from math import isfinite, prod
from typing import Any

from knowledge.opgraph import Node, Ref
from knowledge.program import Kernel, Program

SIZED = ("aten.view.", "aten.reshape.", "aten._unsafe_view.", "aten.expand.")
# Their numbers are dimensions, counts of groups and the like, never a batch's size.
_DIMENSIONAL = (
    "aten.softmax", "aten.log_softmax", "aten.sum", "aten.mean", "aten.amax", "aten.amin",
    "aten.logsumexp", "aten.layer_norm", "aten.rms_norm", "aten.group_norm", "aten.flatten",
    "aten.unsqueeze", "aten.squeeze", "aten.transpose", "aten.permute", "aten.conv",
    "aten.max_pool", "aten.avg_pool", "aten.var", "aten.std", "aten.cat", "aten.stack",
    "aten.cross_entropy", "aten.nll_loss", "aten.adaptive_", "aten.constant_pad_nd",
    "aten.instance_norm", "aten.batch_norm", "aten.cum", "aten.logcumsumexp", "aten.flip",
    "aten._native_batch_norm", "aten.native_batch_norm", "aten.arg", "aten.lstm", "aten.gru",
    "aten.rnn_", "aten.roll", "aten.embedding", "aten.index_select", "aten.gather", "aten.pad",
    "aten.take_along_dim", "aten.tril", "aten.triu", "aten.glu", "aten.reflection_pad",
    "aten.replication_pad", "aten.upsample_",
)  # fmt: skip

_WINDOWED = ("aten.avg_pool", "aten.max_pool", "aten.adaptive_", "aten.roll")


def freedom(program: Program) -> tuple[bool, bool]:
    """Whether the first dimension of inputs may vary, and whether all sizes may.

    A number in the graph that equals a size (or its root, or its inverse) may have been computed
    from it, and then holds for that size only; so may a multiple of the batch, as a count of rows,
    and the sizes of a tensor that is made of nothing (`torch.zeros(x.shape[0], 8)`).
    """
    graph = program.graph
    if program.precautions.traced_shapes:
        return False, False
    if any(kernel.sizes and not _follows_inputs(kernel) for kernel in program.kernels):
        return False, False
    shapes = [node.spec.shape for node in graph.inputs if node.spec.shape]
    batches = [shape[0] for shape in shapes if shape[0] > 1]
    sizes, factors = _numbers(program)
    made = _made_sizes(program)
    counts = {prod(shape[:first]) for shape in shapes for first in range(1, len(shape) + 1)
              if shape[0] > 1 or first == 1}  # fmt: skip
    if _suspects(batches) & (sizes | factors | made) or counts & made:
        return False, False
    if any(_counts(factor, batch) for factor in factors for batch in batches):
        return False, False
    every = [size for shape in shapes for size in shape]
    every += [prod(shape[-last:]) for shape in shapes for last in range(2, len(shape))]
    clash = bool(_suspects(every) & (sizes | factors | made | _windows(program)))
    fixed = {"parameter", "buffer", "constant"} & {node.kind for node in graph.nodes}
    return True, not (clash or fixed or program.library_calls or _averages_cells(program))


def _windows(program: Program) -> set[float]:
    """Numbers of windows and shifts, which may have been computed from the sizes of an image."""
    calls = [node for node in program.graph.calls if node.target.startswith(_WINDOWED)]
    return {number for node in calls for number in _flat(list(node.args[1:]))}


def _made_sizes(program: Program) -> set[float]:
    """Numbers that tensors are made of, where a call reads none: their sizes, above all.

    What a kernel makes of them has the sizes that it takes from tensors, but for those that stand
    in its own sizes and shapes as they were traced.
    """
    found: set[float] = set()
    for node in program.graph.calls:
        numbers = set() if node.refs else set(_flat([*node.args, *node.kwargs.values()]))
        kernel = program.kernel_of.get(node.name)
        if kernel is not None and node.args and isinstance(node.args[0], list):
            numbers &= _written_out(kernel)
        found |= numbers
    return found


def _written_out(kernel: Kernel) -> set[float]:
    """The numbers in a kernel's sizes and shapes that are no subscripts."""
    texts = [size.expression for size in kernel.sizes] + [one.shape for one in kernel.writes]
    plain = re.sub(r"\[\d+\]", "", " ".join(texts))
    return {float(number) for number in re.findall(r"(?<![\w.])\d+", plain)}


def _averages_cells(program: Program) -> bool:
    """Whether means of a grid's cells are averaged, which may hold for the traced sizes alone."""
    pools = [node for node in program.graph.calls if node.target.startswith("aten.adaptive_avg")]
    names = {node.name for node in pools}
    return any(ref.ref in names for node in pools for ref in node.refs)


def _counts(factor: float, batch: int) -> bool:
    """Whether a factor, or its inverse, is a multiple of the batch."""
    if not isfinite(factor):
        return False
    inverse = 1.0 / factor if factor else 0.0
    return any(
        abs(number) >= batch and abs(number / batch - round(number / batch)) < 1e-9
        for number in (factor, inverse)
    )


def _follows_inputs(kernel: Kernel) -> bool:
    """Whether a kernel's sizes come from a tensor at run time."""
    return any(".shape" in size.expression or ".numel" in size.expression for size in kernel.sizes)


def _suspects(sizes: list[int]) -> set[float]:
    found: set[float] = set()
    for size in sizes:
        if size > 1:
            found |= {float(size), size - 1.0, 1.0 / size, size**0.5, size**-0.5}
    return found - {1.0}


def _numbers(program: Program) -> tuple[set[float], set[float]]:
    """Numbers that are sizes of views, and those that enter arithmetic."""
    sizes: set[float] = set()
    factors: set[float] = set()
    for node in program.graph.calls:
        if node.target.startswith(SIZED):
            if node.name not in program.kernel_of:
                sizes |= _view_sizes(program, node)
        elif not node.target.startswith(_DIMENSIONAL):
            factors |= set(_flat([*node.args[1:], *node.kwargs.values()]))
    return sizes, factors


def _view_sizes(program: Program, node: Node) -> set[float]:
    """The sizes of a view that are taken for granted; the batch is read at run time instead."""
    first, given = node.args[0], node.args[1] if len(node.args) > 1 else None
    if not isinstance(given, list) or not isinstance(first, Ref):
        return set()
    shape = program.graph.spec_of(first).shape
    follows = bool(given and shape) and given[0] == shape[0]
    return set(_flat(given[1:] if follows else given))


def _flat(values: list[Any]) -> Iterator[float]:
    for value in values:
        if isinstance(value, list):
            yield from _flat(value)
        elif isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value):
            yield float(value)
