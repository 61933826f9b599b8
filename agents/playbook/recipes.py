"""Recipes: every sequence of pattern steps that applies to an op, with what each should be worth.

Patterns compose in a fixed order: first change the algorithm, then fuse what is left, then place
the outputs.
"""

from dataclasses import dataclass

from agents.brief import Brief
from knowledge.emit import emit
from knowledge.opgraph import OpGraph
from knowledge.pattern import Proposal, Refusal, Situation, Step, load_cards, load_pattern
from knowledge.program import Program

ORDER = ("algebra", "row_loop", "output_pages")
VARIANTS_PER_PATTERN = 3


@dataclass(frozen=True)
class Recipe:
    """Steps that apply one after the other, and the product of what their proposals promise."""

    proposals: tuple[Proposal, ...]

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps alone: a recipe's identity."""
        return tuple(proposal.step for proposal in self.proposals)

    @property
    def speedup(self) -> float:
        """Expected over the fastest baseline."""
        product = 1.0
        for proposal in self.proposals:
            product *= proposal.speedup
        return product

    @property
    def title(self) -> str:
        """Its steps in words."""
        return "; ".join(proposal.title for proposal in self.proposals)

    @property
    def arithmetic(self) -> str:
        """How each step's gain was reckoned."""
        return " ".join(proposal.arithmetic for proposal in self.proposals)

    @property
    def labels(self) -> tuple[str, ...]:
        """What its steps assume."""
        return tuple(label for proposal in self.proposals for label in proposal.labels)


def situation_of(brief: Brief) -> Situation:
    """The figures that patterns reckon with, from what `prepare` measured."""
    best = brief.baselines.best.median_ms
    return Situation(
        best_ms=best if best is not None else brief.roofline.floor_ms,
        bandwidth_gbps=brief.roofline.bandwidth_gbps,
        peak_gflops=brief.roofline.peak_gflops,
        fault_us=brief.roofline.fault_us,
        cores=brief.device.cores,
        huge_pages=brief.task.pages == "huge",
    )


def pattern_order() -> tuple[str, ...]:
    """Known patterns in the order in which they compose; one not named here comes last."""
    names = load_cards()
    named = [name for name in ORDER if name in names]
    return (*named, *(name for name in names if name not in ORDER))


def enumerate_recipes(
    graph: OpGraph, source: str, situation: Situation
) -> tuple[list[Recipe], list[Refusal]]:
    """Every recipe for the op, most promising first, and the refusals of the op as it stands."""
    refusals: list[Refusal] = []
    open_recipes: list[tuple[Program, tuple[Proposal, ...]]] = [(Program.of(graph, source), ())]
    for name in pattern_order():
        pattern = load_pattern(name)
        for program, proposals in list(open_recipes):
            answer = pattern.propose(program, situation)
            if isinstance(answer, Refusal):
                if not proposals:
                    refusals.append(answer)
                continue
            open_recipes += [
                (pattern.apply(program, proposal.step), (*proposals, proposal))
                for proposal in answer[:VARIANTS_PER_PATTERN]
            ]
    recipes = [Recipe(proposals) for _, proposals in open_recipes if proposals]
    recipes.sort(key=lambda recipe: recipe.speedup, reverse=True)
    applied = {step.pattern for recipe in recipes for step in recipe.steps}
    return recipes, [refusal for refusal in refusals if refusal.pattern not in applied]


def cook(graph: OpGraph, source: str, steps: tuple[Step, ...]) -> str:
    """The source of the candidate that the steps lead to.

    Raises:
        ValueError: a step does not fit the op.
    """
    program = Program.of(graph, source)
    for step in steps:
        program = load_pattern(step.pattern).apply(program, step)
    return emit(program)
