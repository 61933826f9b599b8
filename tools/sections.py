"""Sections of the task file: how far off a kernel may be, what a run may cost, who thinks in it.

Each is checked for itself; `tools/task.py` checks what has to fit together.
"""

from typing import Any, Self

from pydantic import ConfigDict, Field, model_validator

from tools.workload import Section

# In the place of a model's id: the crew of rules.
PLAYBOOK = "playbook"
ROLES = ("planner", "coder", "debugger", "profiler")


class Tolerance(Section):
    """How far from the float64 oracle an element may be; the architecture page says why so.

    An element passes if |y - y64| <= max(yardstick * |y_ref - y64|, epsilons * eps(dtype) * scale),
    in half precision with float32's epsilon, and no less than 2 of its own.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    yardstick: float = Field(4.0, gt=0, description="multiple of the reference's own worst error")
    epsilons: float = Field(
        32.0, gt=0, description="multiple of the dtype's epsilon, times the output's scale"
    )


class Budget(Section):
    """Hard caps for one run; the first one reached ends it with the best kernel so far."""

    model_config = ConfigDict(allow_inf_nan=False)

    trials: int = Field(12, ge=1, description="candidates that may be judged, repairs included")
    repairs: int = Field(3, ge=0, description="repairs of one attempt")
    minutes: float = Field(15.0, gt=0, description="wall time")
    device_seconds: float | None = Field(
        None, gt=0, description="time for which the judge has the device; null for no cap"
    )
    usd: float = Field(2.0, ge=0, description="money for models")
    tokens: int = Field(400_000, ge=0, description="tokens for models")


class Models(Section):
    """Who thinks in each role: `playbook`, or a model as LangChain names it, `provider:name`."""

    planner: str | None = Field(None, description="None: as `default`")
    coder: str | None = Field(None, description="None: as `default`")
    debugger: str | None = Field(None, description="None: as `default`")
    profiler: str | None = Field(None, description="None: as `default`")
    default: str = Field(PLAYBOOK, description="for the roles that are not named")

    def of(self, role: str) -> str:
        """Who thinks in a role."""
        named: str | None = getattr(self, role)
        return self.default if named is None else named

    @property
    def named(self) -> tuple[str, ...]:
        """Every model that has a role, once each, without the playbook."""
        found = dict.fromkeys(self.of(role) for role in ROLES)
        return tuple(model for model in found if model != PLAYBOOK)

    @model_validator(mode="after")
    def _well_formed(self) -> Self:
        for model in (*(self.of(role) for role in ROLES), self.default):
            provider, colon, name = model.partition(":")
            if model != PLAYBOOK and not (provider and colon and name):
                example = "openai:gpt-5 or ollama:qwen3"
                raise ValueError(f'"{model}" is neither "{PLAYBOOK}" nor a model like {example}')
        if self.of("planner") != PLAYBOOK and self.of("coder") == PLAYBOOK:
            raise ValueError("a model that plans needs a model as coder: rules can't read its plan")
        return self


class ModelSettings(Section):
    """How models are asked; `options` go to LangChain's chat model as they are."""

    model_config = ConfigDict(allow_inf_nan=False)

    temperature: float | None = Field(None, ge=0, description="None: the provider's own")
    max_tokens: int = Field(16_000, ge=1, description="of one answer, its reasoning included")
    timeout_s: float = Field(300.0, gt=0, description="for one answer")
    retries: int = Field(6, ge=0, description="of a call that met a limit or a broken line")
    tool_calls: int = Field(8, ge=0, description="in one turn; 0: the models get no tools")
    options: dict[str, Any] = Field({}, description="e.g. {reasoning_effort: high}")

    @model_validator(mode="after")
    def _no_secrets(self) -> Self:
        # The task is written into the run's folder, its report and its checkpoints.
        endings = ("key", "token", "secret", "password")
        if secret := [name for name in self.options if name.lower().endswith(endings)]:
            raise ValueError(f"{secret[0]} does not belong in a task; keys come from variables")
        return self
