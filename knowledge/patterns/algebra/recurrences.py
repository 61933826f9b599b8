"""A loop over time, traced step by step, as one call of the library's recurrent nets.

So that the products with all steps' inputs are one, and the pattern `recurrent` can take the rest.
"""

from dataclasses import dataclass

from knowledge.opgraph import Argument, OpGraph, Ref
from knowledge.patterns.algebra.affine import write_matrix, write_vector
from knowledge.patterns.algebra.edit import Writer, dense, replace
from knowledge.patterns.algebra.parts import (
    Part,
    Source,
    common_source,
    gathered,
    moved,
    selected,
    source_of,
)
from knowledge.patterns.algebra.rewrites import Rewritten
from knowledge.patterns.algebra.steps import Step, Weights, steps_of, weights_of

# Fewer steps are as quick one by one, each with its gates in a loop of its own.
LEAST = 4
FLOATS = ("float32", "float64")


@dataclass(frozen=True)
class _Chain:
    """Steps of which each starts from the state that the one before it made."""

    steps: tuple[Step, ...]
    inputs: tuple[Source, ...]
    start: Source
    weights: Weights

    @property
    def state(self) -> Ref | None:
        """The cell state that an LSTM starts from."""
        return self.steps[0].state


def recurrence(graph: OpGraph) -> Rewritten | None:
    """The first loop over time as one call, for all that it makes."""
    for chain in _chains(graph):
        changed = _as_net(graph, chain)
        if changed is not None:
            words = f"{len(chain.steps)} steps of a loop over time are one {chain.steps[0].net} net"
            return Rewritten(changed, words)
    return None


def _chains(graph: OpGraph) -> list[_Chain]:
    steps = list(steps_of(graph))
    makers: dict[Source, Step] = {step.out: step for step in steps}
    before: dict[Ref, Ref] = {}
    after: dict[Ref, list[Step]] = {}
    for step in steps:
        for hidden in step.sources:
            maker = makers.get(hidden)
            if maker is not None and _goes_on(maker, step, hidden):
                before[step.out] = maker.out
                after.setdefault(maker.out, []).append(step)
                break
    found = (_chain(step, after) for step in steps if step.out not in before)
    return [one for one in found if one is not None]


def _goes_on(maker: Step, step: Step, hidden: Source) -> bool:
    """Whether a step does the same as the one that made its hidden state."""
    if maker.net != step.net or maker.made != step.state:
        return False
    mine = weights_of(step, hidden)
    theirs = (weights_of(maker, one) for one in maker.sources)
    return mine is not None and any(one is not None and one[1] == mine[1] for one in theirs)


def _chain(first: Step, after: dict[Ref, list[Step]]) -> _Chain | None:
    """The steps from a first one on, as far as each has one that goes on."""
    steps = [first]
    while len(later := after.get(steps[-1].out, [])) == 1:
        steps += later
    if len(steps) < LEAST:
        return None
    known = weights_of(steps[-1], steps[-2].out)
    assert known is not None
    starts = _starts(steps[0], known[1])
    if not starts:
        return None
    hidden = [starts[0], *(step.out for step in steps[:-1])]
    read = [weights_of(step, one) for step, one in zip(steps, hidden, strict=True)]
    inputs = tuple(one[0] for one in read if one is not None and one[1] == known[1])
    if len(inputs) < len(steps):
        return None
    return _Chain(tuple(steps), inputs, hidden[0], known[1])


def _starts(step: Step, weights: Weights) -> list[Source]:
    """What may be the hidden state that a first step starts from."""
    found = ((one, weights_of(step, one)) for one in step.sources)
    return [one for one, made in found if made is not None and made[1] == weights]


def _shape(graph: OpGraph, source: Source) -> tuple[int, ...]:
    if isinstance(source, Ref):
        return graph.spec_of(source).shape
    shape = graph.spec_of(source.source).shape
    return (*shape[: source.dim], *shape[source.dim + 1 :])


def _dtype(graph: OpGraph, source: Source) -> str:
    return graph.spec_of(source if isinstance(source, Ref) else source.source).dtype


