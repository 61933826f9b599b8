"""What can be said of a reference before any kernel exists: its graph, its operations, its traffic.

Runs in the judge's process, once per task, on the headline inputs.
"""

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from knowledge.opgraph import Node, OpGraph, TensorSpec
from knowledge.parts import Part
from tools.calls import NotRunnable, call_times
from tools.facts import ReferenceFacts
from tools.parts import find_parts
from tools.reference import LoadedReference, plain_tensors, tensors_of
from tools.task import Task, device_of
from tools.trace import Untraceable, spec_of, trace

EXAMPLE_SEED = 0
# Further inputs, on which a graph that strict export can't make is held against the op itself.
OTHER_SEEDS = (1, 2)

# Operators that read the shape of their argument but none of its values, or make values of none.
VALUELESS = frozenset({
    "empty", "empty_like", "zeros", "zeros_like", "ones", "ones_like", "full", "full_like",
    "arange", "eye", "new_empty", "new_zeros", "new_ones", "new_full", "rand_like", "randn_like",
    "linspace", "scalar_tensor", "sym_size", "sym_stride", "sym_numel",
})  # fmt: skip
# Operators that hand their argument's elements on as they are.
VIEWS = frozenset({
    "view", "reshape", "_unsafe_view", "view_as", "reshape_as", "flatten", "unflatten", "permute",
    "transpose", "t", "numpy_T", "mT", "movedim", "swapaxes", "swapdims", "squeeze", "unsqueeze",
    "expand", "expand_as", "broadcast_to", "contiguous", "clone", "alias", "detach", "detach_",
    "lift_fresh_copy", "atleast_1d", "atleast_2d",
})  # fmt: skip
# Operators that may read only part of their first argument.
TAKERS = frozenset({
    "slice", "select", "narrow", "split", "split_with_sizes", "chunk", "unbind", "tensor_split",
    "diagonal", "index", "index_select", "gather", "take", "take_along_dim", "embedding",
    "embedding_bag", "tril", "triu", "masked_select", "unfold", "as_strided",
})  # fmt: skip
# Operators whose operations torch's own counter knows.
COUNTED = frozenset({
    "mm", "addmm", "bmm", "baddbmm", "addbmm", "matmul", "linear", "mv", "addmv", "dot", "bilinear",
    "einsum", "tensordot", "conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d",
    "conv_transpose2d", "conv_transpose3d", "scaled_dot_product_attention", "lstm", "gru",
    "rnn_tanh", "rnn_relu",
})  # fmt: skip


def examine(
    loaded: LoadedReference,
    task: Task,
    alone: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
) -> ReferenceFacts:
    """The facts of a reference at its headline shape.

    Args:
        loaded: the reference.
        task: what it is examined for.
        alone: entered around whatever is timed.

    Raises:
        BadInput: its constructor, its inputs or its forward fail; see `tools.reference`.
    """
    model = loaded.build(EXAMPLE_SEED)
    # Before forward runs, which may make more of them.
    constructed = plain_tensors(model)
    inputs = loaded.inputs(EXAMPLE_SEED)
    given = tuple(spec_of(x) for x in inputs if isinstance(x, torch.Tensor))
    with FlopCounterMode(display=False) as counter:
        returned = loaded.run(model, inputs, EXAMPLE_SEED)
    graph: OpGraph | None = None
    untraceable = ""
    parts: tuple[Part, ...] = ()
    try:
        others = (loaded.inputs(seed) for seed in OTHER_SEEDS)
        graph = trace(model, inputs, others, constructed=constructed, returned=returned)
    except Untraceable as error:
        untraceable = str(error)
        with alone():
            parts = find_parts(model, inputs, loaded.module.__name__, constructed=constructed)
    call_ms: dict[str, float] = {}
    # A device that is not this one has other times.
    here = loaded.device.type == device_of(task, "task: target").kind
    if graph is not None and here:
        with contextlib.suppress(NotRunnable), alone():
            call_ms = call_times(graph, model, inputs)
    made = tuple(spec_of(tensor) for tensor in tensors_of(returned))
    return ReferenceFacts(
        source=loaded.source,
        digest=loaded.digest,
        graph=graph,
        untraceable=untraceable,
        parts=parts,
        inputs=given,
        outputs=made,
        call_ms=call_ms,
        flops=counter.get_total_flops() + (elementwise_flops(graph) if graph else 0),
        moved_bytes=read_bytes(graph, model, given) + sum(distinct_bytes(spec) for spec in made),
    )


def operator_name(node: Node) -> str:
    """`softmax` of `aten.softmax.int`."""
    parts = node.target.split(".")
    return parts[1] if len(parts) > 1 else node.target


def elementwise_flops(graph: OpGraph) -> int:
    """One operation per element, of its largest operand, for every call that torch does not count.

    An exponential counts as one, like an addition: this is the work named by the op, which is
    what the field's rooflines count, not the instructions that some implementation needs.
    """
    free = VALUELESS | VIEWS | TAKERS | COUNTED
    total = 0
    for node in graph.calls:
        if operator_name(node) in free:
            continue
        made = node.result if isinstance(node.result, tuple) else (node.result,)
        read = [_spec_behind(graph, ref.ref, ref.index) for ref in node.refs]
        total += max((spec.numel for spec in (*made, *read) if spec is not None), default=0)
    return total


def _spec_behind(graph: OpGraph, name: str, index: int | None) -> TensorSpec | None:
    result = graph.by_name[name].result
    if isinstance(result, tuple):
        return result[index] if index is not None else None
    return result


def distinct_bytes(spec: TensorSpec) -> int:
    """Bytes of the elements that differ in address: an expanded dimension counts once."""
    numel = 1
    for size, stride in zip(spec.shape, spec.strides, strict=True):
        numel *= size if stride != 0 or size == 0 else 1
    return numel * (spec.nbytes // spec.numel) if spec.numel else 0


def read_bytes(
    graph: OpGraph | None, model: torch.nn.Module, inputs: tuple[TensorSpec, ...]
) -> int:
    """The least that any kernel must read: every input and weight whose values matter, once.

    A tensor that is only sliced, gathered from or looked up in counts with what is taken, since
    a floor that is too high would reject an honest kernel. Without a graph all of it counts.
    """
    if graph is None:
        weights: list[Any] = [*model.parameters(), *model.buffers()]
        return sum(map(distinct_bytes, (*inputs, *map(spec_of, weights))))
    return sum(_bytes_read(graph, node) for node in graph.nodes if node.kind != "call")


def _bytes_read(graph: OpGraph, node: Node) -> int:
    specs = node.result if isinstance(node.result, tuple) else (node.result,)
    whole = sum(distinct_bytes(spec) for spec in specs if spec is not None)
    if any(ref.ref == node.name for ref in graph.outputs) or node.name in graph.mutations.values():
        return whole
    taken = 0
    for user in graph.users[node.name]:
        name = operator_name(user)
        if name in VALUELESS:
            continue
        first = bool(user.refs) and user.refs[0].ref == node.name
        only_first = sum(ref.ref == node.name for ref in user.refs) == 1
        if not (name in VIEWS | TAKERS and first and only_first):
            return whole
        taken += _bytes_read(graph, user)
    return min(whole, taken)
