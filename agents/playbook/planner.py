"""The playbook's planner: ranks recipes by expected gain and cites its sources."""

from agents.brief import Brief, Citation, Plan, Planning
from agents.playbook.recipes import Recipe, enumerate_recipes, situation_of
from knowledge.experience import Lesson, signature
from knowledge.pattern import Step, load_cards
from knowledge.store import Library, Passage
from tools.verdict import Correct

WORTH_TRYING = 1.02
CITED_WORDS = 60


class PlaybookPlanner:
    """Plans from the pattern library; asks `library` for pages and for what won on similar ops."""

    def __init__(self, library: Library) -> None:
        self._library = library

    def plan(self, brief: Brief) -> Planning:
        """At most `width` recipes that were not tried yet, best first.

        It stops when the best recipe left promises less than the best one measured. Where nothing
        is right yet and no recipe is left, the op itself, unchanged, is the plan: so that a run
        always ends with a correct kernel.
        """
        graph = brief.facts.graph
        if graph is None:
            return Planning(plans=self._last_resort(brief))
        recipes, refused = enumerate_recipes(graph, brief.facts.source, situation_of(brief))
        tried = [plan.steps for plan in brief.plans]
        lessons = self._library.lessons_like(signature(graph), brief.device.name)
        open_recipes = [recipe for recipe in recipes if recipe.steps not in tried]
        open_recipes.sort(key=lambda recipe: _promise(recipe, lessons, brief), reverse=True)
        wanted = [recipe for recipe in open_recipes if self._worth_trying(recipe, lessons, brief)]
        plans = tuple(
            self._plan_from(recipe, lessons, brief, len(brief.plans) + offset)
            for offset, recipe in enumerate(wanted[: brief.task.width], start=1)
        )
        return Planning(plans=plans or self._last_resort(brief), refused=tuple(refused))

    def _worth_trying(self, recipe: Recipe, lessons: list[Lesson], brief: Brief) -> bool:
        best = best_speedup(brief)
        if best is None:
            return recipe.speedup >= WORTH_TRYING
        return _promise(recipe, lessons, brief) > best * WORTH_TRYING or _is_variant(recipe, brief)

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

    def _plan_from(self, recipe: Recipe, lessons: list[Lesson], brief: Brief, number: int) -> Plan:
        known = _lesson_for(recipe.steps, lessons)
        arithmetic = recipe.arithmetic
        if known is not None:
            arithmetic += (
                f" Experience: the same steps gave {known.speedup:.2f}x on {known.signature} "
                f"on this device in run {known.run_id}."
            )
        return Plan(
            id=f"p{number}",
            title=recipe.title,
            steps=recipe.steps,
            expected_speedup=recipe.speedup,
            arithmetic=arithmetic,
            citations=self._cite(recipe, brief),
            labels=recipe.labels,
        )

    def _cite(self, recipe: Recipe, brief: Brief) -> tuple[Citation, ...]:
        """Each step's own page, then those that speak most to this op and bottleneck."""
        cards = load_cards()
        assert brief.facts.graph is not None
        ops = signature(brief.facts.graph)
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


def best_speedup(brief: Brief) -> float | None:
    """The best measured speedup over the strongest baseline so far."""
    return max((t.speedup for t in brief.trials if t.speedup is not None), default=None)


def _promise(recipe: Recipe, lessons: list[Lesson], brief: Brief) -> float:
    """What it gave before on such an op, else what the arithmetic says."""
    known = _lesson_for(recipe.steps, lessons)
    if known is None or known.speedup is None:
        return recipe.speedup
    return known.speedup


def _lesson_for(steps: tuple[Step, ...], lessons: list[Lesson]) -> Lesson | None:
    same = (lesson for lesson in lessons if lesson.speedup is not None and lesson.steps == steps)
    return next(same, None)


def _is_variant(recipe: Recipe, brief: Brief) -> bool:
    """Whether it is the best parent with other tunables, whose gain can only be measured."""
    best = next((trial for trial in brief.trials if trial.number in brief.parents[:1]), None)
    if best is None:
        return False
    steps = next(plan.steps for plan in brief.plans if plan.id == best.plan)
    return [step.pattern for step in recipe.steps] == [step.pattern for step in steps]


def _citation(passage: Passage) -> Citation:
    words = passage.text.split()
    text = " ".join(words[:CITED_WORDS]) + (" ..." if len(words) > CITED_WORDS else "")
    return Citation(source=passage.source, title=passage.title, passage=text, score=passage.score)
