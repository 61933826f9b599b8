"""`python -m tools.judge.soak`: is any verdict lost or wrong, and does anything leak?"""

import json
import secrets
import sys
import tempfile
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from knowledge.errors import BadInput
from tools.judge.soak.drive import Answer, Findings, Plan, Soak
from tools.judge.soak.kinds import KINDS, REFERENCES

PASSED, FAILED, BAD_INPUT = 0, 1, 2
CANDIDATES_PER_KILL = 100
SEED_BITS = 32


def run(
    candidates: Annotated[
        int, typer.Option(help="how many are judged, one after the other")
    ] = 1000,
    seed: Annotated[
        int | None, typer.Option(help="draws candidates and kills; told at the end")
    ] = None,
    references: Annotated[
        int, typer.Option(help=f"judges side by side, 1 to {len(REFERENCES)}")
    ] = 3,
    kills: Annotated[
        int | None, typer.Option(help="by default one in a hundred candidates")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON document")] = False,
) -> None:
    """Put honest, wrong and hostile candidates to the judge, and kill it now and then.

    Exit code 0: every verdict came, was right and was the candidate's own, and nothing leaked; 1:
    not so; 2: bad input.
    """
    try:
        plan = _plan(candidates, seed, references, kills)
    except BadInput as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(BAD_INPUT) from error
    findings = _soak(plan)
    if as_json:
        sys.stdout.write(json.dumps(document(plan, findings), indent=1) + "\n")
    else:
        show(plan, findings)
    raise typer.Exit(PASSED if findings.passed else FAILED)


def _plan(candidates: int, seed: int | None, references: int, kills: int | None) -> Plan:
    """The plan, checked.

    Raises:
        BadInput: an option has a value that means nothing.
    """
    if candidates < 1:
        raise BadInput("--candidates", f"{candidates} is too few.", "Give 1 or more.")
    if not 1 <= references <= len(REFERENCES):
        raise BadInput(
            "--references", f"{references} is not there.", f"Give 1 to {len(REFERENCES)}."
        )
    if kills is None:
        kills = candidates // CANDIDATES_PER_KILL
    if not 0 <= kills <= candidates:
        raise BadInput("--kills", f"{kills} is not possible.", f"Give 0 to {candidates}.")
    drawn = secrets.randbits(SEED_BITS) if seed is None else seed
    return Plan(candidates, drawn, references, kills)


def _soak(plan: Plan) -> Findings:
    """Run it, with its progress on standard error."""
    with (
        tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as folder,
        _progress() as progress,
    ):
        bar = progress.add_task("judging", total=plan.candidates, faults=0, last="")
        faults = 0

        def tell(answer: Answer) -> None:
            nonlocal faults
            faults += bool(answer.fault)
            last = f"{answer.suspect.kind.name}: {answer.got}"
            progress.update(bar, advance=1, faults=faults, last=last)

        return Soak(plan, Path(folder), tell).run()


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        TextColumn("faults {task.fields[faults]}  {task.fields[last]}"),
        console=Console(stderr=True), transient=True,
    )  # fmt: skip


def document(plan: Plan, findings: Findings) -> dict[str, Any]:
    """Everything, for programs."""
    return {
        "passed": findings.passed,
        "candidates": plan.candidates,
        "seed": plan.seed,
        "references": plan.references,
        "seconds": round(findings.seconds, 1),
        "verdicts": len(findings.answers),
        "kills": _kills(findings),
        "faults": [
            {"candidate": a.suspect.number, "kind": a.suspect.kind.name, "killed": a.killed,
             "fault": a.fault}
            for a in findings.faults
        ],
        "unasked_deaths": findings.deaths,
        "left_after_closing": findings.left,
        "resources": [vars(resource) for resource in findings.resources],
        "kinds": _kinds(findings),
    }  # fmt: skip


def _kills(findings: Findings) -> dict[str, int]:
    return dict(Counter(answer.killed for answer in findings.answers if answer.killed))


def _kinds(findings: Findings) -> list[dict[str, Any]]:
    """By kind: how many, which verdict, and the median time of those with no kill in them."""
    rows = []
    for kind in KINDS:
        own = [answer for answer in findings.answers if answer.suspect.kind == kind]
        times = [answer.seconds for answer in own if not answer.killed]
        rows.append({
            "kind": kind.name, "count": len(own), "expected": kind.verdict,
            "faults": sum(bool(answer.fault) for answer in own),
            "median_ms": round(median(times) * 1e3, 1) if times else None,
        })  # fmt: skip
    return rows


def show(plan: Plan, findings: Findings) -> None:
    """The tables, for people."""
    console = Console(highlight=False)
    kinds = _table("kind", "verdict it must get", "count", "faults", "median ms")
    for row in _kinds(findings):
        taken = "" if row["median_ms"] is None else f"{row['median_ms']:.0f}"
        kinds.add_row(row["kind"], row["expected"], str(row["count"]), str(row["faults"]), taken)
    console.print(kinds)
    resources = _table("held", "", "before", "peak", "after", "growth a candidate")
    for resource in findings.resources:
        mark = "[red]leak[/]" if resource.leak else resource.note
        resources.add_row(
            resource.name, mark, f"{resource.before:.0f}", f"{resource.peak:.0f}",
            f"{resource.after:.0f}", f"{resource.growth_per_candidate:+.3f}",
        )  # fmt: skip
    console.print(resources)
    for answer in findings.faults:
        killed = f", its {answer.killed} killed" if answer.killed else ""
        title = f"candidate {answer.suspect.number} ({answer.suspect.kind.name}{killed})"
        console.print(f"[red]{escape(title)}[/] {escape(answer.fault)}")
    for death in findings.deaths:
        console.print(f"[red]unasked[/] {escape(death)}")
    for name, number in findings.left.items():
        if number:
            console.print(f"[red]left after closing[/] {escape(name)}: {number}")
    kills = ", ".join(f"{count} {name}" for name, count in _kills(findings).items()) or "none"
    word = "[bold green]passed[/]" if findings.passed else "[bold red]failed[/]"
    console.print(
        f"{word}  {len(findings.answers)} verdicts for {plan.candidates} candidates in "
        f"{findings.seconds:.0f} s, killed in the middle: {kills}; --seed {plan.seed}"
    )


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number < 2 else "right")
    return table


def main() -> None:
    """The command."""
    typer.run(run)


if __name__ == "__main__":
    main()
