"""Rewrites of convolutions that are summed, pooled or multiplied again before anything nonlinear.

Like all rewrites they are exact in real arithmetic and derive what they need of the weights on
every call. They pay only at certain sizes, so each asks the cost model first.
"""

from dataclasses import dataclass
from math import prod

from knowledge.loops.cost import Machine, call_cost
from knowledge.opgraph import Argument, Node, OpGraph, Ref
from knowledge.patterns.algebra.edit import (
    Writer,
    argument,
    operator,
    producer,
    read_once,
    replace,
)
from knowledge.patterns.algebra.rewrites import FLOATS, OVERFLOWING, Rewritten, Unfit
from knowledge.patterns.algebra.taps import Range, conv_range, tap_sums, transposed_range
from knowledge.patterns.algebra.terms import (
    plus,
    reduction_of,
    same_dtype,
    scaled,
    shaped,
    sum_over,
)

# Whether a rewrite pays must not hang on what is measured today, or a plan could not be repeated:
# an ordinary pair of cores.
NOMINAL = Machine(bandwidth_gbps=20.0, peak_gflops=150.0, fault_us=0.25, huge_pages=False)
_PLAIN = {"conv1d": 1, "conv2d": 2, "conv3d": 3}
_TRANSPOSED = {"conv_transpose1d": 1, "conv_transpose2d": 2, "conv_transpose3d": 3}


@dataclass(frozen=True)
class Convolution:
    """A call of conv1d/2d/3d or its transpose on a batch; lists have an entry each dimension."""

    node: Node
    x: Ref
    weight: Ref
    bias: Ref | None
    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int
    transposed: bool


def _read(graph: OpGraph, node: Node | None) -> Convolution | Unfit | None:
    """The arguments of a convolution; None for other calls."""
    name = operator(node)
    rank = {**_PLAIN, **_TRANSPOSED}.get(name)
    if node is None or rank is None:
        return None
    transposed = name in _TRANSPOSED
    x, weight, bias = node.args[0], node.args[1], argument(node, 2, "bias")
    assert isinstance(x, Ref)
    assert isinstance(weight, Ref)
    lists = [
        _each(argument(node, 3, "stride", 1), rank),
        _each(argument(node, 4, "padding", 0), rank),
        _each(argument(node, 7 if transposed else 5, "dilation", 1), rank),
    ]
    groups = argument(node, 6, "groups", 1)
    stride, padding, dilation = lists
    if stride is None or padding is None or dilation is None or not isinstance(groups, int):
        return Unfit("the convolution's padding is given by name")
    if len(graph.spec_of(x).shape) != rank + 2:
        return Unfit("the convolution has no batch dimension")
    if not isinstance(bias, Ref):
        bias = None
    return Convolution(node, x, weight, bias, stride, padding, dilation, groups, transposed)


def _each(value: object, rank: int) -> list[int] | None:
    numbers = list(value) if isinstance(value, list) else [value]
    if not all(isinstance(one, int) for one in numbers):
        return None
    return [int(str(one)) for one in numbers] * (rank if len(numbers) == 1 else 1)


def _milliseconds(graph: OpGraph) -> float:
    return sum(call_cost(graph, node).milliseconds(NOMINAL) for node in graph.calls)


def _pays(before: OpGraph, after: OpGraph) -> bool:
    """Whether the rewritten graph costs less, by what cannot be blamed on the model."""
    return _milliseconds(after) < 0.9 * _milliseconds(before)


_TOO_SMALL = Unfit("the calls that would replace the convolution cost as much as it does")


