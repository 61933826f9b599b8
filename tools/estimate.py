"""What judging a task takes of a machine's memory, as plain figures. No torch here."""

from pydantic import Field

from knowledge.opgraph import Frozen

# A judge, a zygote and runners with torch loaded, their pools, and what compilers need.
BASE_BYTES = 2 << 30
# Sets of inputs at once: those of three ordinary cases and of an odd one, the two or more that are
# timed on, a copy to check that nothing was changed, and one in float64, which counts twice.
INPUT_COPIES = 9
# Further cases, as many as there is time for: more of small inputs than of large ones.
FURTHER_COPIES, FURTHER_BYTES = 11, 4 << 30
# The judge's model, its fresh twin and its float64 copy, which counts twice; eager, eager again,
# torch.compile and the candidate have their own.
WEIGHT_COPIES = 8
# One float64 truth, which counts twice, and the reference's own; four runners' results and the
# buffers that they are copied to.
OUTPUT_COPIES = 11
# Two more truths, where three take no more than 2 GiB; otherwise they are worked out again.
KEPT_COPIES, KEPT_BYTES = 6, (2 << 30) * 6 // 9
# The float64 oracle counts twice; then a runner's own, where another one still holds its pool.
WORKING_COPIES = 4


class Footprint(Frozen):
    """What one task takes, in bytes; each part is of one copy."""

    inputs: int
    weights: int
    outputs: int
    working: int = Field(description="most that forward holds beside these at once")

    @property
    def needed(self) -> int:
        """What judging it takes: several processes, a float64 oracle, and more than one input."""
        return (
            BASE_BYTES
            + INPUT_COPIES * self.inputs
            + min(FURTHER_COPIES * self.inputs, FURTHER_BYTES)
            + WEIGHT_COPIES * self.weights
            + OUTPUT_COPIES * self.outputs
            + min(KEPT_COPIES * self.outputs, KEPT_BYTES)
            + WORKING_COPIES * self.working
        )


class Scaled(Frozen):
    """A size constant of the reference that was made smaller."""

    name: str
    given: int
    used: int


class Estimate(Frozen):
    """What was found out; `footprint` is None where the reference can't be run on fake tensors.

    `source` is the reference's text with smaller sizes, where these were asked for and help.
    """

    footprint: Footprint | None = None
    needed: int | None = None
    unknown: str = ""
    scaled: tuple[Scaled, ...] = ()
    source: str | None = None
