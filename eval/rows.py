"""What became of one problem: a row of the results, and how it is read from a process's end."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from eval.problem import Labels
from eval.process import Ended
from graph.record import BASELINE_PLAN, Status
from graph.report.words import duration
from knowledge.opgraph import Frozen
from tools.estimate import Scaled
from tools.facts import CONSTANT, is_blind

BAD_INPUT, INTERRUPTED = 2, 130
ENDED_WELL = (0, 3, 4)
# Reasons that lie in a model's provider or a machine, and say nothing of the problem.
OUTAGES = ("parked", "lost")
# Baselines, the first torch.compile and the confirmation come on top of a task's own budget.
SLACK_S = 300.0
ERROR_LIMIT = 2000


class _Read(BaseModel):
    """A part of what `graph.run --json` prints; newer keys are let through."""

    model_config = ConfigDict(frozen=True, extra="allow")


class Speedups(_Read):
    """Confirmed speedups; None where there was nothing to compare."""

    eager: float | None
    compile: float | None
    best_baseline: float | None
    interval: tuple[float, float] | None


class Against(_Read):
    """One baseline: its time beside the kernel's, and the paired speedup over it."""

    ms: float
    speedup: float


class Sample(_Read):
    """One kernel of somebody else's for a problem, and what the judge said of it."""

    file: str
    number: int
    verdict: str
    detail: str = ""
    speedup: float | None = None

    @property
    def correct(self) -> bool:
        """Whether the judge found nothing wrong with it."""
        return self.verdict == "correct"


class Document(_Read):
    """One run's result."""

    status: Status
    task: str
    device: str
    backend: str | None
    speedup: Speedups
    baselines: dict[str, Against] = Field({}, description="empty in older results")
    candidate_ms: float | None = None
    roofline_fraction: float | None
    trials: int
    seconds: float
    usage: dict[str, Any]
    best: str | None
    run_dir: str
    samples: tuple[Sample, ...] = Field((), description="of --candidates alone")
    cautions: tuple[str, ...] = Field((), description="where no report has them")

    @property
    def tokens(self) -> int:
        """What models took."""
        return int(self.usage.get("tokens", 0))

    @property
    def usd(self) -> float:
        """What that cost, as far as prices are known."""
        return float(self.usage.get("usd", 0.0))


class Finished(Frozen):
    """A problem whose run came to its end, whatever it found.

    `verdicts` counts the kernels of our own by what the judge said of them, `tried` has their
    titles in order (empty in older results). Where `scaled` names sizes, the problem was a smaller
    one than its author's.
    """

    kind: Literal["finished"] = "finished"
    name: str
    labels: Labels = Labels()
    seconds: float
    document: Document
    cautions: tuple[str, ...] = ()
    verdicts: dict[str, int] = Field({})
    tried: tuple[str, ...] = ()
    scaled: tuple[Scaled, ...] = ()

    @property
    def tokens(self) -> int:
        """What models took."""
        return self.document.tokens

    @property
    def usd(self) -> float:
        """What that cost, as far as prices are known."""
        return self.document.usd

    @property
    def is_canary(self) -> bool:
        """Whether the judge can't tell right from wrong here: some wrong kernel would pass."""
        return any(map(is_blind, self.cautions))

    @property
    def is_constant(self) -> bool:
        """Whether the output is the same for every input, so that there is nothing to compute."""
        return CONSTANT in self.cautions

    @property
    def sol(self) -> float | None:
        """The speed-of-light score, S = 1 / (1 + (T - T_sol) / (T_b - T_sol)); docs/eval.md.

        0.5 at the fastest baseline's time T_b, 1 at the bound T_sol. None where a time or the bound
        is not known, or the baseline is at the bound and leaves nothing to score.
        """
        fraction, mine = self.document.roofline_fraction, self.document.candidate_ms
        if fraction is None or mine is None or not self.document.baselines:
            return None
        bound = fraction * mine
        best = min(self.document.baselines.values(), key=lambda against: against.speedup)
        # By the paired speedup: the two times were not read in the same moments.
        baseline = best.speedup * mine
        if baseline <= bound:
            return None
        return 1.0 / (1.0 + (max(mine, bound) - bound) / (baseline - bound))


