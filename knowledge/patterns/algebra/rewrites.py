"""The rewrites: each looks at one call and answers with a better graph, why not, or nothing.

All are exact in real arithmetic and keep NaN; rounding differs by the order of summation, no more.
Where an infinity meets products of both signs, a sum that is NaN may come out as infinite.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from knowledge.opgraph import Argument, Node, OpGraph, Ref, TensorSpec
from knowledge.patterns.algebra.edit import (
    Writer,
    argument,
    is_random,
    operator,
    producer,
    read_once,
    replace,
    without_dead,
)
from knowledge.patterns.algebra.terms import (
    plus,
    reduction_of,
    same_dtype,
    scaled,
    shaped,
    sum_over,
)

FLOATS = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True)
class Rewritten:
    """A changed graph, and what was done in words."""

    graph: OpGraph
    words: str


@dataclass(frozen=True)
class Unfit:
    """A call that looked right for a rewrite, and the reason why it isn't."""

    why: str


OVERFLOWING = Unfit("sums of what is multiplied could leave float16's range")

Rewrite = Callable[[OpGraph, Node], Rewritten | Unfit | None]


def _divisor(graph: OpGraph, node: Node, source: Ref, dims: tuple[int, ...]) -> float:
    count = prod(graph.spec_of(source).shape[dim] for dim in dims)
    return 1.0 / count if operator(node) == "mean" else 1.0


def sum_of_linear(graph: OpGraph, node: Node) -> Rewritten | Unfit | None:
    """Sum or mean of x W^T + b: over features x (column sums of W), over the batch sums of x."""
    found = reduction_of(graph, node)
    if found is None or operator(linear := producer(graph, found[0])) != "linear":
        return None
    assert linear is not None
    source, dims, _ = found
    x, weight = linear.args[0], linear.args[1]
    bias = argument(linear, 2, "bias")
    assert isinstance(x, Ref)
    assert isinstance(weight, Ref)
    if not read_once(graph, source):
        return Unfit("the product is needed for something else too")
    if node.spec.dtype not in FLOATS or not same_dtype(graph, x, weight, Ref(ref=node.name)):
        return Unfit("the sum changes the type")
    if node.spec.dtype == "float16":
        return OVERFLOWING
    rank = len(graph.spec_of(x).shape)
    outer = [dim for dim in dims if dim != rank - 1]
    rows = prod(graph.spec_of(x).shape[dim] for dim in outer)
    w = Writer(graph)
    summed = sum_over(w, x, outer, keep=True)
    lead = w.spec(summed).shape[:-1]
    dtype = node.spec.dtype
    if rank - 1 in dims:
        columns = sum_over(w, weight, [0], keep=False)
        product = w.call("aten.matmul.default", (summed, columns), lead, dtype)
        offset = sum_over(w, bias, [0], keep=False) if isinstance(bias, Ref) else None
    else:
        features = graph.spec_of(weight).shape[0]
        product = w.call("aten.linear.default", (summed, weight), (*lead, features), dtype)
        offset = bias if isinstance(bias, Ref) else None
    if offset is not None:
        product = plus(w, product, scaled(w, offset, rows))
    result = scaled(w, product, _divisor(graph, node, source, dims))
    result = shaped(w, result, node.spec.shape)
    changed = replace(graph, w, node.name, {Ref(ref=node.name): result})
    kind = (
        "a matrix-vector product with its weight's column sums"
        if rank - 1 in dims
        else ("a product of the batch's sums")
    )
    return Rewritten(changed, f"{operator(node)} of a linear layer is {kind}")


