"""The playbook's coder: applies a plan's steps to the traced op and prints the module."""

from agents.brief import Brief, Plan
from agents.playbook.piecewise import cook_parts
from agents.playbook.recipes import cook
from knowledge.emit import emit_as_given
from knowledge.emit_dispatch import Variant, join
from knowledge.pattern import Step
from tools.candidate import Candidate, backend_of
from tools.facts import ReferenceFacts
from tools.task import language_of

# What a reader of the op itself, handed over as a candidate, is told.
AS_GIVEN = "the reference's own operators, unchanged"


class PlaybookCoder:
    """Writes by instantiating patterns; it invents nothing."""

    def write(self, brief: Brief, plan: Plan) -> Candidate:
        """The candidate for `plan`: one module, for all of the task's workloads.

        Raises:
            ValueError: the plan's steps do not fit the op.
        """
        labels = (*([] if plan.steps or plan.elsewhere else [AS_GIVEN]), *plan.labels)
        source = _cooked(brief, brief.facts, plan.steps)
        if brief.workloads:
            source = self._joined(brief, plan, source)
        return Candidate(source=source, backend=backend_of(source), labels=labels)

    def _joined(self, brief: Brief, plan: Plan, lead: str) -> str:
        """The leading workload's module with what the same steps make of the others.

        What they don't fit is left to the library there; where the modules can't be joined, the
        leading one serves all as far as it can.
        """
        first, *others = brief.workloads
        variants = [Variant(first.name, first.facts.inputs, lead)]
        for one in others:
            steps = plan.elsewhere.get(one.name, plan.steps)
            try:
                source = _cooked(brief, one.facts, steps)
            except ValueError:
                source = emit_as_given(one.facts.source)
            variants.append(Variant(one.name, one.facts.inputs, source))
        try:
            return join(variants)
        except ValueError:
            return lead


def _cooked(brief: Brief, facts: ReferenceFacts, steps: tuple[Step, ...]) -> str:
    if not steps:
        return emit_as_given(facts.source)
    if facts.graph is None:
        return cook_parts(facts.parts, facts.source, steps)
    return cook(facts.graph, facts.source, steps, language_of(brief.task, brief.device, "task"))
