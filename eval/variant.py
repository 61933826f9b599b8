"""The variants of an ablation: the whole, and the whole less one part."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from knowledge.errors import BadInput
from knowledge.opgraph import Frozen
from tools.task import Part, Task

WHOLE, AGAIN = "whole", "again"


class Variant(Frozen):
    """One way in which a suite is run."""

    name: str
    title: str = Field(description="as a heading, a few words")
    without: tuple[Part, ...] = ()
    strategy: Literal["", "greedy", "beam", "evolve"] = Field("", description="empty: the task's")

    def of(self, task: Task) -> Task:
        """The task in this variant; what it does without anyway, it does without here too."""
        changes: dict[str, object] = {}
        if self.without:
            changes["without"] = tuple(dict.fromkeys((*task.without, *self.without)))
        if self.strategy:
            changes["strategy"] = self.strategy
        return task.model_copy(update=changes)

    @property
    def overrides(self) -> tuple[str, ...]:
        """The same as `--set` would say it."""
        told = [f"without=[{', '.join(self.without)}]"] if self.without else []
        return (*told, *([f"strategy={self.strategy}"] if self.strategy else []))


_ALL = (
    Variant(name=WHOLE, title="whole"),
    Variant(name=AGAIN, title="whole, once more"),
    Variant(name="no-library", title="no library", without=("library",)),
    Variant(name="no-experience", title="no experience", without=("experience",)),
    Variant(name="no-debugger", title="no debugger", without=("debugger",)),
    Variant(name="no-profiler", title="no diagnosis", without=("profiler",)),
    Variant(name="greedy", title="greedy, not beam", strategy="greedy"),
    Variant(
        name="bare",
        title="none of these",
        without=("library", "experience", "debugger", "profiler"),
        strategy="greedy",
    ),
)
VARIANTS = {variant.name: variant for variant in _ALL}


def variants_named(names: str) -> tuple[Variant, ...]:
    """Variants by name, with commas between them; the whole is always one of them.

    Raises:
        BadInput: there is no such variant.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()] or list(VARIANTS)
    if strange := [name for name in wanted if name not in VARIANTS]:
        raise BadInput(
            f"--variants {strange[0]}", "is not a variant.", f"Known: {', '.join(VARIANTS)}."
        )
    return tuple(one for one in _ALL if one.name == WHOLE or one.name in wanted)


def order_of(names: Sequence[str], place: int) -> tuple[str, ...]:
    """In which order the variants run the problem at a place, from 0.

    A turn further for each problem, and backwards in every second round of turns: over enough
    problems each variant comes as often first as last, and before another as after it.
    """
    turn = place % len(names)
    turned = (*names[turn:], *names[:turn])
    return turned if place // len(names) % 2 == 0 else turned[::-1]
