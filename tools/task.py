"""The task file: what to make fast, on what, under which rules and budget.

Parsed from YAML into one immutable `Task`. A mistake in the file is a `BadInput` with one readable
line; nothing here loads the reference or touches torch.
"""

import contextlib
import difflib
from copy import deepcopy
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from knowledge.device import Device, resolve, torch_is_for_gpus
from knowledge.errors import BadInput
from tools.expression import is_dotted_name, read_expression
from tools.sections import PLAYBOOK, ROLES, Budget, Models, ModelSettings, Tolerance
from tools.workload import InputSpec, Section, Workload, named
from tools.workload_files import bring_workloads, check_definition, existing_file, source_at

__all__ = [
    "PLAYBOOK", "ROLES", "Budget", "InputSpec", "ModelSettings", "Models", "Part", "Section",
    "Task", "Tolerance", "Workload", "device_of", "language_of", "load_task", "parse_task",
]  # fmt: skip

# What a run can do without, so that what it is worth can be measured.
Part = Literal["library", "experience", "debugger", "profiler"]
SEE_EXAMPLES = "See examples/ for task files."
SUBJECTS = ("reference", "op", "module", "definition")
# Each is verified and timed for every trial.
MOST_WORKLOADS = 16


class Task(Section):
    """Everything a run needs to know, resolved: paths are absolute, defaults are filled in."""

    name: str = Field(min_length=1, description="a short name; part of the run folder's")
    reference: Path | None = Field(
        None, description="file with class Model, get_inputs(), get_init_inputs()"
    )
    op: str | None = Field(
        None, description="torch.nn.functional.gelu, or an expression: torch.softmax(x @ w, -1)"
    )
    module: str | None = Field(None, description="package.module:ClassName")
    definition: Path | None = Field(
        None, description="a definition in the flashinfer-bench schema, as a JSON file"
    )
    inputs: tuple[InputSpec, ...] = Field(
        (), description="for op and module: what forward is given, as a list or by name"
    )
    workloads: tuple[Workload, ...] = Field(
        (), description="sets of inputs, all verified and timed; the first leads the planning"
    )
    arguments: dict[str, Any] = Field(
        {}, description="for op: keyword arguments; for module: its constructor's"
    )
    target: str = Field("auto", description="auto, cpu, cuda, or a device name")
    backend: Literal["auto", "cpp", "triton", "cuda"] = Field(
        "auto", description="language of the kernel; auto: triton for a GPU, else cpp"
    )
    precision: Literal["strict", "tf32", "half"] = Field(
        "strict", description="strict keeps the reference's accuracy class"
    )
    tolerance: Tolerance = Tolerance()
    model: Models = Field(
        Models(), description="who thinks: playbook, provider:name, or a mapping by role"
    )
    crew: Literal["playbook", "hybrid", "model"] | None = Field(
        None, description="hybrid: the rules go first; None: hybrid whenever a model is named"
    )
    base_url: str | dict[str, str] | None = Field(
        None, description="the server of all models, or of each provider's by its name"
    )
    model_settings: ModelSettings = ModelSettings()
    prices: Path | None = Field(None, description="a TOML file with prices of your own")
    cache: bool = Field(False, description="use answers to the same question from earlier runs")
    strategy: Literal["greedy", "beam", "evolve"] = Field(
        "beam", description="which trials the next plans build on"
    )
    seed: int = Field(0, description="of what a strategy leaves to chance; evolve does")
    width: int = Field(2, ge=1, le=16, description="plans that are tried per round")
    pages: Literal["machine", "huge"] = Field(
        "machine", description="huge: judge, baselines and candidate all get huge pages from malloc"
    )
    autotune: bool | None = Field(
        None,
        description="hold kernels against torch.compile's max-autotune too, on a GPU also with CUDA"
        " graphs; None: on GPUs",
    )
    without: tuple[Part, ...] = Field(
        (), description="parts that are switched off, to see what they are worth"
    )
    licence: str = Field(
        "", description="of what is made fast, e.g. Apache-2.0; kept with data that is exported"
    )
    budget: Budget = Budget()

    @property
    def way_of_thinking(self) -> Literal["playbook", "hybrid", "model"]:
        """`crew`, or what it is where it was not given."""
        if self.crew is not None:
            return self.crew
        return "hybrid" if self.model.named else "playbook"

    @field_validator("model", mode="before")
    @classmethod
    def _one_for_all(cls, value: Any) -> Any:
        return {"default": value} if isinstance(value, str) else value

    @field_validator("without", mode="before")
    @classmethod
    def _one_part(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("base_url")
    @classmethod
    def _plain_address(cls, value: str | dict[str, str] | None) -> str | dict[str, str] | None:
        given = [value] if isinstance(value, str) else list((value or {}).values())
        for address in given:
            # What stands before an @ is a password, and the task is written into reports.
            if not address.startswith(("http://", "https://")) or "@" in address:
                raise ValueError(f'"{address}" is not an address like http://localhost:8000/v1')
        return value

    @model_validator(mode="after")
    def _models_for_crew(self) -> Self:
        if self.crew in ("hybrid", "model") and not self.model.named:
            raise ValueError(f"crew {self.crew} needs a model, e.g. model: openai:gpt-5")
        return self

    @field_validator("inputs", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return named(value)

    @model_validator(mode="after")
    def _one_subject(self) -> Self:
        given = [key for key in SUBJECTS if getattr(self, key) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise ValueError(f"give exactly one of {', '.join(SUBJECTS)} (found {found})")
        subject = given[0]
        if subject in ("reference", "definition"):
            self._check_brings_inputs(subject)
        else:
            self._check_takes_inputs(subject)
        if strange := [key for key in self.arguments if not key.isidentifier()]:
            raise ValueError(f'argument "{strange[0]}" is not a name')
        names = [workload.name for workload in self.workloads]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f'two workloads are called "{twice[0]}"; give each a name of its own')
        if len(names) > MOST_WORKLOADS:
            mend = "name those you want, e.g. workloads: {file: path.jsonl, only: [uuid, uuid]}"
            raise ValueError(f"{len(names)} workloads; at most {MOST_WORKLOADS} are judged: {mend}")
        return self

    def _check_brings_inputs(self, subject: str) -> None:
        """A file and a definition say themselves what forward is given."""
        if self.inputs or self.arguments:
            mend = "a reference brings get_inputs()"
            if subject == "definition":
                mend = "a definition brings its own, and workloads their values"
            raise ValueError(f"inputs and arguments belong to op and module; {mend}")
        for workload in self.workloads:
            if workload.inputs:
                raise ValueError(f"workload {workload.name}: inputs belong to op and module")
            if subject == "reference" and not workload.constants:
                raise ValueError(
                    f"workload {workload.name}: give values for the file's own constants, "
                    "e.g. {N: 4096}"
                )
            if subject == "definition" and workload.constants:
                key = next(iter(workload.constants))
                raise ValueError(
                    f"workload {workload.name}: {key} is not a key of a definition's workload; "
                    "it has axes and inputs"
                )

    def _check_takes_inputs(self, subject: str) -> None:
        """An operator and a module are told what forward is given, once or by every workload."""
        if self.inputs and self.workloads:
            raise ValueError("give inputs, or workloads that have inputs each, not both")
        sets = [(w.name, w.inputs) for w in self.workloads] or [("", self.inputs)]
        for name, inputs in sets:
            place = f"workload {name}: " if name else ""
            if not inputs:
                example = "inputs: [{shape: [4096, 4096], dtype: float32}]"
                raise ValueError(f"{place}{subject} needs inputs, e.g. {example}")
            if argument_names(inputs) != argument_names(sets[0][1]):
                told = ", ".join(argument_names(sets[0][1]))
                raise ValueError(f"{place}every workload has the inputs of the first: {told}")
        for workload in self.workloads:
            if strange := [*workload.constants, *workload.axes, *workload.given]:
                told = f"{strange[0]} is not a known key; it has name and inputs"
                raise ValueError(f"workload {workload.name}: {told}")
        names = argument_names(sets[0][1])
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f'two inputs are called "{twice[0]}"')
        if self.op is not None and not is_dotted_name(self.op, names):
            if self.arguments:
                raise ValueError("arguments go with a named op; write them into the expression")
            read_expression(self.op, names)

    def at(self, workload: Workload) -> "Task":
        """The same task with one of its workloads alone."""
        return self.model_copy(update={"workloads": (workload,)})


def subject_digest(task: Task) -> str:
    """SHA-256 of the file that says what is made fast: it may have been edited since.

    Empty where no file does, or where it can't be read, which whoever opens it says better.
    """
    file = task.reference or task.definition
    try:
        return sha256(file.read_bytes()).hexdigest() if file is not None else ""
    except OSError:
        return ""


def argument_names(inputs: tuple[InputSpec, ...]) -> tuple[str, ...]:
    """What forward calls its inputs."""
    return tuple(spec.name or f"input_{place}" for place, spec in enumerate(inputs))


def device_of(task: Task, where: str) -> Device:
    """What a task's kernels are for.

    `auto` is this machine's GPU, where it has one that is described and torch is built for one;
    else, and where kernels in C++ are asked for, the CPU.

    Raises:
        BadInput: its target is unknown, or is not here.
    """
    if task.target.strip().lower() == "auto" and task.backend != "cpp" and torch_is_for_gpus():
        with contextlib.suppress(BadInput):
            return resolve("cuda", where)
    return resolve(task.target, where)


def language_of(task: Task, device: Device, where: str) -> Literal["cpp", "triton", "cuda"]:
    """The language that kernels for this device are written in.

    Raises:
        BadInput: the task's backend is not one for this kind of device.
    """
    known: dict[str, tuple[Literal["cpp", "triton", "cuda"], ...]] = {
        "cpu": ("cpp",), "cuda": ("triton", "cuda"), "hip": (),
    }  # fmt: skip
    able = known[device.kind]
    if not able:
        raise BadInput(
            f"{where}: target",
            f"no backend prints kernels for {device.title}.",
            "Its page is a document; choose a CPU or an NVIDIA device.",
        )
    if task.backend == "auto":
        return able[0]
    if task.backend not in able:
        kind = "CPU" if device.kind == "cpu" else "GPU"
        raise BadInput(
            f"{where}: backend",
            f'"{task.backend}" is not for {device.title}, a {kind}.',
            f"Use {' or '.join(able)}, or another target.",
        )
    return task.backend


def load_task(path: Path, overrides: tuple[str, ...] = ()) -> Task:
    """Read a task file.

    Args:
        path: the YAML file; a relative path in it is looked up beside it.
        overrides: `key=value` or `section.key=value` texts that replace what the file says; a value
            is YAML.

    Raises:
        BadInput: no such file, not YAML, an unknown key, a value of the wrong kind, a missing
            reference.
    """
    where = str(path)
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        what = f"cannot be read ({error.strerror})."
        raise BadInput(where, what, "Give the path of a task file.") from error
    except (yaml.YAMLError, ValueError) as error:
        raise BadInput(where, f"is not YAML ({_one_line(error)}).", SEE_EXAMPLES) from error
    if not isinstance(raw, dict) or not all(isinstance(key, str) for key in raw):
        raise BadInput(where, "is not a task: it should hold keys and values.", SEE_EXAMPLES)
    return parse_task(raw, where, path.resolve().parent, overrides)


def parse_task(
    raw: dict[str, Any], where: str, folder: Path, overrides: tuple[str, ...] = ()
) -> Task:
    """Validate an already parsed task; a relative reference is looked up in `folder`.

    Raises:
        BadInput: as `load_task`.
    """
    raw = deepcopy({"name": Path(where).stem, **raw})
    for text in overrides:
        _override(raw, text)
    bring_workloads(raw, where, folder)
    try:
        task = Task.model_validate(raw)
    except ValidationError as error:
        raise _readable(error, where) from error
    found = {
        key: existing_file(folder, path, f"{where}: {key}")
        for key in ("reference", "definition", "prices")
        if (path := getattr(task, key)) is not None
    }
    task = task.model_copy(update=found)
    if task.definition is not None:
        check_definition(task.definition, task.workloads, where)
    if task.reference is not None:
        for workload in task.workloads:
            source_at(task.reference, workload, f"{where}: workloads")
    return task


def _override(raw: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise BadInput(f"--set {text}", "is not key=value.", "For example: --set budget.trials=4")
    *sections, last = key.split(".")
    for section in sections:
        inner = raw.setdefault(section, {})
        if not isinstance(inner, dict):
            raise BadInput(f"--set {text}", f"{section} is not a section of the task.")
        raw = inner
    try:
        raw[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise BadInput(f"--set {text}", f"the value is not YAML ({_one_line(error)}).") from error


def _readable(error: ValidationError, where: str) -> BadInput:
    """One complaint of pydantic, as one line that names the key and the nearest known one."""
    # A misspelt key is also a missing one: the misspelling is what the user can see.
    first = min(error.errors(), key=lambda complaint: complaint["type"] != "extra_forbidden")
    # A definition's inputs are kept apart from specs, under a name that is ours.
    path = ["inputs" if part == "given" else str(part) for part in first["loc"]]
    place = f"{where}: {'.'.join(path)}" if path else where
    if first["type"] == "extra_forbidden":
        known = _keys_of(path[:-1])
        near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
        mend = f'Did you mean "{near[0]}"?' if near else f"Known: {', '.join(known)}."
        return BadInput(place, "is not a known key.", mend)
    return BadInput(place, f"{first['msg'].removeprefix('Value error, ')}.".replace("..", "."))


def _keys_of(path: list[str]) -> list[str]:
    sections: dict[str, type[Section]] = {
        "budget": Budget, "tolerance": Tolerance, "inputs": InputSpec, "model": Models,
        "model_settings": ModelSettings, "workloads": Workload,
    }  # fmt: skip
    inner = next((sections[part] for part in reversed(path) if part in sections), Task)
    return sorted(inner.model_fields)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
