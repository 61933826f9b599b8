"""The test that goes with an exported kernel: it holds it to each workload that was verified."""

from collections.abc import Mapping
from difflib import SequenceMatcher

from tools.inline import ROOT

TEMPLATE = ROOT / "tools" / "drop_in" / "test_kernel.py"
# The template's own line, for a reference alone; what is exported has the task's workloads there.
ALONE = 'WORKLOADS: dict[str, tuple[Change, ...]] = {"as given": ()}\n'

# The number of the first line, from 1, the lines, and what stands in their place.
Change = tuple[int, tuple[str, ...], tuple[str, ...]]


def exercise_text(reference: str, workloads: Mapping[str, str]) -> str:
    """The test's text.

    Args:
        reference: the text of `reference.py`, which lies beside it.
        workloads: the reference's text on each of several, by name; empty for one alone.
    """
    template = TEMPLATE.read_text(encoding="utf-8")
    assert template.count(ALONE) == 1, "the template has its line once"
    if not workloads:
        return template
    rows = [
        f"    {name!r}: {_literal(changes(reference, text))},\n" for name, text in workloads.items()
    ]
    return template.replace(ALONE, f"{ALONE.partition('{')[0]}{{\n{''.join(rows)}}}\n")


def changes(reference: str, other: str) -> tuple[Change, ...]:
    """What makes one text the other, line by line."""
    old, new = reference.split("\n"), other.split("\n")
    steps = SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    return tuple(
        (first + 1, tuple(old[first:last]), tuple(new[start:end]))
        for kind, first, last, start, end in steps
        if kind != "equal"
    )


def _literal(found: tuple[Change, ...]) -> str:
    if not found:
        return "()"
    return "".join(["(\n", *(f"        {change!r},\n" for change in found), "    )"])
