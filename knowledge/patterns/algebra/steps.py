"""One step of a recurrent net: a cell of the library, or the calls that were written by hand."""

from collections.abc import Iterator
from dataclasses import dataclass

from knowledge.opgraph import Node, OpGraph, Ref
from knowledge.patterns.algebra.affine import Affine, Matrix, Vector, affine_of
from knowledge.patterns.algebra.edit import argument, operator, producer
from knowledge.patterns.algebra.parts import Source, source_of

# The library's cells, the nets that they are steps of, and how many gates these have.
CELLS = {
    "gru_cell": ("gru", 3), "lstm_cell": ("lstm", 4),
    "rnn_tanh_cell": ("rnn_tanh", 1), "rnn_relu_cell": ("rnn_relu", 1),
}  # fmt: skip


@dataclass(frozen=True)
class Step:
    """What a step makes, and what its gates are applied to, in the library's order.

    `out` is its output and next hidden state; `state` and `made` an LSTM's cell state before and
    after. A GRU's last gate is of the input alone; `own`, of the hidden state alone, is what its
    reset gate scales there. `hidden` is the hidden state where the step itself tells it from the
    input.
    """

    net: str
    out: Ref
    gates: tuple[Affine, ...]
    own: Affine | None = None
    state: Ref | None = None
    made: Ref | None = None
    hidden: Source | None = None

    @property
    def sources(self) -> tuple[Source, ...]:
        """What its products are with: the input and the hidden state, in some order."""
        products = [one for gate in self.gates for one, _ in gate.products]
        products += [one for one, _ in self.own.products] if self.own is not None else []
        return tuple(dict.fromkeys(products))


@dataclass(frozen=True)
class Weights:
    """A step's matrices and offsets, gate by gate: for its input, and for its hidden state."""

    given: tuple[Matrix, ...]
    kept: tuple[Matrix, ...]
    given_offsets: tuple[Vector | None, ...]
    kept_offsets: tuple[Vector | None, ...]


def steps_of(graph: OpGraph) -> Iterator[Step]:
    """Every step of a graph, in execution order."""
    makers = {
        "tanh": _plain, "relu": _plain, "mul": _lstm, "add": _gru, **dict.fromkeys(CELLS, _cell)
    }  # fmt: skip
    for node in graph.calls:
        make = makers.get(operator(node))
        step = make(graph, node) if make is not None else None
        if step is not None:
            yield step


def weights_of(step: Step, hidden: Source) -> tuple[Source, Weights] | None:
    """A step's input and weights if `hidden` is its hidden state; None where it can't be."""
    others = [one for one in step.sources if one != hidden]
    if len(others) != 1 or len(step.sources) != 2 or step.hidden not in (None, hidden):
        return None
    (source,) = others
    counts = [len(gate.products) for gate in step.gates]
    if step.own is not None:
        counts[-1] += len(step.own.products)
    if set(counts) != {2}:
        return None
    kept_gates = (*step.gates[:-1], step.own) if step.own is not None else step.gates
    given = [gate.matrix(source) for gate in step.gates]
    kept = [gate.matrix(hidden) for gate in kept_gates]
    offsets = [_two(gate) for gate in step.gates]
    if step.own is not None:
        first, own = _two(step.gates[-1]), _two(step.own)
        if first is None or own is None or first[1] or own[1]:
            return None
        offsets[-1] = (first[0], own[0])
    if None in given or None in kept or None in offsets:
        return None
    pairs = [pair for pair in offsets if pair is not None]
    return source, Weights(
        tuple(one for one in given if one is not None),
        tuple(one for one in kept if one is not None),
        tuple(pair[0] for pair in pairs),
        tuple(pair[1] for pair in pairs),
    )


def _two(gate: Affine) -> tuple[Vector | None, Vector | None] | None:
    """A gate's offsets, of which there are two at most."""
    if len(gate.offsets) > 2:
        return None
    first, second = (*gate.offsets, None, None)[:2]
    return first, second


def _cell(graph: OpGraph, node: Node) -> Step | None:
    """A cell of the library."""
    net, count = CELLS[operator(node)]
    is_lstm = net == "lstm"
    states = node.args[1] if isinstance(node.args[1], list) else [node.args[1]]
    x, hidden, state = node.args[0], states[0], states[-1]
    w_given, w_kept = node.args[2:4]
    biases = [argument(node, 4, "b_ih"), argument(node, 5, "b_hh")]
    if not all(isinstance(one, Ref) for one in (x, hidden, state, w_given, w_kept)):
        return None
    assert isinstance(x, Ref)
    assert isinstance(hidden, Ref)
    assert isinstance(state, Ref)
    width = graph.spec_of(hidden).shape[-1]
    sides = [
        Affine(
            ((source_of(graph, source), _all_of(graph, weight)),),
            (Vector(bias, (0, count * width)),) if isinstance(bias, Ref) else (),
        )
        for source, weight, bias in ((x, w_given, biases[0]), (hidden, w_kept, biases[1]))
    ]
    runs = [(at * width, (at + 1) * width) for at in range(count)]
    gates = [(sides[0] + sides[1]).narrowed(*run) for run in runs]
    own = None
    if net == "gru":
        gates[-1], own = sides[0].narrowed(*runs[-1]), sides[1].narrowed(*runs[-1])
    return Step(
        net, Ref(ref=node.name, index=0 if is_lstm else None), tuple(gates), own,
        state if is_lstm else None, Ref(ref=node.name, index=1) if is_lstm else None,
        source_of(graph, hidden),
    )  # fmt: skip