def sum_of_convolution(graph: OpGraph, node: Node) -> Rewritten | Unfit | None:
    """Sum or mean of a convolution over all positions: tap by tap a sum of the input.

    Each tap meets a rectangle of the input (every stride-th element of one, where the convolution
    is not transposed), so  sum_o y[n, c, o] = sum_ik W[c, i, k] S[n, i, k]  with S the sums over
    these rectangles. No border is subtracted: infinity - infinity would be NaN.
    """
    found = _summed(graph, node)
    if found is None:
        return None
    source, dims = found
    call = _read(graph, producer(graph, source))
    if call is None or isinstance(call, Unfit):
        return call
    rank = len(call.stride)
    if not set(range(2, rank + 2)) <= set(dims):
        return Unfit("not all positions of the convolution are summed")
    if call.groups != 1:
        return Unfit("the convolution's channels are in groups")
    if not read_once(graph, source):
        return Unfit("the convolution is needed for something else too")
    if node.spec.dtype not in FLOATS or not same_dtype(graph, call.x, Ref(ref=node.name)):
        return Unfit("the sum changes the type")
    if node.spec.dtype == "float16":
        return OVERFLOWING
    w = Writer(graph)
    sums = tap_sums(w, call.x, _ranges(graph, call))
    result = _per_channel(w, call, sums, operator(node) == "sum")
    result = _over_rest(w, result, [dim for dim in dims if dim < 2], operator(node) == "sum")
    result = shaped(w, result, node.spec.shape)
    changed = replace(graph, w, node.name, {Ref(ref=node.name): result})
    kind = "transposed convolution" if call.transposed else "convolution"
    words = f"the {'sum' if operator(node) == 'sum' else 'mean'} of a {kind} is a product of sums"
    return Rewritten(changed, words) if _pays(graph, changed) else _TOO_SMALL


def _summed(graph: OpGraph, node: Node) -> tuple[Ref, tuple[int, ...]] | None:
    """What a sum or mean reduces, and over which dimensions; pooling to one position is a mean."""
    if operator(node) in ("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"):
        rank = int(operator(node)[-2])
        source = node.args[0]
        whole = all(size == 1 for size in node.spec.shape[-rank:])
        if not whole or not isinstance(source, Ref):
            return None
        first = len(node.spec.shape) - rank
        return source, tuple(range(first, first + rank))
    found = reduction_of(graph, node)
    return found[:2] if found else None


def _ranges(graph: OpGraph, call: Convolution) -> list[list[Range]]:
    """For each dimension and tap, which of the input's elements it meets."""
    sizes, made = graph.spec_of(call.x).shape[2:], call.node.spec.shape[2:]
    window = graph.spec_of(call.weight).shape[2:]
    of = transposed_range if call.transposed else conv_range
    return [
        [
            of(sizes[at], made[at], call.stride[at], call.padding[at] - k * call.dilation[at])
            for k in range(taps)
        ]
        for at, taps in enumerate(window)
    ]


def _per_channel(w: Writer, call: Convolution, sums: Ref, is_sum: bool) -> Ref:
    """(batch, out channels): sums (batch, in channels, taps...) times weights, and the bias."""
    spec, dtype = w.spec(sums), w.spec(sums).dtype
    batch, depth = spec.shape[0], prod(spec.shape[1:])
    weight, channels = call.weight, call.node.spec.shape[1]
    if call.transposed:
        order = [1, 0, *range(2, len(spec.shape))]
        shape = w.spec(weight).shape
        turned = [shape[dim] for dim in order]
        weight = w.call("aten.permute.default", (weight, [*order]), turned, dtype)
    flat = w.call("aten.reshape.default", (sums, [batch, depth]), (batch, depth), dtype)
    rows = (channels, depth)
    weight = w.call("aten.reshape.default", (weight, [channels, depth]), rows, dtype)
    result = w.call("aten.linear.default", (flat, weight), (batch, channels), dtype)
    count = prod(call.node.spec.shape[2:])
    result = result if is_sum else scaled(w, result, 1.0 / count)
    if call.bias is not None:
        result = plus(w, result, scaled(w, call.bias, float(count)) if is_sum else call.bias)
    return result


def _over_rest(w: Writer, ref: Ref, dims: list[int], is_sum: bool) -> Ref:
    """Summed or averaged over channels or the batch too."""
    if is_sum or not dims:
        return sum_over(w, ref, dims, keep=True)
    shape = [1 if dim in dims else size for dim, size in enumerate(w.spec(ref).shape)]
    return w.call("aten.mean.dim", (ref, [*dims], True), shape, w.spec(ref).dtype)


