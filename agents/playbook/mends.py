"""Which changes could mend a rejected kernel, likeliest first, by what the verdict says.

A mend makes the steps of a plan safer in one respect: a tunable of a pattern, or a precaution that
holds for the whole module. Mends are chosen by the kind of failure, the case it happened in, how
far off the result was and how much of it.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from knowledge.pattern import Parameter, Step, load_cards
from tools.verdict import (
    BuildFailed,
    Cheated,
    Compiled,
    ContractBroken,
    Correct,
    Crashed,
    Implausible,
    JudgeError,
    TimedOut,
    TimerMismatch,
    Verdict,
    WrongOutput,
)

Steps = tuple[Step, ...]

PRECAUTIONS = "precautions"
# How the judge begins its words where only another shape or layout failed.
OTHER_SHAPES = ("another batch size", "a batch of one", "another second dimension")
OTHER_LAYOUTS = ("not contiguous", "at an odd address")
# A miss of so many tolerances may be rounding; what is farther off is another result. By so few
# nothing misses but by rounding: what races or streams leave is some other number.
ROUNDING, NEAR = 200.0, 10.0
# Which convolutions stay our own where none is done by Winograd's products.
WITHOUT_WINOGRAD: dict[Parameter, Parameter] = {"winograd": "few", "all": "direct"}
# Tunables by which a loop is cut into tiles.
TILES = ("strip", "block_rows", "block_depth", "block_columns", "key_tiles", "panels", "split")
_WRONG = re.compile(r"(\d+) of (\d+) elements are wrong.*: (\S+) instead of (\S+)")


@dataclass(frozen=True)
class Mend:
    """A change of a plan's steps, and a sentence on what it rules out."""

    change: Callable[[Steps], Steps]
    sentence: str


def _set(parameter: str, value: Parameter) -> Callable[[Steps], Steps]:
    """Set a tunable of any step that has it."""

    def change(steps: Steps) -> Steps:
        return tuple(
            step.model_copy(update={"parameters": {**step.parameters, parameter: value}})
            if parameter in step.parameters
            else step
            for step in steps
        )

    return change


def _beware(precaution: str) -> Callable[[Steps], Steps]:
    """Take a precaution for the whole module, or for each of its parts."""

    def change(steps: Steps) -> Steps:
        changed: list[Step] = []
        for part in dict.fromkeys(step.part for step in steps):
            own = [step for step in steps if step.part == part]
            taken = {
                name: value
                for step in own
                if step.pattern == PRECAUTIONS
                for name, value in step.parameters.items()
            }
            taken[precaution] = True
            changed += [step for step in own if step.pattern != PRECAUTIONS]
            changed.append(Step(pattern=PRECAUTIONS, parameters=taken, part=part))
        return tuple(changed)

    return change


def _smaller_tiles(steps: Steps) -> Steps:
    """Each tile at the smallest that its pattern knows."""
    return tuple(
        step.model_copy(update={"parameters": {**step.parameters, **_least_tiles(step)}})
        for step in steps
    )


def _least_tiles(step: Step) -> dict[str, Parameter]:
    tunables = load_cards()[step.pattern].tunables if step.pattern in load_cards() else {}
    found: dict[str, Parameter] = {}
    for name in TILES:
        sizes = [size for size in tunables.get(name, ()) if isinstance(size, int)]
        if name in step.parameters and sizes:
            found[name] = min(sizes)
    return found


def _without_winograd(steps: Steps) -> Steps:
    """Convolutions as sums of products; those that were the library's to choose stay with it."""
    return tuple(
        step.model_copy(update={"parameters": {**step.parameters, "own": WITHOUT_WINOGRAD[own]}})
        if step.pattern == "channels_last"
        and (own := step.parameters.get("own", "winograd")) in WITHOUT_WINOGRAD
        else step
        for step in steps
    )


