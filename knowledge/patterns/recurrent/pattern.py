"""Runs recurrent nets in one kernel that holds its weights in cache over all time steps."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from knowledge.loops.cost import UNIT_OPERATIONS, Machine, net_efficiency, program_ms
from knowledge.opgraph import Node, OpGraph, Ref
from knowledge.pattern import Parameter, Proposal, Refusal, Situation, Step
from knowledge.patterns.recurrent.code import GATES, Net, source
from knowledge.program import Check, Kernel, Program, Size, Written, variable

NAME = "recurrent"
SPLITS = ("auto", "units", "rows")
# An order of preference only: notes.md says when which way should be the faster one.
SPLIT_PENALTY = 0.95


@dataclass(frozen=True)
class Anchor:
    """A recurrent call that the kernel takes, with its arguments by name.

    `states` are the initial states; None stands for one that is all zeros. `nodes` are the call
    itself and the zeros that nothing else reads.
    """

    node: Node
    x: Ref
    states: tuple[Ref | None, ...]
    weights: tuple[Ref, ...]
    has_bias: bool
    layers: int
    bidirectional: bool
    batch_first: bool
    nodes: tuple[str, ...]

    @property
    def cell(self) -> str:
        """`lstm`, `gru`, `rnn_tanh` or `rnn_relu`."""
        return self.node.target.split(".")[1]

    @property
    def directions(self) -> int:
        """2 where the sequence is read backwards too."""
        return 2 if self.bidirectional else 1


def propose(program: Program, situation: Situation) -> list[Proposal] | Refusal:
    """All recurrent calls in kernels of their own; then the other ways to split the work."""
    anchors, reasons = find_anchors(program)
    if not anchors:
        told = "; ".join(dict.fromkeys(reasons)) or "there is no recurrent call of the library"
        return Refusal(pattern=NAME, reason=f"No recurrent net can be taken over: {told}.")
    first: dict[str, Parameter] = {"split": "auto", "only": ""}
    made = apply(program, Step(pattern=NAME, parameters=first))
    machine = Machine.of(situation)
    before, after = program_ms(program, machine), program_ms(made, machine)
    kernels = made.kernels[len(program.kernels) :]
    arithmetic = (
        f"{sum(kernel.flops for kernel in kernels) / 1e9:.2f} GFLOP in products, at "
        f"{kernels[0].efficiency:.0%} of {situation.peak_gflops:.0f} GFLOP/s, with the weights "
        f"packed once for all time steps: {after:.3f} ms in all, {before:.3f} ms before, so "
        f"{before / after:.2f}x."
    )
    return [
        Proposal(
            step=Step(pattern=NAME, parameters={**first, "split": split}),
            title=f"{', '.join(a.cell for a in anchors)} in one kernel, split by {words}",
            speedup=before / after * factor,
            arithmetic=arithmetic,
        )
        for split, words, factor in (
            ("auto", "units or rows as sizes tell", 1.0),
            ("units", "units", SPLIT_PENALTY),
            ("rows", "rows of the batch", SPLIT_PENALTY),
        )
    ]


def apply(program: Program, step: Step) -> Program:
    """The program with its recurrent calls, or those named by `only`, in kernels.

    Raises:
        ValueError: there is none that can be taken, or `split` is unknown.
    """
    split = step.parameters.get("split", "auto")
    if split not in SPLITS:
        raise ValueError(f"recurrent: unknown split {split!r}; known: {', '.join(SPLITS)}")
    anchors = [a for a in find_anchors(program)[0] if not step.only or a.node.name in step.only]
    if not anchors:
        raise ValueError("recurrent: there is no recurrent call that it can take")
    kernels = tuple(make_kernel(program.graph, anchor, str(split)) for anchor in anchors)
    words = f"{', '.join(anchor.cell for anchor in anchors)} in one kernel over all time steps"
    return program.changed(kernels=(*program.kernels, *kernels), steps=(*program.steps, words))


def find_anchors(program: Program) -> tuple[list[Anchor], list[str]]:
    """The recurrent calls that can be taken, and why the others can't, a phrase each."""
    anchors: list[Anchor] = []
    reasons: list[str] = []
    for node in program.graph.calls:
        parts = node.target.split(".")
        if len(parts) != 3 or parts[1] not in GATES or node.name in program.kernel_of:
            continue
        found = _anchor(program, node)
        if isinstance(found, str):
            reasons.append(f"{node.name} {found}")
        else:
            anchors.append(found)
    return anchors, reasons


