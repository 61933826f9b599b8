"""Recipes for an op that has no graph as a whole: its parts are planned one by one.

By Amdahl's law: what a part gains counts with its share of the op's time; the rest of the op stays
as it is, in its own Python.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from agents.playbook.recipes import Recipe, enumerate_recipes, situation_of_calls, variants
from knowledge.emit_parts import emit_parts
from knowledge.parts import Part
from knowledge.pattern import Proposal, Refusal, Situation, Step, load_pattern
from knowledge.program import Program

# A part that gains less than this is left as it is: the call itself becomes a little slower.
WORTH_REPLACING = 1.1
# So many ways to make a part fast are tried beside the best.
ALTERNATIVES = 2


@dataclass(frozen=True)
class _Piece:
    """A part, what one call of it takes, and its recipes, the fastest first."""

    part: Part
    situation: Situation
    recipes: tuple[Recipe, ...]

    def saved_ms(self, recipe: Recipe) -> float:
        """What a recipe takes off the op's time."""
        return self.part.calls * (self.situation.best_ms - recipe.expected_ms)


@dataclass(frozen=True)
class Piecewise:
    """The parts of one op, with the op's source and what it takes in eager and at its best."""

    parts: tuple[Part, ...]
    source: str
    eager_ms: float
    situation: Situation

    def recipes(self) -> tuple[list[Recipe], list[Refusal]]:
        """All parts at their best, then with one of them made otherwise; and what was refused."""
        pieces, refused = [], []
        for part in self.parts:
            situation = self._situation(part)
            recipes, refusals = enumerate_recipes(part.graph, self.source, situation)
            worth = [one for one in recipes if one.speedup >= WORTH_REPLACING]
            if worth:
                worth.sort(key=lambda one: one.expected_ms)
                pieces.append(_Piece(part, situation, tuple(worth)))
            refused += [
                Refusal(pattern=one.pattern, reason=f"{part.name}: {one.reason}")
                for one in refusals
            ]
        if not pieces:
            return [], refused
        best = [piece.recipes[0] for piece in pieces]
        found = [self._together(pieces, best)]
        for at, piece in enumerate(pieces):
            for other in piece.recipes[1 : 1 + ALTERNATIVES]:
                found.append(self._together(pieces, [*best[:at], other, *best[at + 1 :]]))
        return found, refused

    def variants(self, parent: tuple[Step, ...]) -> list[Recipe]:
        """The parent's steps with a tunable of one of them changed."""
        taken = by_part(parent)
        found: list[Recipe] = []
        for part in self.parts:
            steps = taken.get(part.name)
            if steps is None:
                continue
            situation = self._situation(part)
            for near in variants(part.graph, self.source, situation, steps):
                saved = _Piece(part, situation, ()).saved_ms(near)
                changed = replace(self._tagged(part, near), best_ms=self.situation.best_ms)
                kept = [
                    Proposal(step=step, title=step.pattern, speedup=1.0, arithmetic="")
                    for step in parent
                    if step.part != part.name
                ]
                proposals = self._in_order((*kept, *changed.proposals))
                expected = max(self.eager_ms - saved, self.eager_ms * 0.01)
                found.append(Recipe(proposals, expected, self.situation.best_ms))
        return found

    def _in_order(self, proposals: Iterable[Proposal]) -> tuple[Proposal, ...]:
        places = {part.name: place for place, part in enumerate(self.parts)}
        return tuple(sorted(proposals, key=lambda one: places[one.step.part]))

    def _situation(self, part: Part) -> Situation:
        """The figures for one call of a part; the op's own calls are timed in eager."""
        one_ms = self.eager_ms * part.share / part.calls
        call_ms = situation_of_calls(part.graph, part.call_ms, one_ms)
        return self.situation.model_copy(update={"best_ms": one_ms, "call_ms": call_ms})

    def _together(self, pieces: list[_Piece], recipes: list[Recipe]) -> Recipe:
        saved = sum(p.saved_ms(one) for p, one in zip(pieces, recipes, strict=True))
        tagged = [self._tagged(p.part, one) for p, one in zip(pieces, recipes, strict=True)]
        proposals = tuple(proposal for one in tagged for proposal in one.proposals)
        # The rest of the op is never less than a hundredth of it.
        expected = max(self.eager_ms - saved, self.eager_ms * 0.01)
        return Recipe(proposals, expected, self.situation.best_ms)

    def _tagged(self, part: Part, recipe: Recipe) -> Recipe:
        """A part's recipe with the part's name in each step and title."""
        tagged = [
            one.model_copy(
                update={
                    "step": one.step.model_copy(update={"part": part.name}),
                    "title": f"{part.title}: {one.title}" if not at else one.title,
                    "arithmetic": f"{part.title}, {part.share:.0%} of the op: {one.arithmetic}"
                    if not at
                    else one.arithmetic,
                }
            )
            for at, one in enumerate(recipe.proposals)
        ]
        return replace(recipe, proposals=tuple(tagged))


def by_part(steps: Iterable[Step]) -> dict[str, tuple[Step, ...]]:
    """Steps by the part that they are for, as that part's own."""
    found: dict[str, tuple[Step, ...]] = {}
    for step in steps:
        own = step.model_copy(update={"part": ""})
        found[step.part] = (*found.get(step.part, ()), own)
    return found


def cook_parts(parts: tuple[Part, ...], source: str, steps: tuple[Step, ...]) -> str:
    """The source of the candidate that the steps lead to.

    Raises:
        ValueError: a step does not fit its part, or there is no such part.
    """
    by_name = {part.name: part for part in parts}
    made: list[tuple[Part, Program]] = []
    for name, own in by_part(steps).items():
        if name not in by_name:
            raise ValueError(f"the op has no part {name!r}")
        program = Program.of(by_name[name].graph, source)
        for step in own:
            program = load_pattern(step.pattern).apply(program, step)
        made.append((by_name[name], program))
    return emit_parts(source, made)
