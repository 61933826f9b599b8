"""The playbook's coder: applies a plan's steps to the traced op and prints the module."""

from agents.brief import Brief, Plan
from agents.playbook.piecewise import cook_parts
from agents.playbook.recipes import cook
from knowledge.emit import emit_as_given
from tools.candidate import Candidate

# What a reader of the op itself, handed over as a candidate, is told.
AS_GIVEN = "the reference's own operators, unchanged"


class PlaybookCoder:
    """Writes by instantiating patterns; it invents nothing."""

    def write(self, brief: Brief, plan: Plan) -> Candidate:
        """The candidate for `plan`.

        Raises:
            ValueError: the plan's steps do not fit the op.
        """
        facts = brief.facts
        if not plan.steps:
            return Candidate(
                source=emit_as_given(facts.source),
                backend="torch",
                labels=(AS_GIVEN, *plan.labels),
            )
        if facts.graph is None:
            source = cook_parts(facts.parts, facts.source, plan.steps)
        else:
            source = cook(facts.graph, facts.source, plan.steps)
        backend = "cpp" if "cpp_kernel(" in source else "torch"
        return Candidate(source=source, backend=backend, labels=plan.labels)