def sum_of_matmul(graph: OpGraph, node: Node) -> Rewritten | Unfit | None:
    """Sum or mean of A B over rows or columns: (sums of A) B, A (sums of B), or both."""
    found = reduction_of(graph, node)
    if found is None or operator(matmul := producer(graph, found[0])) not in (
        "mm",
        "matmul",
        "bmm",
    ):
        return None
    assert matmul is not None
    source, dims, _ = found
    a, b = matmul.args[0], matmul.args[1]
    assert isinstance(a, Ref)
    assert isinstance(b, Ref)
    left, right = graph.spec_of(a).shape, graph.spec_of(b).shape
    rank = len(graph.spec_of(source).shape)
    if len(left) < 2 or len(right) < 2 or rank < 2:
        return None
    if not set(dims) & {rank - 1, rank - 2}:
        return Unfit("the sum is over the batch of matrices alone")
    if not read_once(graph, source):
        return Unfit("the product is needed for something else too")
    if node.spec.dtype not in FLOATS or not same_dtype(graph, a, b, Ref(ref=node.name)):
        return Unfit("the sum changes the type")
    if node.spec.dtype == "float16":
        return OVERFLOWING
    w = Writer(graph)
    if rank - 2 in dims:
        a = sum_over(w, a, [len(left) - 2], keep=True)
    if rank - 1 in dims:
        b = sum_over(w, b, [len(right) - 1], keep=True)
    shape = list(graph.spec_of(source).shape)
    for dim in set(dims) & {rank - 1, rank - 2}:
        shape[dim] = 1
    product = w.call("aten.matmul.default", (a, b), shape, node.spec.dtype)
    rest = [dim for dim in dims if dim < rank - 2]
    product = sum_over(w, product, rest, keep=True)
    result = scaled(w, product, _divisor(graph, node, source, dims))
    result = shaped(w, result, node.spec.shape)
    changed = replace(graph, w, node.name, {Ref(ref=node.name): result})
    return Rewritten(changed, f"{operator(node)} of a matrix product is a product of sums")


def scaling_out_of_sum(graph: OpGraph, node: Node) -> Rewritten | Unfit | None:
    """sum(x c) = c sum(x), sum(x + b) = sum(x) + sum(b), where a product then meets the sum."""
    found = reduction_of(graph, node)
    if found is None:
        return None
    source, dims, _ = found
    inner = producer(graph, source)
    if operator(inner) not in ("mul", "div", "add", "sub") or inner is None:
        return None
    x, other = inner.args[0], inner.args[1]
    plain = isinstance(x, Ref) and not inner.kwargs and len(inner.args) == 2
    if not plain or not isinstance(x, Ref) or not _leads_to_product(graph, x):
        return None
    if not read_once(graph, source):
        return Unfit("what is summed is needed for something else too")
    if node.spec.dtype not in FLOATS or graph.spec_of(x) != graph.spec_of(source):
        return Unfit("the pointwise step changes shape or type")
    w = Writer(graph)
    shape, dtype = node.spec.shape, node.spec.dtype
    reduced = w.call(node.target, (x, *node.args[1:]), shape, dtype)
    summed = [graph.spec_of(x).shape[dim] for dim in dims]
    additive, is_sum = operator(inner) in ("add", "sub"), operator(node) == "sum"
    amount: Argument
    if isinstance(other, int | float) and not isinstance(other, bool):
        amount = other * prod(summed) if additive and is_sum else other
    elif isinstance(other, Ref) and additive:
        spec, rank = graph.spec_of(other), len(graph.spec_of(x).shape)
        along = dims[-1] == rank - 1 and spec.shape == (summed[-1],)
        if not along or spec.dtype != dtype:
            return Unfit("what is added does not lie along the summed dimension")
        factor = prod(summed[:-1]) if is_sum else 1.0 / summed[-1]
        amount = scaled(w, sum_over(w, other, [0], keep=False), factor)
    else:
        return Unfit("what scales the product is a tensor")
    result = w.call(inner.target, (reduced, amount), shape, dtype)
    changed = replace(graph, w, node.name, {Ref(ref=node.name): result})
    return Rewritten(changed, f"{operator(inner)} is done after the {operator(node)}")


def _leads_to_product(graph: OpGraph, ref: Ref) -> bool:
    """Whether a value is a product or convolution, but for scalings and offsets."""
    node = producer(graph, ref)
    while operator(node) in ("mul", "div", "add", "sub") and node is not None:
        node = producer(graph, node.args[0])
    return operator(node) in ("linear", "mm", "matmul", "bmm") or operator(node).startswith("conv")


_IDENTITY = {"sum", "mean", "amax", "amin", "prod", "logsumexp"}


