"""How a run is asked for over an API: a raw task, and settings that go over it.

Settings are LangGraph's context: an assistant holds some ("with a model", "quick"), and any task is
run under them. They are the task's own keys, none of them required. A task that came as JSON is
read here with the care, and the complaints, that one from a file gets.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from typing_extensions import TypedDict

from graph.state import RunInput, merged
from knowledge.errors import BadInput
from tools.task import Budget, Models, ModelSettings, Section, Task, parse_task

# In what an API is told, the place that a task file's name has in a complaint.
PLACE = "task"
SETTINGS = (
    "target", "backend", "precision", "pages", "crew", "base_url", "strategy", "width", "seed",
    "cache",
)  # fmt: skip
AS_THE_TASK = "left out: as the task says"


class RawInput(TypedDict, total=False):
    """`RunInput` as it came: JSON, or what a caller in this process made of it.

    `started` is there if the thread holds a run already.
    """

    task: Any
    run_dir: str
    approve: bool
    started: str


def _partial(name: str, section: type[Section], keys: tuple[str, ...], doc: str) -> type[BaseModel]:
    """Some keys of a section, none of them required; `parse_task` checks their values."""
    fields: dict[str, Any] = {}
    for key in keys:
        field = section.model_fields[key]
        described = "; ".join(filter(None, (field.description, AS_THE_TASK)))
        fields[key] = _optional(field.annotation, described)
    made: type[BaseModel] = create_model(
        name, __config__=ConfigDict(extra="forbid", frozen=True), __doc__=doc, **fields
    )
    return made


def _optional(annotation: Any, described: str) -> Any:
    """A field that may be left out, as pydantic's `create_model` takes it."""
    return (annotation | None, Field(None, description=described))


SomeBudget = _partial(
    "SomeBudget", Budget, tuple(Budget.model_fields), "Caps that go over the task's."
)
SomeModelSettings = _partial(
    "SomeModelSettings",
    ModelSettings,
    tuple(ModelSettings.model_fields),
    "How models are asked, over what the task says of it.",
)
Settings: type[BaseModel] = create_model(
    "Settings",
    __base__=_partial("SomeKeys", Task, SETTINGS, ""),
    __doc__="What goes over the task of a run: who thinks, on what, and within which caps.",
    model=_optional(str | Models, f"playbook, provider:name, or by role; {AS_THE_TASK}"),
    model_settings=_optional(SomeModelSettings, AS_THE_TASK),
    budget=_optional(SomeBudget, AS_THE_TASK),
)


def entry_of(given: Mapping[str, Any], context: Any = None) -> RunInput:
    """What a run is started with, read from what an API was given.

    Args:
        given: a `RawInput`. A relative path in its task is looked up from the server's folder.
        context: a `Settings`; anything else is of another graph, in which this one is mounted.

    Raises:
        BadInput: it is no task, or the settings don't fit it; one line says where and why.
    """
    task = given.get("task")
    raw = task.model_dump(mode="json", exclude_defaults=True) if isinstance(task, Task) else task
    if not isinstance(raw, Mapping):
        raise BadInput(
            PLACE,
            "is missing." if raw is None else "is not a task: it should hold keys and values.",
            'For example: {"task": {"name": "softmax", "reference": "examples/softmax.py"}}.',
        )
    parsed = parse_task(merged(raw, _keys_of(context)), PLACE, Path.cwd())
    try:
        return RunInput(
            task=parsed, run_dir=given.get("run_dir", ""), approve=given.get("approve", False)
        )
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise BadInput(f"input: {key}", f"{first['msg']}.") from error


def _keys_of(context: Any) -> dict[str, Any]:
    """The keys of the task that the settings give."""
    if isinstance(context, Settings):
        return context.model_dump(mode="json", exclude_none=True)
    return {}
