"""The playbook's planner: ranks recipes by expected gain and cites its sources."""

import math

from agents.brief import Brief, Citation, Plan, Planning
from agents.playbook.assembly import assemble
from agents.playbook.hindsight import Hindsight, look_back, start_from
from agents.playbook.piecewise import Piecewise
from agents.playbook.recipes import Recipe, enumerate_recipes, situation_of, variants
from knowledge.experience import Lesson, signature
from knowledge.opgraph import OpGraph
from knowledge.pattern import Refusal, Situation, Step, load_cards
from knowledge.store import Library, Passage
from tools.verdict import Compiled, Correct, Timing, Trial

WORTH_TRYING = 1.02
# While nothing was measured, so bad an estimate is still worth a trial: it is an estimate.
WORTH_MEASURING = 0.3
# So many trials in a row without a gain, and the search is over.
PATIENCE = 4
# How far a broken promise counts against other recipes: half of it is the machine, which they
# share, half the recipe's own.
DISCOUNT = 0.5
CITED_WORDS = 60
NO_GRAPH = OpGraph(nodes=(), outputs=())
# What a reader of a kernel that is the op's own Python over faster parts is told.
PIECEWISE = "the op has no graph as a whole: forward is its own Python, its parts were made fast"


_Asked = tuple[str, Situation, Lesson | None]
_Answer = tuple[Recipe | None, list[Recipe], list[Refusal]]


class PlaybookPlanner:
    """Plans from the pattern library; asks `library` for pages and for what won on similar ops."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._answered: tuple[_Asked, _Answer] | None = None

    def plan(self, brief: Brief) -> Planning:
        """At most `width` recipes that were not tried yet, best first.

        It stops when the best recipe left promises less than the best one measured, or several
        in a row gained nothing. Of several workloads each may have been fastest in another trial:
        then a plan that puts those together goes first. Where nothing is right yet and no recipe
        is left, the op itself, unchanged, is the plan: so that a run always ends with a correct
        kernel.
        """
        if any(isinstance(trial.verdict, Compiled) for trial in brief.trials):
            # Which of several that compile is faster, only the device could tell.
            return Planning(plans=())
        own_parts = brief.facts.parts if brief.device.kind == "cpu" else ()
        if brief.facts.graph is None and not own_parts:
            return Planning(plans=self._last_resort(brief))
        hindsight = self._look_back(brief)
        first, enumerated, refused = self._recipes(hindsight, brief)
        others = [one for one in enumerated if first is None or one.steps != first.steps]
        recipes = others if first is None else [first, *others]
        ranked = [(_promise(recipe, hindsight, brief), recipe) for recipe in recipes]
        best = best_trial(brief)
        if best is not None and best.timing is not None:
            # Recipes promise what they gain on the leading workload, whose graph they are for.
            reached = _on_lead(best.timing)
            ranked = [pair for pair in ranked if pair[0] > reached * WORTH_TRYING]
            parent = next(plan.steps for plan in brief.plans if plan.id == best.plan)
            near = _variants(brief, parent)
            ranked += [(reached * _ratio(one, near), one) for one in near]
        else:
            ranked = [pair for pair in ranked if max(pair[0], pair[1].speedup) >= WORTH_MEASURING]

        def order(pair: tuple[float, Recipe]) -> tuple[int, float]:
            promise, recipe = pair
            likely = math.pow(hindsight.reliability(recipe), DISCOUNT)
            return hindsight.place(recipe, first), -promise * likely

        tried = [plan.steps for plan in brief.plans]
        wanted: list[Recipe] = []
        for _, recipe in sorted(ranked, key=order):
            if recipe.steps not in tried and not _gains_nothing_more(brief):
                wanted.append(recipe)
                tried.append(recipe.steps)
        number = len(brief.plans) + 1
        assembled = assemble(brief, f"p{number}")
        own = (assembled,) if assembled is not None else ()
        plans = own + tuple(
            self._plan_from(recipe, hindsight.account(recipe, first), brief, number + offset)
            for offset, recipe in enumerate(wanted[: brief.task.width - len(own)], start=len(own))
        )
        return Planning(plans=plans or self._last_resort(brief), refused=tuple(refused))

    def _look_back(self, brief: Brief) -> Hindsight:
        """What earlier runs tell; of an op without a graph nothing is remembered that fits."""
        if brief.facts.graph is None:
            return Hindsight(NO_GRAPH)
        return look_back(self._library, brief.facts.graph, brief.device)

    def _recipes(self, hindsight: Hindsight, brief: Brief) -> _Answer:
        """The recipe to start from, if any, and all others, with refusals.

        Those of last time for the same op and the same experience, as they take a while.
        """
        source, situation = brief.facts.source, situation_of(brief)
        asked = (source, situation, hindsight.winner)
        if self._answered is None or self._answered[0] != asked:
            if brief.facts.graph is None:
                answer: _Answer = None, *_piecewise(brief).recipes()
            else:
                first = start_from(hindsight, source, situation)
                answer = first, *enumerate_recipes(hindsight.graph, source, situation)
            self._answered = asked, answer
        return self._answered[1]

    def _last_resort(self, brief: Brief) -> tuple[Plan, ...]:
        identity_tried = any(not plan.steps for plan in brief.plans)
        if identity_tried or any(isinstance(trial.verdict, Correct) for trial in brief.trials):
            return ()
        why = brief.facts.untraceable or "no pattern applies, or none of those that do was right"
        plan = Plan(
            id=f"p{len(brief.plans) + 1}",
            title="the op as the library does it",
            steps=(),
            expected_speedup=1.0,
            arithmetic=f"Nothing is gained; the result is right. Why: {why}.",
        )
        return (plan,)

    def _plan_from(self, recipe: Recipe, account: str, brief: Brief, number: int) -> Plan:
        return Plan(
            id=f"p{number}",
            title=recipe.title,
            steps=recipe.steps,
            expected_speedup=recipe.speedup,
            arithmetic=f"{recipe.arithmetic} {account}".strip(),
            citations=self._cite(recipe, brief),
            labels=(*recipe.labels, *([PIECEWISE] if brief.facts.graph is None else [])),
        )

    def _cite(self, recipe: Recipe, brief: Brief) -> tuple[Citation, ...]:
        """Each step's own page, then those that speak most to this op and bottleneck."""
        cards = load_cards()
        graphs = [part.graph for part in brief.facts.parts]
        graphs += [brief.facts.graph] if brief.facts.graph is not None else []
        ops = " ".join(dict.fromkeys(" ".join(map(signature, graphs)).split()))
        found: list[Passage] = []
        for step in recipe.steps:
            found += self._library.search(
                f"{cards[step.pattern].title} {step.pattern}", 1, kind="pattern"
            )
        found += self._library.search(
            f"{ops} {brief.roofline.bound} bound on {brief.device.architecture}", 3
        )
        pages = {passage.source: passage for passage in reversed(found)}
        return tuple(_citation(passage) for passage in reversed(pages.values()))