def size_one_reduction(graph: OpGraph, node: Node) -> Rewritten | Unfit | None:
    """A reduction over one element is that element."""
    name = operator(node)
    if name not in _IDENTITY | {"max", "min"} or not isinstance(node.args[0], Ref):
        return None
    source = node.args[0]
    shape = graph.spec_of(source).shape
    dim = argument(node, 1, "dim")
    if isinstance(dim, Ref | str) or not shape:
        return None
    dims = range(len(shape)) if dim in (None, []) else (dim if isinstance(dim, list) else [dim])
    if any(shape[one] != 1 for one in dims):
        return None
    made = node.result[0] if isinstance(node.result, tuple) else node.result
    assert isinstance(made, TensorSpec)
    if made.dtype != graph.spec_of(source).dtype:
        return Unfit("the reduction changes the type")
    if isinstance(node.result, tuple) and _reads_index(graph, node, 1):
        return Unfit("the position of the largest element is needed too")
    w = Writer(graph)
    result = shaped(w, source, made.shape)
    index = 0 if isinstance(node.result, tuple) else None
    changed = replace(graph, w, node.name, {Ref(ref=node.name, index=index): result})
    return Rewritten(changed, f"{name} over a dimension of size 1 is the element itself")


def _reads_index(graph: OpGraph, node: Node, index: int) -> bool:
    wanted = Ref(ref=node.name, index=index)
    return wanted in graph.outputs or any(wanted in user.refs for user in graph.users[node.name])


def size_one_softmax(graph: OpGraph, node: Node) -> Rewritten | Unfit | None:
    """Softmax over one element is 1 (its logarithm 0), NaN where that is not finite: x - x + 1."""
    if operator(node) not in ("softmax", "log_softmax") or not isinstance(node.args[0], Ref):
        return None
    source, dim = node.args[0], node.args[1]
    spec = graph.spec_of(source)
    if not isinstance(dim, int) or not spec.shape or spec.shape[dim] != 1:
        return None
    if spec.dtype != node.spec.dtype:
        return Unfit("the softmax changes the type")
    w = Writer(graph)
    result = w.call("aten.sub.Tensor", (source, source), spec.shape, spec.dtype)
    if operator(node) == "softmax":
        result = w.call("aten.add.Tensor", (result, 1), spec.shape, spec.dtype)
    changed = replace(graph, w, node.name, {Ref(ref=node.name): result})
    return Rewritten(changed, f"{operator(node)} over a dimension of size 1 is a constant")


def neutral(graph: OpGraph, node: Node) -> Rewritten | Unfit | None:
    """X * 1, x / 1, x ** 1, x + 0, x - 0, where neither type nor shape changes."""
    name = operator(node)
    element = {"mul": 1, "div": 1, "pow": 1, "add": 0, "sub": 0}.get(name)
    if element is None or len(node.args) < 2 or node.kwargs.get("rounding_mode"):
        return None
    source, other = node.args[0], node.args[1]
    if not isinstance(source, Ref) or isinstance(other, bool | Ref) or other != element:
        return None
    if graph.spec_of(source).dtype != node.spec.dtype:
        return Unfit(f"{name} by {other} changes the type")
    changed = replace(graph, Writer(graph), node.name, {Ref(ref=node.name): source})
    return Rewritten(changed, f"{name} by {other} is nothing")


def inverse_views(graph: OpGraph, node: Node) -> Rewritten | Unfit | None:
    """A transpose of the same transpose, a permutation undone, a negation of a negation."""
    outer, inner = operator(node), producer(graph, node.args[0] if node.args else None)
    if (
        inner is None
        or outer != operator(inner)
        or outer not in ("t", "transpose", "permute", "neg")
    ):
        return None
    source = inner.args[0]
    assert isinstance(source, Ref)
    rank = len(node.spec.shape)
    if outer == "transpose":
        pairs = [sorted(int(str(d)) % rank for d in one.args[1:3]) for one in (node, inner)]
        undone = pairs[0] == pairs[1]
    elif outer == "permute":
        first, second = inner.args[1], node.args[1]
        assert isinstance(first, list)
        assert isinstance(second, list)
        undone = all(
            int(str(first[int(str(d)) % rank])) % rank == at for at, d in enumerate(second)
        )
    else:
        undone = True
    if not undone:
        return Unfit(f"the two calls of {outer} do not undo each other")
    changed = replace(graph, Writer(graph), node.name, {Ref(ref=node.name): source})
    return Rewritten(changed, f"{outer} of {outer} is nothing")