def _is_possible(graph: OpGraph, chain: _Chain) -> bool:
    """Whether shapes and types are a net's, and no input waits for what the steps make."""
    shape = graph.spec_of(chain.steps[0].out).shape
    matrices = [one.ref for one in (*chain.weights.given, *chain.weights.kept)]
    sources = [*chain.inputs, chain.start, *matrices]
    types = {_dtype(graph, one) for one in sources}
    shapes = {_shape(graph, one) for one in chain.inputs}
    if len(shape) != 2 or len(types) != 1 or not types <= set(FLOATS) or len(shapes) != 1:
        return False
    (given,) = shapes
    if len(given) != 2 or given[0] != shape[0] or len(set(chain.inputs)) == 1:
        return False
    return common_source(graph, chain.inputs) is not None or not _waits(graph, chain)


def _waits(graph: OpGraph, chain: _Chain) -> bool:
    """Whether an input is made of what an earlier step makes."""
    reached: set[str] = set()
    waiting = [name for step in chain.steps for name in _made(step)]
    while waiting:
        for user in graph.users[waiting.pop()]:
            if user.name not in reached:
                reached.add(user.name)
                waiting.append(user.name)
    sources = (one.source if isinstance(one, Part) else one for one in chain.inputs)
    return any(source.ref in reached for source in sources)


def _made(step: Step) -> tuple[str, ...]:
    return (step.out.ref,) if step.made is None else (step.out.ref, step.made.ref)


def _as_net(graph: OpGraph, chain: _Chain) -> OpGraph | None:
    """The graph with the steps as one call; None where that can't be."""
    if not _is_possible(graph, chain):
        return None
    changed, output = _rewritten(graph, chain, only_last=False)
    between = [step.made.ref for step in chain.steps[:-1] if step.made is not None]
    if any(name in changed.by_name for name in between):
        # Cell states are read between the steps, where the net does not give them out.
        return None
    readers = [user for user in changed.users[output.ref] if output in user.refs]
    if len(readers) == 1 and output not in changed.outputs:
        # The last state alone is read, which the net gives out too.
        changed, _ = _rewritten(graph, chain, only_last=True)
    return changed


def _rewritten(graph: OpGraph, chain: _Chain, only_last: bool) -> tuple[OpGraph, Ref]:
    """The graph with the net in the steps' place, and the outputs of all its steps there."""
    steps, net = chain.steps, chain.steps[0].net
    w = Writer(graph)
    x, time = gathered(w, chain.inputs)
    if time > 1:
        x, time = moved(w, x, time, 0), 0
    spec = graph.spec_of(steps[0].out)
    rows, units = spec.shape
    weights = _weights(w, chain.weights)
    states = [_layer_of(w, chain.start)]
    if chain.state is not None:
        states.append(_layer_of(w, source_of(graph, chain.state)))
    lengths = (rows, len(steps)) if time else (len(steps), rows)
    last = dense((1, rows, units), spec.dtype)
    results = (dense((*lengths, units), spec.dtype), *(last for _ in states))
    arguments: tuple[Argument, ...] = (
        x, [*states] if net == "lstm" else states[0], [*weights], len(weights) > 2,
        1, 0.0, False, False, bool(time),
    )  # fmt: skip
    made = w.several(f"aten.{net}.input", arguments, results)
    changed: dict[Ref, Ref] = {}
    for at, step in enumerate(steps):
        final = only_last and step is steps[-1]
        changed[step.out] = selected(w, made[1], 0, 0) if final else selected(w, made[0], time, at)
    if steps[-1].made is not None:
        changed[steps[-1].made] = selected(w, made[2], 0, 0)
    return replace(graph, w, steps[0].out.ref, changed), made[0]


def _layer_of(w: Writer, source: Source) -> Ref:
    """A state as that of a net of one layer."""
    ref = source if isinstance(source, Ref) else selected(w, source.source, source.dim, source.at)
    spec = w.spec(ref)
    return w.call("aten.unsqueeze.default", (ref, 0), (1, *spec.shape), spec.dtype)


def _weights(w: Writer, weights: Weights) -> list[Ref]:
    """The net's weights, and its biases if it has any."""
    found = [write_matrix(w, weights.given), write_matrix(w, weights.kept)]
    offsets = [one for one in (*weights.given_offsets, *weights.kept_offsets) if one is not None]
    if offsets:
        for side in (weights.given_offsets, weights.kept_offsets):
            found.append(write_vector(w, side, offsets[0]))
    return found
