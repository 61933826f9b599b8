"""A judged trial as it is remembered, and what many of them amount to: plain values, no file."""

from collections import Counter
from collections.abc import Iterable
from statistics import median

from pydantic import Field

from knowledge.experience.lesson import Lesson
from knowledge.opgraph import Frozen
from knowledge.pattern import Step

RIGHT = "correct"
# Say nothing against a candidate: the device was not here, or the judge's own machinery failed.
NO_VERDICT = ("compiled", "judge_error")


class Tried(Frozen):
    """One judged trial of a finished run; `run_id` and `trial` are its identity.

    Figures compare with the fastest baseline and are None where nothing was timed. Those of the
    trial that was handed over are from its confirmation.
    """

    run_id: str = Field(min_length=1)
    trial: int = Field(ge=1, le=2**63 - 1)
    fingerprint: str
    signature: str = Field(description="empty where the op could not be traced")
    device: str
    architecture: str = Field("", description="what kernels for the device are written for")
    title: str
    steps: tuple[Step, ...]
    verdict: str = Field(description="the verdict's kind, e.g. correct or wrong_output")
    speedup: float | None = Field(None, gt=0, allow_inf_nan=False)
    low: float | None = Field(None, gt=0, allow_inf_nan=False)
    high: float | None = Field(None, gt=0, allow_inf_nan=False)
    confirmed: bool = Field(False, description="measured again in a new process with new seeds")
    won: bool = Field(False, description="confirmed faster than every baseline, and handed over")
    bottleneck: str = Field("", description="what the diagnosis named, empty without one")
    roofline: float | None = Field(None, description="roofline time over measured time")
    mended: str = Field("", description="the verdict of the candidate that this one repairs")
    repair: str = Field("", description="what the repair changed")
    when: str = Field(description="ISO 8601, UTC")

    @property
    def recipe(self) -> tuple[str, ...]:
        """The patterns alone, without their tunables."""
        return tuple(step.pattern for step in self.steps)

    @property
    def right(self) -> bool:
        """Whether its outputs were right."""
        return self.verdict == RIGHT

    @property
    def rejected(self) -> bool:
        """Whether the judge found fault with it."""
        return self.verdict not in (RIGHT, *NO_VERDICT)

    @property
    def lesson(self) -> Lesson | None:
        """What it teaches; None unless it was confirmed, and of an op that could be traced."""
        if not (self.confirmed and self.signature):
            return None
        return Lesson(
            fingerprint=self.fingerprint,
            signature=self.signature,
            device=self.device,
            title=self.title,
            steps=self.steps,
            verdict="faster" if self.won else RIGHT,
            speedup=self.speedup,
            low=self.low,
            high=self.high,
            confirmed=True,
            run_id=self.run_id,
            when=self.when,
        )


class Tally(Frozen):
    """What a recipe gave in several runs: tunables are not told apart."""

    recipe: tuple[str, ...]
    runs: int = Field(description="in which it was tried")
    wins: int = Field(description="runs that it won")
    tries: int = Field(description="trials with a verdict on the kernel")
    failures: dict[str, int] = Field(description="rejected trials by the verdict's kind")
    best: float | None = Field(description="speedup of the best right and timed trial")
    median: float | None = Field(description="of all those")
    mends: dict[str, int] = Field(description="repairs after which it was right")

    @property
    def reliability(self) -> float:
        """The share of trials that were right, as far as so few can tell: 1 where none is known."""
        return (self.tries - sum(self.failures.values()) + 1) / (self.tries + 1)

    def words(self) -> str:
        """E.g. `won 3 of 4 runs (median 1.80x, best 2.10x), failed once (wrong_output)`."""
        told = f"won {self.wins} of {self.runs} run{'s' if self.runs > 1 else ''}"
        if self.best is not None and self.median is not None:
            told += f" (median {self.median:.2f}x, best {self.best:.2f}x)"
        failed = sum(self.failures.values())
        if failed:
            kinds = ", ".join(sorted(self.failures))
            told += f", failed {_times(failed)} in {self.tries} trials ({kinds})"
        for repair, count in sorted(self.mends.items()):
            told += f", mended {_times(count)} by: {repair}"
        return told


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def tallies(trials: Iterable[Tried]) -> dict[tuple[str, ...], Tally]:
    """One tally a recipe, in the order in which they were first tried."""
    by_recipe: dict[tuple[str, ...], list[Tried]] = {}
    for one in trials:
        by_recipe.setdefault(one.recipe, []).append(one)
    return {recipe: _tally(recipe, those) for recipe, those in by_recipe.items()}


def _tally(recipe: tuple[str, ...], trials: list[Tried]) -> Tally:
    speeds = [one.speedup for one in trials if one.right and one.speedup is not None]
    return Tally(
        recipe=recipe,
        runs=len({one.run_id for one in trials}),
        wins=len({one.run_id for one in trials if one.won}),
        tries=sum(one.right or one.rejected for one in trials),
        failures=dict(Counter(one.verdict for one in trials if one.rejected)),
        best=max(speeds, default=None),
        median=median(speeds) if speeds else None,
        mends=dict(Counter(one.repair for one in trials if one.right and one.repair)),
    )


class Mended(Frozen):
    """How often a repair was tried after a failure of one kind, and how often it was right then."""

    failure: str
    repair: str
    tries: int
    worked: int


def repairs(trials: Iterable[Tried]) -> list[Mended]:
    """Which repair worked on which kind of failure, those that worked most first."""
    tried: Counter[tuple[str, str]] = Counter()
    worked: Counter[tuple[str, str]] = Counter()
    for one in trials:
        if one.repair:
            tried[one.mended, one.repair] += 1
            worked[one.mended, one.repair] += one.right
    found = [
        Mended(failure=failure, repair=repair, tries=count, worked=worked[failure, repair])
        for (failure, repair), count in tried.items()
    ]
    return sorted(found, key=lambda one: (-one.worked, one.tries, one.failure, one.repair))