def scalar_chain(graph: OpGraph, node: Node) -> Rewritten | Unfit | None:
    """(x a) b = x (a b), with divisions as products by the inverse; (x + a) + b = x + (a + b)."""
    inner = producer(graph, node.args[0] if node.args else None)
    kinds = {"mul": "mul", "div": "mul", "add": "add", "sub": "add"}
    outer_kind, inner_kind = kinds.get(operator(node)), kinds.get(operator(inner))
    if outer_kind is None or outer_kind != inner_kind or inner is None:
        return None
    a, b = _factor(inner), _factor(node)
    source = inner.args[0]
    if a is None or b is None or not isinstance(source, Ref):
        return None
    if not graph.spec_of(source).dtype == inner.spec.dtype == node.spec.dtype in FLOATS:
        return Unfit("the constants change the type")
    if not read_once(graph, Ref(ref=inner.name)):
        return Unfit("the step between the constants is needed for something else too")
    folded = a * b if outer_kind == "mul" else a + b
    # Each step might have left the range of the type where the folded one does not, or the other
    # way round.
    if outer_kind == "mul" and not 1e-6 < abs(folded) < 1e6:
        return Unfit("the folded factor is of an extreme size")
    w = Writer(graph)
    target = f"aten.{outer_kind}.Tensor"
    result = w.call(target, (source, folded), node.spec.shape, node.spec.dtype)
    changed = replace(graph, w, node.name, {Ref(ref=node.name): result})
    return Rewritten(changed, f"two constants of {outer_kind} are one")


def _factor(node: Node) -> float | None:
    """What a call with a constant multiplies by or adds."""
    if len(node.args) != 2 or node.kwargs or isinstance(node.args[1], bool):
        return None
    number = node.args[1]
    if not isinstance(number, int | float) or (operator(node) == "div" and number == 0):
        return None
    return {"mul": number, "div": 1 / number if number else 0, "add": number, "sub": -number}[
        operator(node)
    ]


def repeated_call(graph: OpGraph, node: Node) -> Rewritten | Unfit | None:
    """A call made before with the same arguments.

    Tensors made of nothing stay apart: they cost nothing, and the library's LSTM dies of being
    given one as both of its states.
    """
    if node.kind != "call" or is_random(node) or node.result is None or not node.refs:
        return None
    # Whatever asks the same reads the same.
    for other in graph.users[node.refs[0].ref]:
        if other.name == node.name:
            return None
        if _asks_the_same(node, other) and not _rewrites_memory(node):
            many = len(node.result) if isinstance(node.result, tuple) else 0
            changed = {Ref(ref=node.name): Ref(ref=other.name)}
            changed |= {
                Ref(ref=node.name, index=n): Ref(ref=other.name, index=n) for n in range(many)
            }
            done = replace(graph, Writer(graph), node.name, changed)
            return Rewritten(done, f"{operator(node) or node.target} is not computed twice")
    return None


def _asks_the_same(one: Node, other: Node) -> bool:
    """Whether two calls make the same; 2, 2.0 and True are equal in Python, and 0.0 is -0.0."""
    return (
        one.target == other.target
        and one.args == other.args
        and one.result == other.result
        and repr((one.args, one.kwargs)) == repr((other.args, other.kwargs))
    )


def _rewrites_memory(node: Node) -> bool:
    return operator(node).endswith("_") or "empty" in node.target


def dead_code(graph: OpGraph, node: Node) -> Rewritten | Unfit | None:
    """Calls that nothing reads."""
    if node.target.startswith("aten._assert") or graph.users[node.name]:
        return None
    changed = without_dead(graph)
    if node.name in changed.by_name:
        return None
    return Rewritten(changed, f"{operator(node) or node.target} is read by nothing")