def _anchor(program: Program, node: Node) -> Anchor | str:
    """The call with its arguments by name, or what stands against it."""
    if not node.target.endswith(".input"):
        return "reads a packed sequence, whose rows have different lengths"
    x, states, weights, has_bias, layers, dropout, training, bidirectional, first = node.args
    assert isinstance(x, Ref)
    assert isinstance(weights, list)
    refs = tuple(ref for ref in weights if isinstance(ref, Ref))
    given = states if isinstance(states, list) else [states]
    initial = [ref for ref in given if isinstance(ref, Ref)]
    if program.graph.spec_of(x).dtype != "float32":
        return f"computes in {program.graph.spec_of(x).dtype}, and the kernel in float32 alone"
    if dropout and training and layers != 1:
        return "drops values between its layers at random, which only the library reproduces"
    if len(refs) != int(layers) * (2 if bidirectional else 1) * (4 if has_bias else 2):  # type: ignore[arg-type]
        return "projects its state (proj_size), which the kernel does not do"
    if 0 in program.graph.spec_of(x).shape:
        return "reads an empty tensor"
    zeros = [_zeros_behind(program, ref) for ref in initial]
    kept: list[Ref | None] = [
        None if chain is not None else ref for ref, chain in zip(initial, zeros, strict=True)
    ]
    absorbed = _only_read_here(program, node, {n for chain in zeros for n in chain or ()})
    return Anchor(
        node, x, tuple(kept), refs, bool(has_bias), int(layers),  # type: ignore[arg-type]
        bool(bidirectional), bool(first), (*absorbed, node.name),
    )  # fmt: skip


_SAME_VALUES = (
    "aten.to.", "aten._to_copy.", "aten.clone.", "aten.contiguous.", "aten.alias.",
    "aten.unsqueeze.", "aten.squeeze.", "aten.expand.", "aten.view.", "aten.reshape.",
    "aten.select.", "aten.slice.",
)  # fmt: skip
_ZEROS = ("aten.zeros.", "aten.new_zeros.", "aten.zeros_like.")


def _zeros_behind(program: Program, ref: Ref) -> tuple[str, ...] | None:
    """The calls behind a tensor that is all zeros by construction; None for any other."""
    chain: list[str] = []
    node = program.graph.by_name[ref.ref]
    while node.target.startswith(_SAME_VALUES) and node.refs:
        chain.append(node.name)
        node = program.graph.by_name[node.refs[0].ref]
    return (*chain, node.name) if node.target.startswith(_ZEROS) else None


def _only_read_here(program: Program, reader: Node, names: set[str]) -> tuple[str, ...]:
    """Those of the names that only `reader`, or another of them, reads."""
    returned = {ref.ref for ref in program.graph.outputs}
    kept = {name for name in names if name not in returned and name not in program.kernel_of}
    while True:
        inside = kept | {reader.name}
        fine = {n for n in kept if {u.name for u in program.graph.users[n]} <= inside}
        if fine == kept:
            return tuple(node.name for node in program.graph.calls if node.name in kept)
        kept = fine


def make_kernel(graph: OpGraph, anchor: Anchor, split: str) -> Kernel:
    """The kernel of one recurrent call; it writes those results alone that are used."""
    names = ("h0", "c0")[: len(anchor.states)]
    states = [(n, ref) for n, ref in zip(names, anchor.states, strict=True) if ref is not None]
    written = [(name, one) for name, one in _written(graph, anchor)]
    given = (*(name for name, _ in states), *(name for name, _ in written))
    net = Net(
        anchor.cell, anchor.layers, anchor.directions, anchor.has_bias, anchor.batch_first,
        given, split,
    )  # fmt: skip
    name = f"recurrent_{anchor.node.name}"
    reads = (anchor.x, *(ref for _, ref in states), *anchor.weights)
    writes = tuple(one for _, one in written)
    time, batch = _size_names(anchor)
    hidden = variable(anchor.weights[1])
    sizes = (
        Size(name="time", expression=time),
        Size(name="batch", expression=batch),
        Size(name="depth", expression=f"{variable(anchor.x)}.shape[2]"),
        Size(name="hidden", expression=f"{hidden}.shape[1]"),
    )
    steps, rows, _, units = _sizes(graph, anchor)
    return Kernel(
        name=name,
        source=source(net, name),
        signature="p" * (len(reads) + len(writes)) + "i" * len(sizes),
        nodes=anchor.nodes,
        reads=reads,
        writes=writes,
        sizes=sizes,
        checks=_checks(graph, anchor),
        note=_note(anchor),
        moved_bytes=sum(graph.spec_of(ref).nbytes for ref in reads)
        + sum(one.spec.nbytes for one in writes),
        operations=UNIT_OPERATIONS[anchor.cell]
        * (steps * rows * units * anchor.layers * anchor.directions),
        flops=_flops(graph, anchor),
        efficiency=net_efficiency(rows),
    )


