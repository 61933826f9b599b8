"""Which sizes of a program's inputs may differ from the traced ones, and which may not."""

from typing import Any

from knowledge.opgraph import Ref
from knowledge.program import Kernel, Program

SIZED = ("aten.view.", "aten.reshape.", "aten._unsafe_view.", "aten.expand.")
# Their numbers are dimensions, counts of groups and the like, never a batch's size.
_DIMENSIONAL = (
    "aten.softmax", "aten.log_softmax", "aten.sum", "aten.mean", "aten.amax", "aten.amin",
    "aten.logsumexp", "aten.layer_norm", "aten.rms_norm", "aten.group_norm", "aten.flatten",
    "aten.unsqueeze", "aten.squeeze", "aten.transpose", "aten.permute", "aten.conv",
    "aten.max_pool", "aten.avg_pool", "aten.var", "aten.std", "aten.cat", "aten.stack",
    "aten.cross_entropy", "aten.nll_loss",
)  # fmt: skip


def freedom(program: Program) -> tuple[bool, bool]:
    """Whether the first dimension of inputs may vary, and whether all sizes may.

    A number in the graph that equals a size (or its root, or its inverse) may have been computed
    from it, and then holds for that size only.
    """
    graph = program.graph
    if any(kernel.sizes and not _follows_inputs(kernel) for kernel in program.kernels):
        return False, False
    numbers = set(_numbers(program))
    batch = [node.spec.shape[0] for node in graph.inputs if node.spec.shape]
    others = [size for node in graph.inputs for size in node.spec.shape]
    others += [node.spec.numel for node in graph.inputs]
    free_batch = not (_suspects([*batch, *others[len(others) - len(graph.inputs) :]]) & numbers)
    all_free = not program.library_calls and not (_suspects(others) & numbers)
    entering = {node.kind for node in graph.nodes}
    return free_batch, free_batch and all_free and not entering & {
        "parameter",
        "buffer",
        "constant",
    }


def _follows_inputs(kernel: Kernel) -> bool:
    """Whether a kernel's sizes come from a tensor at run time."""
    return any(".shape" in size.expression or ".numel" in size.expression for size in kernel.sizes)


def _suspects(sizes: list[int]) -> set[float]:
    found: set[float] = set()
    for size in sizes:
        if size > 1:
            found |= {float(size), size - 1.0, 1.0 / size, size**0.5, size**-0.5}
    return found - {1.0}


def _numbers(program: Program) -> list[float]:
    """Every number among the arguments that could stand for a size."""
    found: list[float] = []
    for node in program.graph.calls:
        sized = node.target.startswith(SIZED)
        stack: list[Any] = [*node.args[1:], *node.kwargs.values()]
        if sized and program.kernel_of.get(node.name) is None:
            first = node.args[0]
            shape = program.graph.spec_of(first).shape if isinstance(first, Ref) else ()
            sizes = node.args[1] if len(node.args) > 1 and isinstance(node.args[1], list) else []
            stack = list(sizes[1:]) if sizes and shape and sizes[0] == shape[0] else [*sizes]
        elif sized or node.target.startswith(_DIMENSIONAL):
            stack = []
        while stack:
            item = stack.pop()
            if isinstance(item, list):
                stack += item
            elif isinstance(item, int | float) and not isinstance(item, bool):
                found.append(float(item))
    return found
