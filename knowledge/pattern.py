"""What an optimization pattern is: a card that says when and why, and code that applies it.

A pattern is a folder in `knowledge/patterns/`: `card.toml`, `notes.md` (what a person or a model
reads, and what is indexed) and `pattern.py`, which defines `propose` and `apply`. Adding one
touches its folder and its test, nothing else.
"""

import importlib
import tomllib
from functools import cache
from pathlib import Path
from typing import Literal, Protocol, cast

from pydantic import Field, ValidationError

from knowledge.errors import BadInput
from knowledge.opgraph import Frozen
from knowledge.program import Backend, Program

PATTERNS = Path(__file__).parent / "patterns"

Parameter = bool | int | float | str


class Step(Frozen):
    """One application of a pattern, with the tunables chosen; a plan is a sequence of these.

    `part` names the part of an op that it is for, where the op as a whole has no graph.
    """

    pattern: str
    parameters: dict[str, Parameter] = Field({})
    part: str = ""

    @property
    def only(self) -> frozenset[str]:
        """The calls that the parameter `only` names, separated by commas; empty for all."""
        names = str(self.parameters.get("only", "")).split(",")
        return frozenset(name.strip() for name in names if name.strip())


class Situation(Frozen):
    """The measured figures by which a pattern estimates what it would gain here.

    `best_ms` is the fastest baseline; `fault_us` one minor page fault; `huge_pages` says that
    malloc already gives every process huge pages. `call_ms` is what a call takes in eager, by the
    line that `line_of` makes of it: a call that a rewrite changed is another call. `language` is
    that of new kernels. Where the device is not here, `best_ms` is reckoned, and no call is timed.
    `tensor_gflops` are the peaks of a GPU's tensor cores by their arithmetic: `tf32`, `bf16`,
    `fp16`. `product_share` is what torch's own products reach of the peak.
    """

    best_ms: float
    bandwidth_gbps: float
    peak_gflops: float
    fault_us: float
    cores: int
    huge_pages: bool
    call_ms: dict[str, float] = Field({})
    language: Backend = "cpp"
    tensor_gflops: dict[str, float] = Field({})
    product_share: float = 1.0


class Proposal(Frozen):
    """A step that would apply, what it should be worth, and the arithmetic a reader can check.

    `speedup` is over the program it was proposed for. `labels` state assumptions that go onto the
    candidate.
    """

    step: Step
    title: str
    speedup: float
    arithmetic: str
    labels: tuple[str, ...] = ()


class Refusal(Frozen):
    """Why a pattern does not apply, as one plain sentence for the report."""

    pattern: str
    reason: str


class Card(Frozen):
    """`card.toml`: what the pattern is for, in the words that the report prints."""

    name: str
    title: str
    precondition: str
    effect: str = Field(description="what it gains and the arithmetic behind it")
    bottleneck: Literal["memory", "compute", "latency", "pages"]
    backends: tuple[str, ...]
    tunables: dict[str, tuple[Parameter, ...]] = Field({})
    mends: bool = Field(False, description="for the debugger alone: it gains nothing")
    sources: tuple[str, ...] = ()


class Pattern(Protocol):
    """What `pattern.py` in a pattern's folder defines: two pure functions."""

    def propose(self, program: Program, situation: Situation) -> list[Proposal] | Refusal:
        """The ways it could be applied to `program`, best first, or why it can't be."""

    def apply(self, program: Program, step: Step) -> Program:
        """The program with the step applied.

        Raises:
            ValueError: the step's parameters do not fit the program.
        """


@cache
def load_cards(folder: Path = PATTERNS) -> dict[str, Card]:
    """Every pattern's card by its name, in the order of the folders' names.

    Raises:
        BadInput: a card that is missing, not TOML, or does not say what a card must.
    """
    cards: dict[str, Card] = {}
    for path in sorted(folder.glob("*/card.toml")):
        try:
            card = Card.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        except (tomllib.TOMLDecodeError, ValidationError) as error:
            raise BadInput(
                str(path), f"is not a pattern card ({' '.join(str(error).split())[:200]})."
            ) from error
        if card.name != path.parent.name:
            raise BadInput(
                str(path),
                f'is named "{card.name}" but lies in {path.parent.name}/.',
                "Make them equal.",
            )
        cards[card.name] = card
    return cards


def load_pattern(name: str) -> Pattern:
    """The code of a pattern.

    Raises:
        KeyError: there is no pattern of that name.
    """
    if name not in load_cards():
        raise KeyError(name)
    return cast(Pattern, importlib.import_module(f"knowledge.patterns.{name}.pattern"))