def _all_of(graph: OpGraph, weight: object) -> Matrix:
    assert isinstance(weight, Ref)
    rows, columns = graph.spec_of(weight).shape
    return Matrix(weight, (0, rows), (0, columns))


def _plain(graph: OpGraph, node: Node) -> Step | None:
    """A tanh or relu of a sum of two products."""
    found = affine_of(graph, node.args[0]) if isinstance(node.args[0], Ref) else None
    if found is None or len(found.products) != 2:
        return None
    return Step(f"rnn_{operator(node)}", Ref(ref=node.name), (found,))


def _lstm(graph: OpGraph, node: Node) -> Step | None:
    """The step sigmoid(o) tanh(c'), where c' = sigmoid(f) c + sigmoid(i) tanh(g)."""
    for gate, cell in _factors(graph, Ref(ref=node.name)):
        out, after = _inside(graph, gate, "sigmoid"), _inside(graph, cell, "tanh")
        if out is None or after is None:
            continue
        for kept, entering in _terms(graph, after):
            for forget, state in _factors(graph, kept):
                for enter, new in _factors(graph, entering):
                    arguments = (
                        _inside(graph, enter, "sigmoid"), _inside(graph, forget, "sigmoid"),
                        _inside(graph, new, "tanh"), out,
                    )  # fmt: skip
                    gates = [affine_of(graph, one) for one in arguments if one is not None]
                    found = tuple(one for one in gates if one is not None)
                    if len(found) == len(arguments):
                        return Step(
                            "lstm", Ref(ref=node.name), found, state=state, made=after
                        )  # fmt: skip
    return None


def _gru(graph: OpGraph, node: Node) -> Step | None:
    """Either z h + (1 - z) n or n + z (h - n), with n = tanh(a + r b); z may stand for 1 - z."""
    for update, hidden, new, swapped in _mixed(graph, Ref(ref=node.name)):
        z, inside = _inside(graph, update, "sigmoid"), _inside(graph, new, "tanh")
        for given, scaled in _terms(graph, inside) if z is not None and inside is not None else ():
            for reset, kept in _factors(graph, scaled):
                r = _inside(graph, reset, "sigmoid")
                arguments = (r, z, given, kept)
                found = [affine_of(graph, one) for one in arguments if one is not None]
                gates = [one for one in found if one is not None]
                if len(gates) < len(arguments):
                    continue
                turned = gates[1].negated if swapped else gates[1]
                return Step(
                    "gru", Ref(ref=node.name), (gates[0], turned, gates[2]), gates[3],
                    hidden=source_of(graph, hidden),
                )  # fmt: skip
    return None


def _mixed(graph: OpGraph, ref: Ref) -> Iterator[tuple[Ref, Ref, Ref, bool]]:
    """The z, a and b in z a + (1 - z) b; with 1 - z for z where the last says so."""
    for one, other in _terms(graph, ref):
        for z, first in _factors(graph, one):
            for rest, second in _factors(graph, other):
                if _complement(graph, rest) == z:
                    yield z, first, second, False
                    yield z, second, first, True
            apart = producer(graph, first)
            if operator(apart) == "sub" and apart is not None and apart.args[1] == other:
                start = apart.args[0]
                if isinstance(start, Ref) and len(apart.args) == 2 and not apart.kwargs:
                    yield z, start, other, False
                    yield z, other, start, True


def _complement(graph: OpGraph, ref: Ref) -> Ref | None:
    """What a value is one minus of."""
    node = producer(graph, ref)
    if operator(node) != "rsub" or node is None or node.kwargs or len(node.args) != 2:
        return None
    source, one = node.args
    return source if isinstance(source, Ref) and one == 1 else None


def _inside(graph: OpGraph, ref: Ref, name: str) -> Ref | None:
    """What a value is a function of this name of."""
    node = producer(graph, ref)
    source = node.args[0] if node is not None and operator(node) == name else None
    return source if isinstance(source, Ref) else None


def _terms(graph: OpGraph, ref: Ref) -> Iterator[tuple[Ref, Ref]]:
    yield from _both(graph, ref, "add")


def _factors(graph: OpGraph, ref: Ref) -> Iterator[tuple[Ref, Ref]]:
    yield from _both(graph, ref, "mul")


def _both(graph: OpGraph, ref: Ref, name: str) -> Iterator[tuple[Ref, Ref]]:
    """The two operands of a sum or a product of one shape, in either order."""
    node = producer(graph, ref)
    if node is None or operator(node) != name or len(node.args) != 2 or node.kwargs:
        return
    one, other = node.args
    if isinstance(one, Ref) and isinstance(other, Ref):
        shapes = {graph.spec_of(one).shape, graph.spec_of(other).shape, node.spec.shape}
        if len(shapes) == 1:
            yield one, other
            yield other, one