def pooled_convolution(graph: OpGraph, node: Node) -> Rewritten | Unfit | None:
    """Average pooling of a convolution: one convolution with a larger window and stride."""
    pool = _pool(graph, node)
    if pool is None:
        return None
    source, window, step = pool
    call = _read(graph, producer(graph, source))
    if call is None or isinstance(call, Unfit) or call.transposed:
        return call if isinstance(call, Unfit) else None
    if not read_once(graph, source):
        return Unfit("the convolution is needed for something else too")
    taps = graph.spec_of(call.weight).shape[2:]
    if any(d > 1 and k > 1 for d, k in zip(call.dilation, taps, strict=True)):
        return Unfit("the pooled convolution is dilated")
    if any(s > k for s, k in zip(call.stride, taps, strict=True)):
        return Unfit("the pooled convolution leaves out elements, which zeros would have to meet")
    w = Writer(graph)
    weight = call.weight
    for at, size in enumerate(window):
        weight = _widened(w, weight, at, size, call.stride[at])
    weight = scaled(w, weight, 1.0 / prod(window))
    stride: Argument = [a * b for a, b in zip(call.stride, step, strict=True)]
    one: Argument = [1] * len(window)
    padding: Argument = [*call.padding]
    args: tuple[Argument, ...] = (call.x, weight, call.bias, stride, padding, one, call.groups)
    result = w.call(call.node.target, args, node.spec.shape, node.spec.dtype)
    changed = replace(graph, w, node.name, {Ref(ref=node.name): result})
    if not _pays(graph, changed):
        return Unfit("pooling after the convolution is less work than the larger window")
    return Rewritten(changed, "average pooling is part of the convolution's window")


def _pool(graph: OpGraph, node: Node) -> tuple[Ref, list[int], list[int]] | None:
    """What is averaged, the window and its steps; None unless all windows are whole."""
    if operator(node) not in ("avg_pool1d", "avg_pool2d", "avg_pool3d"):
        return None
    rank, source = int(operator(node)[-2]), node.args[0]
    window = _each(argument(node, 1, "kernel_size"), rank)
    step = _each(argument(node, 2, "stride") or argument(node, 1, "kernel_size"), rank)
    padding = _each(argument(node, 3, "padding", 0), rank)
    plain = not argument(node, 4, "ceil_mode", False)
    plain = plain and argument(node, 6, "divisor_override") is None
    if not plain or window is None or step is None or padding is None or any(padding):
        return None
    same = isinstance(source, Ref) and graph.spec_of(source).dtype == node.spec.dtype
    return (source, window, step) if same and isinstance(source, Ref) else None


def _widened(w: Writer, weight: Ref, dim: int, count: int, stride: int) -> Ref:
    """The sum of `count` copies of a window, each `stride` further along one dimension."""
    if count == 1:
        return weight
    spec = w.spec(weight)
    after = len(spec.shape) - 3 - dim
    shape = [*spec.shape]
    shape[dim + 2] += stride * (count - 1)
    total: Ref | None = None
    for copy in range(count):
        pads = [0, 0] * after + [stride * copy, stride * (count - 1 - copy)]
        moved = w.call("aten.constant_pad_nd.default", (weight, [*pads], 0.0), shape, spec.dtype)
        total = moved if total is None else plus(w, total, moved)
    assert total is not None
    return total


