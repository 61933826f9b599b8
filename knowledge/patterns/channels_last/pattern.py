"""Runs the image part of a network in channels-last memory."""

from knowledge.loops.cost import compared
from knowledge.opgraph import Node, OpGraph
from knowledge.pattern import Proposal, Refusal, Situation, Step
from knowledge.patterns.channels_last.layer import Layer, can_compute, layer_kernel, suits_winograd
from knowledge.patterns.channels_last.layouts import TO_CHANNELS_LAST, TO_ROW_MAJOR
from knowledge.patterns.channels_last.moves import fold_kernel, move_kernel
from knowledge.patterns.channels_last.pools import pool_kernel
from knowledge.patterns.channels_last.rewrite import FOLDED_NORM, LAYER, POOL, Rewriter, is_layer
from knowledge.patterns.column_statistics.columns import STATISTICS
from knowledge.patterns.column_statistics.pattern import norm_kernel
from knowledge.patterns.convolution.window import Call, read_call
from knowledge.program import Kernel, Program

NAME = "channels_last"
# Which layers are computed by kernels of our own. "few": those of few channels (a stem) or of one
# in each group, where the library fills no vectors; "winograd": these, and 3x3 ones by Winograd's
# algorithm; "all": all that can be; "direct": all, none by Winograd's; "none".
OWN = ("winograd", "all", "few", "direct", "none")
FEW_CHANNELS = 8


def propose(program: Program, situation: Situation) -> list[Proposal] | Refusal:
    """All convolutions of images, with what lies between them, in channels-last memory."""
    layers = _layers(program)
    if not layers:
        return Refusal(pattern=NAME, reason="The op has no float32 convolution of images.")
    found, seen = [], []
    for own in OWN:
        step = Step(pattern=NAME, parameters={"only": "", "own": own})
        names = _own(program.graph, layers, own)
        if names in seen:
            continue
        seen.append(names)
        speedup, arithmetic = compared(program, apply(program, step), situation)
        title = _words(len(layers), len(names))
        found.append(Proposal(step=step, title=title, speedup=speedup, arithmetic=arithmetic))
    return found


def apply(program: Program, step: Step) -> Program:
    """The program with its image part rewritten.

    Raises:
        ValueError: there is no convolution of images, or a tunable is unknown.
    """
    own = step.parameters.get("own", OWN[0])
    if set(step.parameters) - {"only", "own"} or own not in OWN:
        raise ValueError(f"channels_last: unknown tunables {step.parameters}")
    names = [one for one in _layers(program) if not step.only or one in step.only]
    if not names:
        raise ValueError("channels_last: there is no convolution of images")
    ours = _own(program.graph, names, str(own))
    rewriter = Rewriter(program.graph, frozenset(names), frozenset(ours))
    words = _words(len(names), len(ours))
    program = program.changed(graph=rewriter.run(), steps=(*program.steps, words))
    made = [_kernel(program, node, rewriter) for node in program.graph.calls]
    kernels = (one for one in made if one is not None)
    program = program.changed(kernels=(*program.kernels, *kernels))
    for node in program.graph.calls:
        if node.target == LAYER:
            layer = Layer(node, rewriter.windows[node.name], ours[node.name])
            kernel = layer_kernel(program, layer, f"{node.name}_kernel")
            program = program.changed(kernels=(*program.kernels, kernel))
    return program


def _own(graph: OpGraph, names: list[str], own: str) -> dict[str, bool]:
    """The layers that kernels of our own compute, and which of them by Winograd's algorithm."""
    found = {}
    for name in names:
        read = read_call(graph, graph.by_name[name])
        if own == "none" or not isinstance(read, Call) or not can_compute(read.window):
            continue
        winograd = own in ("winograd", "all") and suits_winograd(read.window)
        few = read.window.channels <= FEW_CHANNELS
        if winograd or few or own in ("all", "direct"):
            found[name] = winograd
    return found


def _kernel(program: Program, node: Node, rewriter: Rewriter) -> Kernel | None:
    """The kernel behind a call of our own making; None for a call that the library knows."""
    graph, name = program.graph, f"{node.name.strip('_')}_kernel"
    if node.name in program.kernel_of:
        return None
    if node.target in (TO_CHANNELS_LAST, TO_ROW_MAJOR):
        return move_kernel(graph, node, name)
    if node.target == FOLDED_NORM:
        return fold_kernel(graph, node, name, rewriter.folded[node.name])
    if node.target == POOL:
        return pool_kernel(graph, node, name, rewriter.pools[node.name])
    if node.target == STATISTICS and node.name in rewriter.norms:
        return norm_kernel(graph, rewriter.norms[node.name], node, 3)
    return None


def _layers(program: Program) -> list[str]:
    """Convolutions that no kernel computes yet; none where kernels read what would be rewritten."""
    if program.kernels:
        return []
    return [node.name for node in program.library_calls if is_layer(program.graph, node)]


def _words(count: int, own: int) -> str:
    told = f"{count} convolution{'s' if count != 1 else ''} in channels-last memory"
    return f"{told}, {own} by own kernels" if own else told
