"""A planner with a model behind it."""

from langchain_core.messages import AIMessage, BaseMessage

from agents.brief import Brief, Plan, Planning
from agents.llm import prompts, views
from agents.llm.replies import Malformed, PlanDraft, Plans, read_form
from agents.llm.talk import Refused, Talk
from agents.llm.tools import Toolbox
from agents.llm.turn import Turn
from knowledge.pattern import Refusal
from knowledge.store import Library
from tools.judge.combine import geomean
from tools.verdict import Compiled, Correct

REASON_LIMIT = 300


class ModelPlanner:
    """Plans by asking a model; what it can't make of the answer becomes a refusal, not an error."""

    def __init__(self, talk: Talk, library: Library) -> None:
        self._talk = talk
        self._library = library

    def plan(self, brief: Brief) -> Planning:
        """At most `width` plans of the model's; none where it gives none, or none that is readable.

        Raises:
            Spent: the budget does not allow the call.
            Unreachable: there is no answer after every retry.
        """
        parent = views.parent_of(brief)
        pages = views.pages_for(brief, self._library, views.query_of(brief))
        toolbox = Toolbox(
            brief,
            self._library,
            None,
            parent.candidate.source if parent else None,
            self._talk.model.tool_calls,
        )

        def read(dialogue: list[BaseMessage]) -> Plans:
            last = dialogue[-1]
            assert isinstance(last, AIMessage), "a conversation ends with the model's answer"
            plans = read_form(last, Plans)
            _check_parents(plans, brief)
            return plans

        try:
            answer = Turn(self._talk, toolbox).take(
                prompts.for_planner(brief, self._library, pages), read, Plans
            )
        except (Malformed, Refused) as error:
            return Planning(plans=(), refused=(_refusal(self._talk.model.id, str(error)),))
        first = len(brief.plans) + 1
        wanted = answer.plans[: min(brief.task.width, max(brief.trials_left, 1))]
        return Planning(
            plans=tuple(
                self._plan_of(draft, brief, pages, number)
                for number, draft in enumerate(wanted, first)
            ),
            refused=tuple(_refusal(one.idea, one.reason) for one in answer.refused),
        )

    def _plan_of(
        self, draft: PlanDraft, brief: Brief, pages: list[views.Page], number: int
    ) -> Plan:
        most = _most(brief)
        expected, arithmetic = min(draft.expected_speedup, most), draft.arithmetic.strip()
        if expected < draft.expected_speedup:
            shown = "more than can be" if brief.baselines.best else "which nothing here can show"
            arithmetic += f" (It promised {draft.expected_speedup:.3g}x, {shown}.)"
        cited = [page.citation for page in pages if page.number in draft.pages]
        return Plan(
            id=f"m{number}",
            title=_one_line(draft.title),
            steps=(),
            expected_speedup=expected,
            arithmetic=arithmetic,
            citations=tuple(cited),
            parent=draft.parent,
            maker=self._talk.model.id,
            instructions=draft.instructions.strip(),
            technique=_one_line(draft.technique).lower(),
        )


def _check_parents(plans: Plans, brief: Brief) -> None:
    """A parent must be right: what was rejected is the debugger's.

    Raises:
        Malformed: one is not.
    """
    right = {
        trial.number for trial in brief.trials if isinstance(trial.verdict, Correct | Compiled)
    }
    for draft in plans.plans:
        if draft.parent is not None and draft.parent not in right:
            known = ", ".join(map(str, sorted(right))) or "none, so parent must be null"
            raise Malformed(f"{draft.parent} is no trial that was right. Those are: {known}")


def _most(brief: Brief) -> float:
    """The largest speedup that the device allows, in the mean of all workloads; 1 without any."""
    # The arithmetic of the op as written may be rewritten away, its bytes may not.
    allowed = [
        max(1.0, best.median_ms / one.roofline.memory_ms)
        for one in brief.workloads or (brief,)
        if (best := one.baselines.best) is not None and best.median_ms is not None
    ]
    return geomean(allowed) if allowed else 1.0


def _refusal(idea: str, reason: str) -> Refusal:
    return Refusal(pattern=_one_line(idea)[:80], reason=_one_line(reason)[:REASON_LIMIT])


def _one_line(text: str) -> str:
    return " ".join(text.split())