DIRECT = Mend(_without_winograd, "no Winograd products: their sums and differences lose low bits")
WIDER = Mend(_set("accumulate", "double"), "sums in double: the miss looks like lost low bits")
EXACT = Mend(_set("exp", "libm"), "the library's exp instead of the inline polynomial")
PLAIN_STORES = Mend(_set("streaming", False), "plain stores instead of streaming ones")
APART = Mend(_set("epilogue", False), "what follows the anchor in a loop of its own")
LIBRARY = Mend(_set("engine", "onednn"), "oneDNN's routine instead of our own product")
SPLIT = Mend(_set("precision", "tf32x3"), "products of three TF32 parts, as exact as float32")
IEEE = Mend(_set("precision", "ieee"), "products in float32 itself, without tensor cores")
TILES_DOWN = Mend(_smaller_tiles, "the smallest tiles: less stack, and other remainders")
PLAIN_MATH = Mend(
    _beware("plain_math"), "no fast math: IEEE arithmetic and the scalar library functions"
)
ONE_THREAD = Mend(_beware("one_thread"), "one thread: a race or a full stack is ruled out")
TRACED_SHAPES = Mend(_beware("traced_shapes"), "for the traced shapes alone: others are refused")
DENSE_INPUTS = Mend(_beware("dense_inputs"), "inputs copied to dense, aligned memory first")
FRESH_OUTPUTS = Mend(_beware("fresh_outputs"), "results handed over as copies of their own")


def mends_for(verdict: Verdict) -> tuple[Mend, ...]:
    """What to make safer after such a failure, likeliest cause first."""
    match verdict:
        case WrongOutput():
            return _for_wrong(verdict)
        case BuildFailed(log=log):
            # The vector forms of libm's functions are not on every machine.
            plain = (PLAIN_MATH,) if "_ZGV" in log else ()
            return (*plain, EXACT, PLAIN_STORES, APART, TILES_DOWN, LIBRARY)
        case Crashed(log=log):
            return (*_by_case(log), PLAIN_STORES, TILES_DOWN, ONE_THREAD, APART, LIBRARY)
        case TimedOut():
            return (TILES_DOWN, ONE_THREAD, LIBRARY, APART)
        case ContractBroken(detail=detail):
            writes = "writes to its input" in detail
            return (*_by_case(detail), DENSE_INPUTS if writes else FRESH_OUTPUTS)
        case Cheated(check=check):
            # What is right when it is checked and wrong when it is timed is most often a race.
            fresh = (FRESH_OUTPUTS,) if check in ("output reuse", "cached answer") else ()
            return (*fresh, ONE_THREAD, PLAIN_STORES)
        case TimerMismatch():
            # Streaming stores may still be on their way, and so may threads.
            return (PLAIN_STORES, ONE_THREAD)
        case Implausible() | Correct() | Compiled() | JudgeError():
            return ()
        case _:
            assert_never(verdict)


def _by_case(told: str) -> tuple[Mend, ...]:
    """What rules out the very case that failed, where only an unusual one did."""
    if told.startswith(OTHER_SHAPES):
        return (TRACED_SHAPES,)
    return (DENSE_INPUTS,) if told.startswith(OTHER_LAYOUTS) else ()


def _for_wrong(verdict: WrongOutput) -> tuple[Mend, ...]:
    if by_case := _by_case(verdict.detail):
        return by_case
    found = _WRONG.search(verdict.detail)
    if found is not None and _another_class(found[3], found[4]):
        # NaN and Inf: a polynomial or fast math that does not know them.
        return (EXACT, PLAIN_MATH, APART, PLAIN_STORES, TILES_DOWN, LIBRARY, ONE_THREAD)
    worst = verdict.cases[-1].worst if verdict.cases else 0.0
    if worst > ROUNDING:
        return (PLAIN_STORES, APART, TILES_DOWN, LIBRARY, ONE_THREAD, WIDER, EXACT, PLAIN_MATH)
    rounder = (DIRECT, WIDER, EXACT, SPLIT, IEEE, APART, LIBRARY, PLAIN_MATH, TILES_DOWN)
    return rounder if 0.0 < worst <= NEAR else (*rounder, PLAIN_STORES, ONE_THREAD)


def _another_class(got: str, wanted: str) -> bool:
    """Whether one of two printed numbers is a NaN or an Inf, and the other is something else."""
    try:
        one, other = float(got), float(wanted)
    except ValueError:
        return False
    return math.isfinite(one) != math.isfinite(other) or math.isnan(one) != math.isnan(other)
