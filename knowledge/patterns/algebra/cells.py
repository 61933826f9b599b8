"""Single steps of recurrent nets, call by call as the library makes them, so that gates fuse."""

from typing import Any

from knowledge.opgraph import Node, OpGraph, Ref
from knowledge.patterns.algebra.edit import Writer, argument, operator, replace
from knowledge.patterns.algebra.rewrites import FLOATS, Rewritten, Unfit
from knowledge.patterns.algebra.terms import plus, same_dtype

# A loop over many steps would be a graph of thousands of calls, which takes minutes to plan; 24
# steps of a GRU, 480 calls, take 3 s.
MOST = 24
TOO_MANY = Unfit(f"more than {MOST} steps would make too large a graph")


class _Gates:
    """Writes what a cell's gates are made of; all its tensors are (batch, hidden)."""

    def __init__(self, graph: OpGraph, node: Node, hidden: Ref) -> None:
        self.w = Writer(graph)
        self._node = node
        self._spec = graph.spec_of(hidden)

    def product(self, source: Any, weight: int, bias: int) -> Ref:
        """A linear layer of the cell: its weight and its bias are the call's arguments there."""
        matrix: Any = self._node.args[weight]
        offset: Any = argument(self._node, bias, "b_ih" if bias == 4 else "b_hh")
        shape = (self._spec.shape[0], self.w.spec(matrix).shape[0])
        given = (source, matrix, *([offset] if offset is not None else []))
        return self.w.call("aten.linear.default", given, shape, self._spec.dtype)

    def part(self, whole: Ref, number: int) -> Ref:
        """One gate's columns."""
        width = self._spec.shape[1]
        return self.w.sliced(whole, 1, number * width, (number + 1) * width)

    def apply(self, name: str, *operands: Ref) -> Ref:
        """A pointwise call."""
        target = f"aten.{name}.{'Tensor' if len(operands) > 1 else 'default'}"
        return self.w.call(target, operands, self._spec.shape, self._spec.dtype)


def _is_long(graph: OpGraph) -> bool:
    return sum(operator(one) in ("gru_cell", "lstm_cell") for one in graph.calls) > MOST


def gru_cell(graph: OpGraph, node: Node) -> Rewritten | Unfit | None:
    """A step of a GRU: two linear layers and their gates."""
    if operator(node) != "gru_cell":
        return None
    if _is_long(graph):
        return TOO_MANY
    hidden = node.args[1]
    assert isinstance(hidden, Ref)
    if node.spec.dtype not in FLOATS or not same_dtype(graph, *node.refs):
        return Unfit("the cell computes in several types")
    gates = _Gates(graph, node, hidden)
    given, kept = gates.product(node.args[0], 2, 4), gates.product(hidden, 3, 5)
    reset, update = (
        gates.apply("sigmoid", gates.apply("add", gates.part(kept, n), gates.part(given, n)))
        for n in (0, 1)
    )
    candidate = gates.apply("mul", gates.part(kept, 2), reset)
    new = gates.apply("tanh", gates.apply("add", gates.part(given, 2), candidate))
    result = gates.apply("mul", gates.apply("sub", hidden, new), update)
    result = plus(gates.w, result, new)
    changed = replace(graph, gates.w, node.name, {Ref(ref=node.name): result})
    return Rewritten(changed, "a GRU's step is two linear layers and its gates")


def lstm_cell(graph: OpGraph, node: Node) -> Rewritten | Unfit | None:
    """A step of an LSTM: two linear layers and their gates; it makes its output and its state."""
    if operator(node) != "lstm_cell" or not isinstance(node.args[1], list):
        return None
    if _is_long(graph):
        return TOO_MANY
    hidden, state = node.args[1]
    assert isinstance(hidden, Ref)
    assert isinstance(state, Ref)
    if graph.spec_of(state).dtype not in FLOATS or not same_dtype(graph, *node.refs):
        return Unfit("the cell computes in several types")
    gates = _Gates(graph, node, state)
    kept = gates.product(hidden, 3, 5)
    whole = plus(gates.w, kept, gates.product(node.args[0], 2, 4))
    enter, forget, out = (gates.apply("sigmoid", gates.part(whole, n)) for n in (0, 1, 3))
    new = gates.apply("tanh", gates.part(whole, 2))
    after = gates.apply("mul", forget, state)
    after = plus(gates.w, after, gates.apply("mul", enter, new))
    result = gates.apply("mul", out, gates.apply("tanh", after))
    made = {Ref(ref=node.name, index=0): result, Ref(ref=node.name, index=1): after}
    changed = replace(graph, gates.w, node.name, made)
    return Rewritten(changed, "an LSTM's step is two linear layers and its gates")
