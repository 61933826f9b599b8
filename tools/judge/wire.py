"""What the graph's and the judge's processes say to each other: one JSON document a line."""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from knowledge.opgraph import Frozen
from tools.candidate import Candidate
from tools.facts import Baselines, ReferenceFacts, Roofline
from tools.task import Task
from tools.verdict import BuildFailed, Profile, Verdict


class JudgeLimits(Frozen):
    """How long things may take; a call may take `call_s` or 50 times the reference."""

    call_s: float = Field(10.0, gt=0)
    first_call_s: float = Field(60.0, gt=0, description="the first call may compile")
    load_s: float = Field(60.0, gt=0, description="import and constructor")
    compile_s: float = Field(
        180.0, gt=0, description="torch.compile's first call, and each compiler run"
    )
    preparation_s: float = Field(
        6.0, gt=0, description="for references and oracles of all correctness cases"
    )
    timing_s: float = Field(4.0, gt=0, description="for the interleaved blocks of one measurement")


class Open(Frozen):
    """The first message: what is judged, within which limits."""

    op: Literal["open"] = "open"
    task: Task
    limits: JudgeLimits


class Examine(Frozen):
    """Ask for the reference's facts."""

    op: Literal["examine"] = "examine"


class Caution(Frozen):
    """Ask for the cautions alone, which need no graph and so come sooner than the facts."""

    op: Literal["caution"] = "caution"


class Survey(Frozen):
    """Ask for baselines and roofline."""

    op: Literal["survey"] = "survey"


class Build(Frozen):
    """Ask for a candidate to be compiled."""

    op: Literal["build"] = "build"
    candidate: Candidate


class Verify(Frozen):
    """Ask whether a candidate is right."""

    op: Literal["verify"] = "verify"
    candidate: Candidate


class Measure(Frozen):
    """Ask how fast a candidate is."""

    op: Literal["measure"] = "measure"
    candidate: Candidate
    against: tuple[str, ...]
    to_beat: float | None = None


class Profiling(Frozen):
    """Ask where a candidate's time goes."""

    op: Literal["profile"] = "profile"
    candidate: Candidate


class Confirm(Frozen):
    """Ask for an independent second judgement."""

    op: Literal["confirm"] = "confirm"
    candidate: Candidate


Request = Annotated[
    Open | Examine | Caution | Survey | Build | Verify | Measure | Profiling | Confirm,
    Field(discriminator="op"),
]


class Opened(Frozen):
    """The reference is loaded."""

    kind: Literal["opened"] = "opened"


class Examined(Frozen):
    """The reference's facts."""

    kind: Literal["examined"] = "examined"
    facts: ReferenceFacts


class Cautioned(Frozen):
    """The task's cautions."""

    kind: Literal["cautioned"] = "cautioned"
    cautions: tuple[str, ...]


class Surveyed(Frozen):
    """Baselines and roofline."""

    kind: Literal["surveyed"] = "surveyed"
    baselines: Baselines
    roofline: Roofline


class Built(Frozen):
    """None: it compiles."""

    kind: Literal["built"] = "built"
    failure: BuildFailed | None


class Judged(Frozen):
    """A verdict."""

    kind: Literal["judged"] = "judged"
    verdict: Verdict


class Profiled(Frozen):
    """A profile, None where nothing was measured."""

    kind: Literal["profiled"] = "profiled"
    profile: Profile | None


class Refused(Frozen):
    """The user's input is wrong: a `BadInput`, on its way to the process that prints it."""

    kind: Literal["refused"] = "refused"
    where: str
    what: str
    mend: str


Reply = Annotated[
    Opened | Examined | Cautioned | Surveyed | Built | Judged | Profiled | Refused,
    Field(discriminator="kind"),
]

REQUEST: TypeAdapter[Request] = TypeAdapter(Request)
REPLY: TypeAdapter[Reply] = TypeAdapter(Reply)
