"""`python -m tools.judge REFERENCE.py CANDIDATE.py`: judge any kernel in the field's convention."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from knowledge.errors import BadInput
from tools.candidate import Candidate, backend_of
from tools.facts import Baselines
from tools.judge.source import parse_candidate
from tools.judge.whole import judge_of, judge_whole
from tools.task import Task, load_task, parse_task
from tools.told import printable
from tools.verdict import (
    BuildFailed,
    Cheated,
    Compiled,
    ContractBroken,
    Correct,
    Crashed,
    Implausible,
    JudgeError,
    TimedOut,
    TimerMismatch,
    Verdict,
    WrongOutput,
)

ACCEPTED, REJECTED, BAD_INPUT = 0, 1, 2


def run(
    reference: Annotated[
        Path, typer.Argument(help="file with Model, get_inputs, get_init_inputs; or a task's YAML")
    ],
    candidate: Annotated[Path, typer.Argument(help="file with ModelNew")],
    target: Annotated[str, typer.Option(help="auto, cpu, cuda, or a device's name")] = "auto",
    no_time: Annotated[bool, typer.Option("--no-time", help="judge correctness alone")] = False,
    pages: Annotated[
        str, typer.Option(help="machine, or huge: huge pages for everyone")
    ] = "machine",
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON document")] = False,
) -> None:
    """Judge CANDIDATE against REFERENCE: is it right, and how fast is it?"""
    try:
        source = _read_candidate(candidate)
        task = _task_of(reference, source, target, pages)
        with tempfile.TemporaryDirectory(prefix="judge-", ignore_cleanup_errors=True) as scratch:
            judge = judge_of(task, Path(scratch))
            try:
                kernel = Candidate(source=source, backend=backend_of(source))
                cautions, baselines, verdict = judge_whole(judge, kernel, timed=not no_time)
            finally:
                judge.close()
    except BadInput as error:
        _refuse(error, as_json)
    if as_json:
        sys.stdout.write(json.dumps(_document(cautions, baselines, verdict), indent=1) + "\n")
    else:
        _show(cautions, baselines, verdict, candidate)
    raise typer.Exit(ACCEPTED if isinstance(verdict, Correct) else REJECTED)


def _read_candidate(path: Path) -> str:
    """The candidate's source.

    Raises:
        BadInput: it can't be read, is not Python, or has no ModelNew.
    """
    try:
        source = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadInput(str(path), f"cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise BadInput(str(path), "is not text in UTF-8.") from error
    if (failed := parse_candidate(source)) is not None:
        what = failed.log.removeprefix("the candidate ")
        raise BadInput(
            str(path), f"{what}.", "A candidate defines class ModelNew(torch.nn.Module)."
        )
    return source


def _task_of(path: Path, source: str, target: str, pages: str) -> Task:
    """What is judged against: a reference file, or the task that a YAML file holds.

    Raises:
        BadInput: it can't be read, or holds something else.
    """
    # On a machine with a GPU, `auto` would mean that.
    backend = "cpp" if backend_of(source) == "cpp" else "auto"
    if path.suffix in (".yaml", ".yml"):
        asked = {"target": target, "pages": pages, "backend": backend}
        usual = {"target": "auto", "pages": "machine", "backend": "auto"}
        return load_task(path, tuple(f"{k}={v}" for k, v in asked.items() if v != usual[k]))
    raw = {
        "name": path.stem or "op",
        "reference": str(path),
        "target": target,
        "backend": backend,
        "pages": pages,
    }
    return parse_task(raw, str(path), Path.cwd())


def _document(
    cautions: tuple[str, ...], baselines: Baselines | None, verdict: Verdict
) -> dict[str, Any]:
    return {
        "accepted": isinstance(verdict, Correct),
        "verdict": verdict.model_dump(mode="json"),
        "baselines": baselines.model_dump(mode="json") if baselines else None,
        "cautions": list(cautions),
    }


def _refuse(error: BadInput, as_json: bool) -> NoReturn:
    if as_json:
        sys.stdout.write(json.dumps({"accepted": False, "bad_input": str(error)}) + "\n")
    sys.stderr.write(f"{error}\n")
    raise typer.Exit(BAD_INPUT)


def _show(
    cautions: tuple[str, ...], baselines: Baselines | None, verdict: Verdict, candidate: Path
) -> None:
    console = Console(highlight=False)
    accepted = isinstance(verdict, Correct)
    colour = "green" if accepted else "red"
    console.print(f"[bold {colour}]{verdict.kind.replace('_', ' ')}[/]  {escape(candidate.name)}")
    console.print(escape(printable(explain(verdict))))
    if isinstance(verdict, Correct) and verdict.timing is not None:
        _show_timing(console, verdict)
    for row in baselines.rows if baselines else ():
        if row.failed:
            console.print(f"[yellow]not measured[/] {escape(row.failed)}")
    for label in verdict.labels:
        console.print(f"[yellow]label[/] {escape(printable(label))}")
    for caution in cautions:
        console.print(f"[yellow]caution[/] {escape(caution)}")
    console.print(f"[dim]jail: {escape(verdict.isolation or 'none was needed')}[/]")


def _show_timing(console: Console, verdict: Correct) -> None:
    timing = verdict.timing
    assert timing is not None
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("against", "baseline", "this kernel", "speedup", "95% interval", "blocks"):
        table.add_column(heading, justify="left" if heading == "against" else "right")
    for row in timing.comparisons:
        table.add_row(
            row.baseline, f"{row.baseline_ms:.3f} ms", f"{row.candidate_ms:.3f} ms",
            f"{row.speedup:.2f}x", f"{row.low:.2f} to {row.high:.2f}", str(row.blocks),
        )  # fmt: skip
    for one in timing.workloads:
        row = one.timing.against_best
        table.add_row(
            escape(f"  {one.name}: {row.baseline}"), f"{row.baseline_ms:.3f} ms",
            f"{row.candidate_ms:.3f} ms", f"{row.speedup:.2f}x",
            f"{row.low:.2f} to {row.high:.2f}", str(row.blocks),
        )  # fmt: skip
    console.print(table)
    for reading in timing.readings[-1:]:
        held = f", held back by {', '.join(reading.throttled)}" if reading.throttled else ""
        console.print(f"[dim]the GPU at {reading.sm_mhz:.0f} MHz, {reading.celsius:.0f} C{held}[/]")
    word = "faster than every baseline" if timing.faster else "not faster than every baseline"
    console.print(
        f"{word}; the same code against itself reads up to {timing.noise:.1%} off here, "
        f"{timing.page_faults:.0f} page faults a call, "
        f"{timing.checked_outputs} timed outputs checked"
    )


def explain(verdict: Verdict) -> str:
    """One verdict in words."""
    match verdict:
        case Correct():
            same = "bit for bit the same" if verdict.deterministic else "not always the same bits"
            worst = max((case.worst for case in verdict.cases), default=0.0)
            return (
                f"{len(verdict.cases)} cases passed, the worst at {worst:.0%} of what is allowed; "
                f"repeated calls give {same}"
            )
        case Compiled():
            return f"compiled for {verdict.device}, not timed; {verdict.logic}"
        case BuildFailed() | Crashed() | JudgeError():
            return verdict.log
        case TimedOut():
            return f"no result within {verdict.deadline_s:g} s"
        case WrongOutput():
            case_name = verdict.cases[-1].name if verdict.cases else ""
            return f"{verdict.detail} (case: {case_name})" if case_name else verdict.detail
        case ContractBroken() | TimerMismatch():
            return verdict.detail
        case Cheated():
            return f"{verdict.check}: {verdict.detail}"
        case Implausible():
            return f"{verdict.candidate_ms:.3f} ms is below the floor of {verdict.floor_ms:.3f} ms"


def main() -> None:
    """The command."""
    typer.run(run)


if __name__ == "__main__":
    main()
