"""Runs the image part of a network in channels-last memory."""

from knowledge.loops.cost import compared
from knowledge.opgraph import Node
from knowledge.pattern import Proposal, Refusal, Situation, Step
from knowledge.patterns.channels_last.moves import fold_kernel, move_kernel
from knowledge.patterns.channels_last.pools import pool_kernel
from knowledge.patterns.channels_last.rewrite import (
    FOLDED_NORM,
    POOL,
    TO_CHANNELS_LAST,
    TO_ROW_MAJOR,
    Rewriter,
    is_layer,
)
from knowledge.patterns.column_statistics.columns import STATISTICS
from knowledge.patterns.column_statistics.pattern import norm_kernel
from knowledge.program import Kernel, Program

NAME = "channels_last"


def propose(program: Program, situation: Situation) -> list[Proposal] | Refusal:
    """All convolutions of images, with what lies between them, in channels-last memory."""
    layers = _layers(program)
    if not layers:
        return Refusal(pattern=NAME, reason="The op has no float32 convolution of images.")
    step = Step(pattern=NAME, parameters={"only": ""})
    speedup, arithmetic = compared(program, apply(program, step), situation)
    return [Proposal(step=step, title=_words(len(layers)), speedup=speedup, arithmetic=arithmetic)]


def apply(program: Program, step: Step) -> Program:
    """The program with its image part rewritten.

    Raises:
        ValueError: there is no convolution of images, or a tunable is unknown.
    """
    if set(step.parameters) - {"only"}:
        raise ValueError(f"channels_last: unknown tunables {step.parameters}")
    names = [one for one in _layers(program) if not step.only or one in step.only]
    if not names:
        raise ValueError("channels_last: there is no convolution of images")
    rewriter = Rewriter(program.graph, frozenset(names))
    program = program.changed(graph=rewriter.run(), steps=(*program.steps, _words(len(names))))
    made = [_kernel(program, node, rewriter) for node in program.graph.calls]
    kernels = (one for one in made if one is not None)
    return program.changed(kernels=(*program.kernels, *kernels))


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


def _words(count: int) -> str:
    return f"{count} convolution{'s' if count != 1 else ''} in channels-last memory"