def pooled_linear(graph: OpGraph, node: Node) -> Rewritten | Unfit | None:
    """Average pooling over the features of a linear layer: a layer with averaged weight rows."""
    pool = _pool(graph, node)
    if pool is None or operator(node) != "avg_pool1d":
        return None
    source, (window,), (step,) = pool
    inner = producer(graph, source)
    if operator(inner) == "unsqueeze" and inner is not None and read_once(graph, source):
        inner = producer(graph, inner.args[0])
    if operator(inner) != "linear" or inner is None:
        return None
    x, weight, bias = inner.args[0], inner.args[1], argument(inner, 2, "bias")
    assert isinstance(x, Ref)
    assert isinstance(weight, Ref)
    features, depth = graph.spec_of(weight).shape
    if graph.spec_of(source).shape[-1] != features:
        return None
    if not read_once(graph, Ref(ref=inner.name)) or not read_once(graph, source):
        return Unfit("the linear layer is needed for something else too")
    if step != window or features % window:
        return Unfit("the pooled features overlap, or leave a rest")
    w = Writer(graph)
    left, dtype = features // window, node.spec.dtype
    weight = _averaged(w, weight, (left, window, depth))
    args: tuple[Argument, ...] = (x, weight)
    if isinstance(bias, Ref):
        args = (*args, _averaged(w, bias, (left, window)))
    lead = graph.spec_of(x).shape[:-1]
    result = w.call("aten.linear.default", args, (*lead, left), dtype)
    result = shaped(w, result, node.spec.shape)
    changed = replace(graph, w, node.name, {Ref(ref=node.name): result})
    if not _pays(graph, changed):
        return Unfit("averaging the weight's rows costs as much as it spares")
    return Rewritten(changed, "average pooling is part of the linear layer's weight")


def _averaged(w: Writer, ref: Ref, shape: tuple[int, ...]) -> Ref:
    """The mean over the second of these dimensions, into which the first was split."""
    dtype = w.spec(ref).dtype
    split = w.call("aten.reshape.default", (ref, [*shape]), shape, dtype)
    return w.call("aten.mean.dim", (split, [1]), (shape[0], *shape[2:]), dtype)


def product_of_products(graph: OpGraph, node: Node) -> Rewritten | Unfit | None:
    """Two linear layers, or two convolutions with windows of one element, are one: (W2 W1) x."""
    outer = _pointwise(graph, node)
    if outer is None or not isinstance(node.args[0], Ref):
        return None
    before = producer(graph, node.args[0])
    inner = _pointwise(graph, before)
    if inner is None or before is None or operator(before) != operator(node):
        return None
    if not read_once(graph, node.args[0]):
        return Unfit("the first product is needed for something else too")
    w = Writer(graph)
    (first, bias1, stride1), (second, bias2, stride2) = inner, outer
    dtype, shape2 = node.spec.dtype, w.spec(second).shape
    rows, middle, depth = shape2[0], shape2[1], w.spec(first).shape[1]
    left, right = shaped(w, second, (rows, middle)), shaped(w, first, (middle, depth))
    weight = w.call("aten.mm.default", (left, right), (rows, depth), dtype)
    bias = bias2
    if bias1 is not None:
        bias = w.call("aten.mv.default", (left, bias1), (rows,), dtype)
        bias = plus(w, bias, bias2) if bias2 is not None else bias
    weight = shaped(w, weight, (rows, depth, *shape2[2:]))
    args: tuple[Argument, ...] = (before.args[0], weight, bias)
    if stride1 and stride2:
        args = (*args, [a * b for a, b in zip(stride1, stride2, strict=True)])
    result = w.call(node.target, args, node.spec.shape, dtype)
    changed = replace(graph, w, node.name, {Ref(ref=node.name): result})
    if _milliseconds(changed) > 0.7 * _milliseconds(graph):
        return Unfit("the product of the two weights would spare little work, or none")
    return Rewritten(changed, f"two calls of {operator(node)} in a row are one")


def _pointwise(graph: OpGraph, node: Node | None) -> tuple[Ref, Ref | None, list[int]] | None:
    """Weight, bias and stride (empty for a linear layer) of a product at every position."""
    if node is not None and operator(node) == "linear":
        weight, bias = node.args[1], argument(node, 2, "bias")
        if isinstance(weight, Ref) and len(graph.spec_of(weight).shape) == 2:
            return weight, bias if isinstance(bias, Ref) else None, []
        return None
    call = _read(graph, node)
    if not isinstance(call, Convolution) or call.transposed or call.groups != 1:
        return None
    window = graph.spec_of(call.weight).shape[2:]
    if prod(window) != 1 or any(call.padding):
        return None
    return call.weight, call.bias, call.stride
