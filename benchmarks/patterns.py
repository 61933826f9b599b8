"""`python -m benchmarks.patterns`: what each pattern gains on its own example, on this machine.

A pattern's folder holds `example.py`, an op as a user would write it. The pattern is applied to it
with each setting of its tunables that it proposes, then loops are fused and outputs placed as in
any recipe; the judge verifies the kernel and times it against eager and torch.compile.
"""

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from agents.playbook.recipes import LAST, cook, situation_from
from knowledge.errors import BadInput
from knowledge.opgraph import OpGraph
from knowledge.pattern import PATTERNS, Proposal, Refusal, Situation, Step, load_cards, load_pattern
from knowledge.program import Program
from tools.candidate import Candidate, backend_of
from tools.judge.client import Judge
from tools.task import parse_task
from tools.verdict import Correct, Timing, Verdict

BAD_INPUT = 2


@dataclass(frozen=True)
class Row:
    """One pattern with one setting of its tunables; times in ms, None where it was rejected."""

    pattern: str
    setting: str
    outcome: str
    eager_ms: float | None = None
    compile_ms: float | None = None
    kernel_ms: float | None = None
    speedup: float | None = None
    low: float | None = None
    high: float | None = None


def examples(wanted: list[str]) -> list[tuple[str, Path]]:
    """The patterns that have an example, with its file.

    Raises:
        BadInput: one that was asked for is unknown, or has none.
    """
    found = [(name, PATTERNS / name / "example.py") for name in load_cards()]
    having = [pair for pair in found if pair[1].exists()]
    known = [name for name, _ in having]
    for name in wanted:
        if name not in known:
            raise BadInput(name, "is no pattern with an example.", f"Known: {', '.join(known)}.")
    return [pair for pair in having if not wanted or pair[0] in wanted]


def measure(name: str, example: Path, first_only: bool) -> Iterator[Row]:
    """The rows of one pattern."""
    task = parse_task({"name": name, "reference": example.name}, str(example), example.parent)
    with (
        tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder,
        Judge(task, Path(folder)) as judge,
    ):
        yield from _rows(name, judge, first_only)


def _rows(name: str, judge: Judge, first_only: bool) -> Iterator[Row]:
    facts = judge.examine()
    if facts.graph is None:
        yield Row(name, "", f"its example cannot be traced: {facts.untraceable}")
        return
    graph, source = facts.graph, facts.source
    baselines, roofline = judge.survey()
    situation = situation_from(facts, baselines, roofline, os.cpu_count() or 1, huge_pages=False)
    answer = load_pattern(name).propose(Program.of(graph, source), situation)
    if isinstance(answer, Refusal) and name in LAST:
        answer = _after_loops(graph, source, situation, name)
    if isinstance(answer, Refusal):
        yield Row(name, "", f"refuses its example: {answer.reason}")
        return
    for proposal in answer[: 1 if first_only else None]:
        steps = _steps(graph, source, situation, proposal)
        code = cook(graph, source, steps)
        candidate = Candidate(source=code, backend=backend_of(code))
        yield _row(name, proposal, judge.confirm(candidate))


def _after_loops(
    graph: OpGraph, source: str, situation: Situation, name: str
) -> list[Proposal] | Refusal:
    """What a pattern proposes once loops are fused, for one that works on kernels."""
    program = Program.of(graph, source)
    fused = load_pattern(LAST[0]).propose(program, situation)
    if isinstance(fused, Refusal) or name == LAST[0]:
        return fused
    program = load_pattern(LAST[0]).apply(program, fused[0].step)
    return load_pattern(name).propose(program, situation)


def _steps(
    graph: OpGraph, source: str, situation: Situation, proposal: Proposal
) -> tuple[Step, ...]:
    """The proposal's step, and whatever of the last patterns applies before or after it."""
    steps: tuple[Step, ...] = ()
    program = Program.of(graph, source)
    own = proposal.step.pattern
    order = (own, *LAST) if own not in LAST else LAST
    for name in order:
        step = proposal.step
        if name != own:
            answer = load_pattern(name).propose(program, situation)
            if isinstance(answer, Refusal):
                continue
            step = answer[0].step
        program = load_pattern(name).apply(program, step)
        steps = (*steps, step)
        if name == own and own in LAST:
            break
    return steps


def _row(name: str, proposal: Proposal, verdict: Verdict) -> Row:
    setting = ", ".join(f"{key}={value}" for key, value in proposal.step.parameters.items())
    if not isinstance(verdict, Correct) or verdict.timing is None:
        return Row(name, setting, verdict.kind)
    timing = verdict.timing
    best = timing.against_best
    return Row(
        name, setting, "faster" if best.low > 1 + timing.noise else "correct",
        _baseline_ms(timing, "eager"), _baseline_ms(timing, "compile"), timing.candidate_ms,
        best.speedup, best.low, best.high,
    )  # fmt: skip


def _baseline_ms(timing: Timing, name: str) -> float | None:
    return next((c.baseline_ms for c in timing.comparisons if c.baseline == name), None)


def show(rows: list[Row]) -> None:
    """The table, for people."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    headings = ("pattern", "tunables", "", "eager", "compile", "kernel", "speedup", "95% interval")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number > 2 else "left")
    for row in rows:
        interval = f"{row.low:.2f} to {row.high:.2f}" if row.low and row.high else ""
        table.add_row(
            row.pattern, row.setting, row.outcome, _ms(row.eager_ms), _ms(row.compile_ms),
            _ms(row.kernel_ms), f"{row.speedup:.2f}x" if row.speedup else "", interval,
        )  # fmt: skip
    Console(highlight=False).print(table)


def _line(row: Row) -> str:
    if row.speedup is None:
        return f"{row.pattern}: {row.outcome}"
    times = f"{_ms(row.eager_ms)}, {_ms(row.compile_ms)}, {_ms(row.kernel_ms)}"
    return f"{row.pattern} ({row.setting}): {times}: {row.speedup:.2f}x"


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.3g} ms"


def run(
    patterns: Annotated[list[str] | None, typer.Argument(help="all of them by default")] = None,
    first: Annotated[bool, typer.Option("--first", help="the first tunables alone")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON document")] = False,
) -> None:
    """Time every pattern on its example; the machine should be doing nothing else.

    Exit code 0, whatever the figures are; 2 on bad input.
    """
    console = Console(stderr=True, highlight=False)
    rows: list[Row] = []
    try:
        for name, example in examples(patterns or []):
            for row in measure(name, example, first):
                console.print(_line(row), markup=False)
                rows.append(row)
    except BadInput as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(BAD_INPUT) from error
    if as_json:
        document = {"rows": [asdict(row) for row in rows]}
        sys.stdout.write(json.dumps(document, indent=1) + "\n")
    else:
        show(rows)


def main() -> None:
    """The command."""
    typer.run(run)


if __name__ == "__main__":
    main()
