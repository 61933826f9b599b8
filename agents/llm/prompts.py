"""Prompts, rendered from `agents/prompts/*.md.j2`; a name that a template lacks is an error."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage

from agents.brief import Brief, Diagnosis, Plan
from agents.llm import views
from agents.llm.exchange import Role
from knowledge.store import Library
from tools.candidate import Candidate
from tools.task import language_of
from tools.told import told_to_agents
from tools.verdict import Trial

FOLDER = Path(__file__).parents[1] / "prompts"


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=False,
        # A run is told by the templates it began with, as it is led by the code it began with.
        auto_reload=False,
        # Markdown for a model, never a page for a browser.
        autoescape=False,
    )
    environment.filters["figure"] = views.figure
    return environment


ENVIRONMENT = _environment()


def render(role: Role, **values: Any) -> list[BaseMessage]:
    """A role's two messages: what always holds for it, and how things stand.

    Raises:
        jinja2.UndefinedError: the template names a value that was not given.
    """
    template = ENVIRONMENT.get_template(f"{role}.md.j2")
    system, state = (
        "".join(template.blocks[name](template.new_context(values))).strip()
        for name in ("system", "state")
    )
    return [SystemMessage(system), HumanMessage(state)]


def words(name: str, **values: Any) -> str:
    """A short text to a model, such as the request to answer once more."""
    return ENVIRONMENT.get_template(f"{name}.j2").render(**values).strip()


def common(brief: Brief) -> dict[str, Any]:
    """What every role is told."""
    task, facts = brief.task, brief.facts
    language = language_of(task, brief.device, "task")
    return {
        "language": language,
        "language_title": views.LANGUAGES[language],
        "precision": views.PRECISIONS[task.precision],
        "huge_pages": task.pages == "huge",
        "tool_calls": task.model_settings.tool_calls,
        "timed": brief.baselines.best is not None,
        "source": views.cut(facts.source, views.SOURCE_LIMIT),
        "graph": views.graph_text(brief),
        "inputs": views.tensor_lines(facts.inputs),
        "outputs": views.tensor_lines(facts.outputs),
        "cautions": facts.cautions,
        "device": views.device_lines(brief),
        "baselines": views.baseline_lines(brief),
        "noise": f"{brief.baselines.noise:.1%}",
        "roofline": views.roofline_lines(brief.roofline),
        "calls": views.call_lines(brief),
        "workloads": views.workload_lines(brief),
        "trials": views.trial_views(brief),
    }


def for_planner(brief: Brief, library: Library, pages: list[views.Page]) -> list[BaseMessage]:
    """What a planner is asked."""
    parent = views.parent_of(brief)
    return render(
        "planner",
        **common(brief),
        width=min(brief.task.width, brief.trials_left),
        trials_left=brief.trials_left,
        parent=parent.number if parent else None,
        parent_source=_source(parent.candidate) if parent else "",
        standing=views.standing_lines(brief, parent),
        parents=brief.parents,
        hints=brief.hints,
        earlier=views.earlier_lines(brief, library),
        pages=pages,
    )


def for_coder(brief: Brief, plan: Plan, pages: list[views.Page]) -> list[BaseMessage]:
    """What a coder is asked."""
    parent = views.parent_of(brief, plan)
    return render(
        "coder",
        **common(brief),
        **_plan(plan, pages),
        parent=parent.number if parent else None,
        parent_source=_source(parent.candidate) if parent else "",
        standing=views.standing_lines(brief, parent),
        pages=pages,
    )


def _plan(plan: Plan, pages: list[views.Page]) -> dict[str, Any]:
    shown = {page.citation.source for page in pages}
    return {
        "plan": plan,
        "steps": views.step_lines(plan),
        "leans_on": [one for one in plan.citations if one.source not in shown][: views.PAGES],
    }


def _source(candidate: Candidate) -> str:
    return views.cut(candidate.source, views.SOURCE_LIMIT * 3)


def for_debugger(
    brief: Brief, plan: Plan, trial: Trial, pages: list[views.Page]
) -> list[BaseMessage]:
    """What a debugger is asked."""
    return render(
        "debugger",
        **common(brief),
        **_plan(plan, pages),
        number=trial.number,
        rejected_source=_source(trial.candidate),
        verdict=told_to_agents(trial.verdict),
        pages=pages,
    )


def for_profiler(brief: Brief, trial: Trial, rules: Diagnosis) -> list[BaseMessage]:
    """What a profiler is asked; the rules' reading brings the figures."""
    notes = trial.profile.notes if trial.profile is not None else ()
    return render(
        "profiler",
        **common(brief),
        number=trial.number,
        kernel_source=_source(trial.candidate),
        verdict=told_to_agents(trial.verdict),
        evidence=rules.evidence,
        notes=notes,
    )