class Broken(Frozen):
    """A problem whose run did not come to its end, or that nobody had a kernel for.

    `parked` is a run that stopped where it can go on, since its model could not be reached or
    somebody interrupted it; `lost` is one whose machines died.
    """

    kind: Literal["broken"] = "broken"
    name: str
    labels: Labels = Labels()
    seconds: float
    reason: Literal[
        "bad_input",
        "crashed",
        "timed_out",
        "out_of_memory",
        "flooded",
        "no_candidate",
        "parked",
        "lost",
    ]
    error: str
    tokens: int = Field(0, description="what models took before it broke")
    usd: float = Field(0.0, description="what that cost, as far as prices are known")
    scaled: tuple[Scaled, ...] = ()


class Skipped(Frozen):
    """A problem that was not run because this machine can't hold it; it counts in no score."""

    kind: Literal["skipped"] = "skipped"
    name: str
    labels: Labels = Labels()
    seconds: float
    reason: Literal["too_large"] = "too_large"
    error: str


Row = Annotated[Finished | Broken | Skipped, Field(discriminator="kind")]
# Reads and writes a row that stands alone.
ROW: TypeAdapter[Row] = TypeAdapter(Row)


def is_outage(row: Row) -> bool:
    """Whether a row says nothing of its problem, which is to be run again."""
    return isinstance(row, Broken) and row.reason in OUTAGES


def row_from(name: str, ended: Ended) -> Row:
    """What a problem's process told, as a row; an answer that can't be read is a crash."""
    if ended.code is None:
        words = {
            "timed_out": f"stopped after {duration(ended.seconds)}",
            "out_of_memory": "stopped when it had taken all the memory that one problem may take",
            "flooded": "stopped when it had filled the disk with what it prints or writes",
        }
        reason = ended.stopped or "timed_out"
        error = f"{words[reason]}; last words: {_tail(ended.log)}"
        return Broken(name=name, seconds=ended.seconds, reason=reason, error=error)
    if ended.code == BAD_INPUT:
        return Broken(name=name, seconds=ended.seconds, reason="bad_input", error=_tail(ended.log))
    if ended.code == INTERRUPTED:
        return Broken(name=name, seconds=ended.seconds, reason="parked", error=_tail(ended.log))
    if ended.code in ENDED_WELL:
        try:
            document = Document.model_validate_json(ended.output)
        except ValidationError as error:
            complaint = f"exit {ended.code} without a readable document: {error.errors()[0]['msg']}"
            return Broken(name=name, seconds=ended.seconds, reason="crashed", error=complaint)
        report = _report(document)
        return Finished(
            name=name,
            seconds=ended.seconds,
            document=document,
            cautions=(*document.cautions, *report.get("facts", {}).get("cautions", ())),
            verdicts=_verdicts(document, report),
            tried=tuple(trial["title"] for trial in _own_trials(report)),
        )
    error_text = f"exit {ended.code}: {_tail(ended.log)}"
    return Broken(name=name, seconds=ended.seconds, reason="crashed", error=error_text)


def _tail(log: str) -> str:
    return log.strip()[-ERROR_LIMIT:]


def _report(document: Document) -> dict[str, Any]:
    """The run's own report; empty where it left none."""
    if not document.run_dir:
        return {}
    try:
        read = json.loads((Path(document.run_dir) / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}


def _own_trials(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [trial for trial in report.get("trials", ()) if trial["plan"] != BASELINE_PLAN]


def _verdicts(document: Document, report: dict[str, Any]) -> dict[str, int]:
    """How often the judge said what of kernels that are not a baseline in a kernel's place."""
    kinds = [sample.verdict for sample in document.samples]
    kinds += [trial["verdict"]["kind"] for trial in _own_trials(report)]
    return {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
