"""The playbook's coder: applies a plan's steps to the traced op and prints the module."""

from agents.brief import Brief, Plan
from agents.playbook.piecewise import cook_parts
from agents.playbook.recipes import cook
from knowledge.emit import emit_as_given
from tools.candidate import Backend, Candidate
from tools.task import language_of

# What a reader of the op itself, handed over as a candidate, is told.
AS_GIVEN = "the reference's own operators, unchanged"
# By what a module shows that it has kernels of its own, and in which language.
MARKS: dict[Backend, str] = {
    "cpp": "cpp_kernel(", "triton": "@triton.jit", "cuda": "cuda_kernel("
}  # fmt: skip


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
            language = language_of(brief.task, brief.device, "task")
            source = cook(facts.graph, facts.source, plan.steps, language)
        return Candidate(source=source, backend=backend_of(source), labels=plan.labels)


def backend_of(source: str) -> Backend:
    """The language that does the work in a module, by its marks."""
    return next((one for one, mark in MARKS.items() if mark in source), "torch")