def _note(anchor: Anchor) -> str:
    layers = f"{anchor.layers} layer{'s' if anchor.layers != 1 else ''}"
    return f"{anchor.cell}, {layers}, {'both directions' if anchor.bidirectional else 'forward'}"


def _written(graph: OpGraph, anchor: Anchor) -> Iterator[tuple[str, Written]]:
    """The call's results that something reads: output, h_n and, of an LSTM, c_n."""
    node = anchor.node
    refs = [ref for one in graph.nodes for ref in one.refs] + list(graph.outputs)
    used = {ref.index for ref in refs if ref.ref == node.name}
    used |= {
        int(text.partition("[")[2][:-1])
        for text in graph.mutations.values()
        if text.startswith(f"{node.name}[")
    }
    time, batch = _size_names(anchor)
    wide = _width(anchor)
    leading = f"{batch}, {time}" if anchor.batch_first else f"{time}, {batch}"
    state = f"{anchor.layers * anchor.directions}, {batch}, {variable(anchor.weights[1])}.shape[1]"
    assert isinstance(node.result, tuple)
    shapes = (
        ("output", f"({leading}, {wide})"),
        ("h_last", f"({state})"),
        ("c_last", f"({state})"),
    )
    for index, (spec, (name, shape)) in enumerate(zip(node.result, shapes, strict=False)):
        if index in used and spec is not None:
            yield name, Written(ref=Ref(ref=node.name, index=index), shape=shape, spec=spec)


def _width(anchor: Anchor) -> str:
    """Python for the width of a layer's output."""
    units = f"{variable(anchor.weights[1])}.shape[1]"
    return units if anchor.directions == 1 else f"{anchor.directions} * {units}"


def _size_names(anchor: Anchor) -> tuple[str, str]:
    """Python for the number of time steps and of rows in the batch."""
    x = variable(anchor.x)
    time, batch = (1, 0) if anchor.batch_first else (0, 1)
    return f"{x}.shape[{time}]", f"{x}.shape[{batch}]"


def _checks(graph: OpGraph, anchor: Anchor) -> tuple[Check, ...]:
    """That states and weights have the shapes which the input and the hidden size ask for.

    Parameters are as the reference's constructor makes them; of these, only the first is held
    against the input.
    """
    _, batch = _size_names(anchor)
    hidden = f"{variable(anchor.weights[1])}.shape[1]"
    depth = f"{variable(anchor.x)}.shape[2]"
    gates = GATES[anchor.cell]
    found: list[Check] = []

    def must(ref: Ref, shape: str) -> None:
        name = variable(ref)
        if graph.by_name[ref.ref].kind == "parameter" and ref != anchor.weights[0]:
            return
        sentence = f"{name} does not have the shape that the recurrent net asks for"
        found.append(Check(left=f"{name}.shape", right=f"torch.Size({shape})", sentence=sentence))

    for state in anchor.states:
        if state is not None:
            must(state, f"({anchor.layers * anchor.directions}, {batch}, {hidden})")
    each = 4 if anchor.has_bias else 2
    for start in range(0, len(anchor.weights), each):
        w_input, w_hidden, *biases = anchor.weights[start : start + each]
        inner = depth if start < each * anchor.directions else _width(anchor)
        must(w_input, f"({gates} * {hidden}, {inner})")
        must(w_hidden, f"({gates} * {hidden}, {hidden})")
        for bias in biases:
            must(bias, f"({gates} * {hidden},)")
    return tuple(dict.fromkeys(found))


def _sizes(graph: OpGraph, anchor: Anchor) -> tuple[int, int, int, int]:
    """Time steps, rows of the batch, width of the input, units: as traced."""
    first, second, depth = graph.spec_of(anchor.x).shape
    time, batch = (second, first) if anchor.batch_first else (first, second)
    return time, batch, depth, graph.spec_of(anchor.weights[1]).shape[1]


def _flops(graph: OpGraph, anchor: Anchor) -> int:
    time, batch, *_ = _sizes(graph, anchor)
    weights = [graph.spec_of(ref).shape for ref in anchor.weights]
    return 2 * time * batch * sum(prod(shape) for shape in weights if len(shape) == 2)
