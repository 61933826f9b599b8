"""Whether an evaluation can go on: all of its rows are to be made by one judge, in one way."""

from collections.abc import Sequence
from pathlib import Path

from eval.results import Results
from knowledge.errors import BadInput

JUDGE = "another judge"


def differences(earlier: Results, fresh: Results) -> list[str]:
    """What is not the same, in words; what older results don't tell is taken to be."""
    told: list[tuple[str, object, object]] = [
        ("other problems", earlier.problems, fresh.problems),
        ("another --set", earlier.overrides, fresh.overrides),
        ("another --shard", earlier.shard, fresh.shard),
        ("other --candidates", earlier.candidates, fresh.candidates),
    ]
    if earlier.rules is not None and fresh.rules is not None:
        now = fresh.rules.model_dump()
        for name, before in earlier.rules.model_dump().items():
            told.append((f"another --{name.replace('_', '-')}", before, now[name]))
    told += [
        (f"another {package}", earlier.versions[package], fresh.versions.get(package))
        for package in ("torch", "triton")
        if package in earlier.versions
    ]
    if earlier.provenance.judge:
        told.append((JUDGE, earlier.provenance.judge, fresh.provenance.judge))
    return [what for what, before, after in told if before != after]


def require_alike(out: Path, differing: Sequence[str], commit: str) -> None:
    """Complain where something differs.

    Args:
        out: the evaluation that is to go on.
        differing: as of `differences`.
        commit: of Kernelwright, with which it was begun.

    Raises:
        BadInput: something does.
    """
    if not differing:
        return
    mend = "Repeat its command, or give another --out."
    if JUDGE in differing:
        begun = f"commit {commit}" if commit else "the version that began it"
        mend = f"Go on with {begun}, or give another --out."
    raise BadInput(f"--resume: {out}", f"was made with {', '.join(differing)}.", mend)
