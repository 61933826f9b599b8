"""What earlier runs tell about an op: what won on it or on ops like it, what failed, how often.

Only what was confirmed promises anything. Counts and rejections change the order in which recipes
are tried, and rule none of them out: patterns are mended between one run and the next.
"""

import math
from dataclasses import dataclass
from functools import cached_property

from agents.playbook.recipes import Recipe
from knowledge.device import Device
from knowledge.experience import ALIKE, Lesson, fingerprint, likeness, signature
from knowledge.experience.tried import Tally, Tried, tallies
from knowledge.loops.cost import Machine, program_ms
from knowledge.opgraph import OpGraph
from knowledge.pattern import Proposal, Refusal, Situation, Step, load_cards, load_pattern
from knowledge.program import Program
from knowledge.store import Library

# Lessons from ops whose signatures are nearest; more than there are recipes to try.
ASKED = 12


@dataclass(frozen=True)
class Hindsight:
    """Earlier runs on an op and its like.

    `lessons` are confirmed and from this device, `here` all trials on it, and `elsewhere` those on
    other devices of its architecture.
    """

    graph: OpGraph
    lessons: tuple[Lesson, ...] = ()
    here: tuple[Tried, ...] = ()
    elsewhere: tuple[Tried, ...] = ()

    @cached_property
    def own(self) -> str:
        """The op's fingerprint."""
        return fingerprint(self.graph)

    @cached_property
    def words(self) -> str:
        """The op's signature."""
        return signature(self.graph)

    @cached_property
    def tallies(self) -> dict[tuple[str, ...], Tally]:
        """What each recipe gave on such ops on this device."""
        return tallies(self.here)

    def of(self, steps: tuple[Step, ...]) -> Lesson | None:
        """What these steps gave on the op itself, else on one like it."""
        return next((one for one in self._ranked if one.steps == steps), None)

    def is_own(self, lesson: Lesson) -> bool:
        """Whether a lesson is about this very op."""
        return lesson.fingerprint == self.own

    @cached_property
    def _ranked(self) -> list[Lesson]:
        """Lessons with a figure, from the op itself first, then from the most alike."""
        known = [one for one in self.lessons if one.speedup is not None]
        alike = [one for one in known if self.is_own(one) or self._likeness(one) >= ALIKE]
        return sorted(alike, key=lambda one: (not self.is_own(one), -self._likeness(one)))

    def _likeness(self, lesson: Lesson) -> float:
        return likeness(self.words, lesson.signature)

    @cached_property
    def winner(self) -> Lesson | None:
        """The lesson to start from: it won on this op, else on the most alike; None if none did.

        Among ops as alike, the recipe that won most often leads. Where this op's own runs found
        nothing faster, that outweighs what won on others.
        """
        won = [one for one in self._ranked if one.steps and (one.low or 0.0) > 1.0]
        won = [one for one in won if self.is_own(one) or not self.fruitless]

        def worth(one: Lesson) -> tuple[bool, float, int, float]:
            # On the op itself the best figure counts; a like one's owes much to its sizes.
            own, tally = self.is_own(one), self.tallies.get(_patterns(one.steps))
            wins = tally.wins if tally is not None and not own else 0
            return own, self._likeness(one), wins, one.low or 0.0

        return max(won, key=worth, default=None)

    @cached_property
    def fruitless(self) -> frozenset[str]:
        """Runs on this very op that found right kernels, and none that stayed faster."""
        here = [one for one in self.here if one.fingerprint == self.own]
        won = {one.run_id for one in here if one.won}
        return frozenset() if won else frozenset(one.run_id for one in here if one.right)

    def was_rejected(self, steps: tuple[Step, ...]) -> bool:
        """Whether these steps, when last judged on this very op, were found at fault."""
        told = [one for one in self.here if one.fingerprint == self.own and one.steps == steps]
        verdicts = [one for one in told if one.right or one.rejected]
        return bool(verdicts) and verdicts[-1].rejected

    def promise(self, recipe: Recipe) -> float | None:
        """The speedup that experience promises; None where it knows nothing of these steps.

        That is what they gave on this op; on one like it, midway to what the arithmetic says.
        """
        known = self.of(recipe.steps)
        if known is not None and known.speedup is not None:
            if self.is_own(known):
                return known.speedup
            return math.sqrt(known.speedup * recipe.speedup)
        measured = [
            one.speedup
            for one in self.here
            if one.run_id in self.fruitless and one.steps == recipe.steps and one.speedup
        ]
        return min(max(measured), recipe.speedup) if measured else None

    def place(self, recipe: Recipe, first: Recipe | None) -> int:
        """Before or after others: 0 for the one to start from, 2 for what was rejected here."""
        if self.was_rejected(recipe.steps):
            return 2
        return 0 if first is not None and recipe.steps == first.steps else 1

    def reliability(self, recipe: Recipe) -> float:
        """How sure it is to be right, from its trials on such ops here: 1 where there are none."""
        tally = self.tallies.get(_patterns(recipe.steps))
        return 1.0 if tally is None else tally.reliability

    def account(self, recipe: Recipe, first: Recipe | None) -> str:
        """What there is to cite for a recipe, as sentences; empty where nothing is known."""
        told: list[str] = []
        known, how = self.of(recipe.steps), "the same steps"
        if known is None and self.place(recipe, first) == 0:
            known, how = self.winner, "these patterns, with tunables for that op,"
        if known is not None:
            told.append(
                f"Experience: {how} gave {known.speedup:.2f}x on {known.signature} "
                f"on this device in run {known.run_id}."
            )
        patterns = _patterns(recipe.steps)
        if tally := self.tallies.get(patterns):
            told.append(f"On such ops here this recipe {tally.words()}.")
        elif tally := tallies(self.elsewhere).get(patterns):
            told.append(f"On such ops on other devices of this kind it {tally.words()}.")
        if self.was_rejected(recipe.steps):
            told.append("These very steps were rejected on this op, so they come last.")
        if self.fruitless:
            told.append(
                f"Nothing was faster on this op in run {', '.join(sorted(self.fruitless))}."
            )
        return " ".join(told)