def _piecewise(brief: Brief) -> Piecewise:
    eager = next(row.median_ms for row in brief.baselines.rows if row.name == "eager")
    situation = situation_of(brief)
    return Piecewise(brief.facts.parts, brief.facts.source, eager or situation.best_ms, situation)


def _variants(brief: Brief, parent: tuple[Step, ...]) -> list[Recipe]:
    if brief.facts.graph is None:
        return _piecewise(brief).variants(parent)
    return variants(brief.facts.graph, brief.facts.source, situation_of(brief), parent)


def best_trial(brief: Brief) -> Trial | None:
    """The trial with the best measured speedup over the strongest baseline so far."""
    timed = [(trial.speedup, trial) for trial in brief.trials if trial.speedup is not None]
    return max(timed, key=lambda pair: (pair[0], -pair[1].number))[1] if timed else None


def _gains_nothing_more(brief: Brief) -> bool:
    """Whether the latest trials, so many in a row, were no faster than what was there before."""
    speeds = [trial.speedup or 0.0 for trial in brief.trials]
    before, latest = speeds[:-PATIENCE], speeds[-PATIENCE:]
    # While nothing was right there is nothing to gain on: other recipes may be.
    return max(before, default=0.0) > 0.0 and max(latest) <= max(before) * WORTH_TRYING


def _promise(recipe: Recipe, hindsight: Hindsight, brief: Brief) -> float:
    """What experience promises, else the arithmetic.

    Where the arithmetic promised more of the best trial than was measured, it is taken to promise
    too much of the others as well.
    """
    known = hindsight.promise(recipe)
    if known is not None:
        return known
    best = best_trial(brief)
    if best is None or best.timing is None:
        return recipe.speedup
    expected = next(plan.expected_speedup for plan in brief.plans if plan.id == best.plan)
    return recipe.speedup * math.pow(min(1.0, _on_lead(best.timing) / expected), DISCOUNT)


def _on_lead(timing: Timing) -> float:
    """The speedup on the leading workload, over its fastest baseline."""
    return timing.lead.against_best.speedup


def _ratio(one: Recipe, near: list[Recipe]) -> float:
    """How much a variant promises beside the most promising one."""
    return min(other.expected_ms for other in near) / one.expected_ms


def _citation(passage: Passage) -> Citation:
    words = passage.text.split()
    text = " ".join(words[:CITED_WORDS]) + (" ..." if len(words) > CITED_WORDS else "")
    return Citation(source=passage.source, title=passage.title, passage=text, score=passage.score)
