"""Puts large outputs of fused kernels on huge pages, before they are first touched."""

from knowledge.loops.cost import PAGE, RETURNED_FROM, Machine, program_ms
from knowledge.pattern import Proposal, Refusal, Situation, Step
from knowledge.program import Program

NAME = "output_pages"
# 4 KiB pages in a huge one.
PAGES_IN_HUGE = 512


def propose(program: Program, situation: Situation) -> list[Proposal] | Refusal:
    """Huge pages for the outputs, or why that would gain nothing here."""
    if program.backend != "cpp":
        reason = (
            "Outputs lie in the GPU's memory, which torch's allocator hands out without faults."
        )
        return Refusal(pattern=NAME, reason=reason)
    if program.huge_pages:
        return Refusal(pattern=NAME, reason="The outputs are on huge pages already.")
    if situation.huge_pages:
        return Refusal(
            pattern=NAME,
            reason="malloc gives every process huge pages here; nothing is left to save.",
        )
    written = [w.spec.nbytes for kernel in program.kernels for w in kernel.writes]
    if not written:
        return Refusal(pattern=NAME, reason="No kernel of our own writes an output.")
    large = sum(size for size in written if size >= RETURNED_FROM)
    if not large:
        return Refusal(
            pattern=NAME,
            reason=f"The largest output is {max(written) / 1e6:.1f} MB; blocks under "
            f"{RETURNED_FROM >> 20} MiB are recycled by malloc without page faults.",
        )
    machine = Machine.of(situation)
    faults = large // PAGE
    saved = (faults - faults / PAGES_IN_HUGE) * situation.fault_us / 1e3
    before = program_ms(program, machine)
    after = max(before - saved, before / 10)
    arithmetic = (
        f"{large / 1e6:.1f} MB of output are {faults} page faults at {situation.fault_us:.2f} us; "
        f"on huge pages {faults // PAGES_IN_HUGE + 1}. That saves {saved:.2f} of {before:.2f} ms: "
        f"{before / after:.2f}x."
    )
    return [
        Proposal(
            step=Step(pattern=NAME),
            title="put large outputs on huge pages",
            speedup=before / after,
            arithmetic=arithmetic,
        )
    ]


def apply(program: Program, step: Step) -> Program:
    """The program with its large outputs on huge pages.

    Raises:
        ValueError: no kernel writes an output, or kernels run on a GPU.
    """
    if program.backend != "cpp":
        raise ValueError("output_pages: outputs lie in the GPU's memory")
    if not program.kernels:
        raise ValueError("output_pages: no kernel of our own writes an output")
    done = "large outputs on huge pages"
    return program.changed(huge_pages=True, steps=(*program.steps, done))
