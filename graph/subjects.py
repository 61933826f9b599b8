"""From the arguments of a tool to a task: which op, for which device, within which budget.

The descriptions here are what a model reads instead of a manual, over MCP and in LangChain alike.
"""

import ast
import json
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Protocol

from pydantic import BaseModel, Field

from graph.folder import write_whole
from knowledge.errors import BadInput
from tools.judge.source import parse_candidate
from tools.task import InputSpec, Task, parse_task

WHERE = "call"
REFERENCES = ".references"

Reference = Annotated[
    str,
    Field(
        description=(
            "The PyTorch op: Python source that defines `class Model(torch.nn.Module)`, "
            "`get_inputs()` (a list of example tensors) and `get_init_inputs()` (the constructor's "
            "arguments), or the path of such a file. Give this or `op`."
        )
    ),
]
Op = Annotated[
    str,
    Field(
        description="In place of `reference`: a function by its dotted name, such as "
        "torch.nn.functional.gelu; needs `inputs`."
    ),
]
Inputs = Annotated[
    list[InputSpec] | None,
    Field(description="With `op`: the tensors it is given, e.g. [{shape: [4096, 4096]}]."),
]
Arguments = Annotated[
    dict[str, Any] | None,
    Field(description="With `op`: further keyword arguments, e.g. {dim: -1}."),
]
CandidateSource = Annotated[
    str,
    Field(
        description=(
            "The kernel: Python source that defines `class ModelNew(torch.nn.Module)` with the "
            "constructor and forward of `Model`, or the path of such a file."
        )
    ),
]
Target = Annotated[
    str,
    Field(
        description=(
            "What the kernel is for: auto (this machine's GPU where there is one, else its CPU), "
            "cpu, cuda, or a device's name such as cuda:h200-sxm, which is compiled for and not "
            "timed where it is not here."
        )
    ),
]
Trials = Annotated[
    int | None, Field(ge=1, le=1000, description="Candidates that may be judged; default 12.")
]
Minutes = Annotated[
    float | None, Field(gt=0, description="Time for the work; default 15. Your own is not counted.")
]
Settings = Annotated[
    dict[str, Any] | None,
    Field(
        description=(
            "Further keys of a task file, e.g. {backend: cpp | triton | cuda, precision: strict | "
            "tf32 | half, strategy: greedy | beam | evolve, pages: machine | huge, "
            "budget.repairs: 3}."
        )
    ),
]
Resume = Annotated[
    str,
    Field(
        description="Go on with this run (its folder, or its id), which stopped; give nothing else."
    ),
]


class Place(Protocol):
    """Where a caller's files are."""

    @property
    def base(self) -> Path:
        """Where relative paths start."""

    @property
    def runs(self) -> Path:
        """The folder of all runs."""


def keep_reference(runs: Path, source: str) -> Path:
    """A reference that came as text, as a file that stays as long as the runs do."""
    folder = runs / REFERENCES
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"reference_{sha256(source.encode()).hexdigest()[:16]}.py"
    if not path.exists():
        write_whole(path, source)
    return path


class Subject(BaseModel):
    """What the tools that start from an op have in common."""

    reference: str = ""
    op: str = ""
    inputs: list[InputSpec] | None = None
    arguments: dict[str, Any] | None = None
    target: str = "auto"

    def task(
        self,
        place: Place,
        *,
        trials: int | None = None,
        minutes: float | None = None,
        settings: dict[str, Any] | None = None,
    ) -> Task:
        """The task, validated as a task file is.

        Raises:
            BadInput: it is none.
        """
        given = dict(settings or {})
        dotted = {key: given.pop(key) for key in tuple(given) if "." in key}
        caps = {"trials": trials, "minutes": minutes}
        raw: dict[str, Any] = {"name": self._name(), "target": self.target, **given}
        if any(value is not None for value in caps.values()):
            if not isinstance(given.get("budget") or {}, dict):
                mend = "Give its keys: {budget: {repairs: 3}}."
                raise BadInput("settings: budget", "is a section.", mend)
            chosen = {key: value for key, value in caps.items() if value is not None}
            raw["budget"] = {**(given.get("budget") or {}), **chosen}
        if self.reference:
            raw["reference"] = str(self._file(place))
        if self.op:
            raw["op"] = self.op
        # Beside a reference they are a mistake, which is told and not passed over.
        if self.inputs:
            raw["inputs"] = [one.model_dump(mode="json") for one in self.inputs]
        if self.arguments:
            raw["arguments"] = self.arguments
        overrides = tuple(f"{key}={json.dumps(value)}" for key, value in dotted.items())
        return parse_task(raw, WHERE, place.base, overrides)

    def _file(self, place: Place) -> Path:
        if is_source(self.reference):
            return keep_reference(place.runs.resolve(), self.reference)
        return Path(self.reference)

    def _name(self) -> str:
        if self.op:
            return self.op.rpartition(".")[2]
        return (
            "op"
            if is_source(self.reference) or not self.reference
            else Path(self.reference).stem or "op"
        )


def is_source(text: str) -> bool:
    """Whether a text is Python rather than a path: a path has one line and names no class."""
    return "\n" in text.strip() or text.lstrip().startswith(("class ", "import ", "from "))


def candidate_text(text: str, base: Path) -> str:
    """A candidate's source, checked as far as that costs nothing.

    Args:
        text: source, or a path.
        base: where a relative path starts.

    Raises:
        BadInput: it cannot be read, is not Python, or has no ModelNew.
    """
    where = "candidate"
    if not is_source(text):
        path = base / text
        where = str(path)
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, ValueError) as error:
            raise BadInput(
                where, "cannot be read.", "Give the source itself, or a path."
            ) from error
    if (failed := parse_candidate(text)) is not None:
        what = " ".join(failed.log.removeprefix("the candidate ").split())
        mend = "A candidate defines class ModelNew(torch.nn.Module)."
        raise BadInput(where, f"{what}.", mend)
    return text


def stated_name(source: str) -> str:
    """The first line of a module's docstring, for a candidate that was given no title."""
    words = ast.get_docstring(ast.parse(source)) or ""
    return words.strip().splitlines()[0][:200] if words.strip() else "a candidate"