def look_back(library: Library, graph: OpGraph, device: Device) -> Hindsight:
    """What the library and its memory know about an op on a device."""
    ops, memory = signature(graph), library.memory
    here = tuple(memory.like(ops, device=device.name))
    there = memory.like(ops, architecture=device.architecture) if device.architecture else []
    # A lesson of the same signature is as near as can be, so the nearest few may miss this op's.
    known = [one.lesson for one in here if one.confirmed]
    lessons = [*library.lessons_like(ops, device.name, ASKED), *filter(None, known)]
    return Hindsight(
        graph=graph,
        lessons=tuple({lesson.key: lesson for lesson in lessons}.values()),
        here=here,
        elsewhere=tuple(one for one in there if one.device != device.name),
    )


def start_from(hindsight: Hindsight, source: str, situation: Situation) -> Recipe | None:
    """What won on this op before, or on the one most like it, as a recipe for this one."""
    lesson, graph = hindsight.winner, hindsight.graph
    if lesson is None:
        return None
    again = None
    if hindsight.is_own(lesson):
        again = transplant(graph, source, situation, lesson.steps, verbatim=True)
    return again or transplant(graph, source, situation, lesson.steps)


def transplant(
    graph: OpGraph,
    source: str,
    situation: Situation,
    steps: tuple[Step, ...],
    *,
    verbatim: bool = False,
) -> Recipe | None:
    """A recipe that won elsewhere, for this op: its patterns, and its tunables where they fit.

    A tunable is taken over where some proposal for this op has it at that value; `verbatim`, where
    it was found on this very op, takes them all. A pattern that refuses the op, or has no kernels
    in its language, is left out; None where all are, or a tunable does not fit.
    """
    machine = Machine.of(situation)
    program = Program.of(graph, source, situation.language)
    proposals: list[Proposal] = []
    for step in steps:
        card = load_cards().get(step.pattern)
        # What only mends is of the module, whatever its kernels are written in.
        if card is None or not (card.mends or program.backend in card.backends):
            continue
        pattern = load_pattern(step.pattern)
        answer = pattern.propose(program, situation)
        if verbatim and card.mends:
            # Without what mended it here, it would fail here again.
            answer = [Proposal(step=step, title=step.pattern, speedup=1.0, arithmetic="")]
        if isinstance(answer, Refusal):
            continue
        taken = _taken_over(answer, step)
        if verbatim:
            taken = taken.model_copy(update={"step": step})
        try:
            program = pattern.apply(program, taken.step)
        except ValueError:
            return None
        proposals.append(taken)
    if not proposals:
        return None
    return Recipe(tuple(proposals), program_ms(program, machine), situation.best_ms)


def _taken_over(answer: list[Proposal], step: Step) -> Proposal:
    """The proposal that is most like a step, with what else of it this op's proposals offer."""
    same = [one for one in answer if one.step == step]
    if same:
        return same[0]
    offered = {
        (name, value) for one in answer for name, value in one.step.parameters.items()
    } & set(step.parameters.items())
    nearest = max(answer, key=lambda one: len(offered & set(one.step.parameters.items())))
    parameters = nearest.step.parameters | {
        name: value for name, value in offered if name in nearest.step.parameters
    }
    return nearest.model_copy(
        update={"step": nearest.step.model_copy(update={"parameters": parameters})}
    )


def _patterns(steps: tuple[Step, ...]) -> tuple[str, ...]:
    return tuple(step.pattern for step in steps)
