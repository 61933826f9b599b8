"""A whole suite: `python -m eval.run SUITE` runs each problem in its own process and keeps score.

A problem that crashes, hangs or does not fit is a row of the results, never the end.
"""

import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from eval.alike import differences, require_alike
from eval.candidates import match_candidates
from eval.executor import Executor, Here
from eval.fleet import require_ray
from eval.keeper import Keeper, with_kept_rows
from eval.one import Arrangement
from eval.options import AsJson, Limit, MemoryGib, Only, Overrides, Quiet, Suite
from eval.problem import Problem
from eval.process import free_memory
from eval.progress import Screen, Watcher
from eval.provenance import provenance, versions
from eval.results import FILE, Results, Rules, load
from eval.rows import BAD_INPUT, INTERRUPTED, Skipped, is_outage
from eval.score import has_own_kernel
from eval.suite import Where, choose, open_suite, shard_of
from eval.surroundings import LIBRARY, endings_interrupt, held, without_memory
from eval.tables import parts_table, rows_table, summary_text
from knowledge.errors import BadInput

DEFAULT_OUT = Path("runs/eval")
NOT_ALL_CORRECT = 1
OTHERS_SHOWN = 5

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def evaluate(
    results: Results, problems: list[Problem], executor: Executor, folder: Path, watch: Watcher
) -> Results:
    """Run the problems that `results` has no row for, writing each row down when it comes.

    Args:
        results: the rows so far.
        problems: every one that is to have a row in the end.
        executor: where and how they are run.
        folder: of this evaluation.
        watch: is told of every problem.
    """
    done = {row.name for row in results.rows}
    folder.mkdir(parents=True, exist_ok=True)
    keeper = Keeper(folder)
    keeper.write(results)
    left = [problem for problem in problems if problem.task.name not in done]
    try:
        for problem, row in executor.rows(left, watch.begin):
            results = results.with_row(row)
            keeper.keep(problem, row, results)
            watch.end(row, results)
    finally:
        keeper.write(results)
    return results


@app.command()
def main(  # noqa: PLR0913 - a command's options are its parameters
    suite: Suite,
    overrides: Overrides = None,
    only: Only = None,
    holdout: Annotated[
        bool | None,
        typer.Option("--holdout/--no-holdout", help="one of the two parts; both by default"),
    ] = None,
    limit: Limit = None,
    shard: Annotated[
        str | None, typer.Option("--shard", metavar="I/N", help="run one of N equal parts")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="folder for results, logs and runs")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on with the evaluation in --out")
    ] = False,
    candidates: Annotated[
        Path | None,
        typer.Option("--candidates", metavar="FOLDER", help="judge these kernels, write none"),
    ] = None,
    scale_inputs: Annotated[
        bool,
        typer.Option("--scale-inputs", help="halve the sizes of problems that do not fit"),
    ] = False,
    memory_gib: MemoryGib = None,
    wall_minutes: Annotated[
        float | None,
        typer.Option(
            "--wall-minutes",
            min=0.1,
            help="for one problem; its budget and 5 more, or 5 and 2 a candidate",
        ),
    ] = None,
    executor: Annotated[
        str | None, typer.Option("--executor", help="local or ray: this machine, or a cluster")
    ] = None,
    address: Annotated[
        str | None, typer.Option("--address", help="of a Ray cluster; without, one is started here")
    ] = None,
    beside: Annotated[
        int | None,
        typer.Option("--beside", min=1, help="problems that share a device of the cluster"),
    ] = None,
    memory: Annotated[
        bool, typer.Option("--memory", help="use, and add to, what earlier runs have learned")
    ] = False,
    require_correct: Annotated[
        bool,
        typer.Option("--require-correct", help="exit 1 where a problem has no correct kernel"),
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Run a suite of problems and score it.

    Exit code 0 when every problem has its row; 1 where --require-correct is not met; 2 for bad
    input; 130 when interrupted.
    """
    console = Console(stderr=True, soft_wrap=True)

    def tell(text: str) -> None:
        console.print(text, markup=False, highlight=False)

    try:
        given = tuple(overrides or ())
        found = open_suite(suite, given)
        problems = choose(found.problems, only, holdout)
        problems = shard_of(problems, shard) if shard is not None else problems
        problems = problems[:limit]
        if not problems:
            raise BadInput(f"--shard {shard}", "leaves no problem to run.")
        matched = match_candidates(candidates, found.problems) if candidates else None
        fresh = Results(
            suite=str(suite),
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=versions(),
            overrides=given,
            problems=tuple(problem.task.name for problem in problems),
            shard=shard or "",
            candidates=str(candidates) if candidates is not None else "",
            rules=Rules(
                scale_inputs=scale_inputs,
                memory=memory,
                memory_gib=memory_gib,
                wall_minutes=wall_minutes,
            ),
            provenance=provenance(tuple(sys.argv[1:])),
            others=found.others,
            unmatched=matched.unmatched if matched is not None else (),
        )
        where = _where(found.where, executor, address, beside)
        folder = _folder_of(fresh, out, resume)
        if not memory:
            problems = without_memory(problems)
            # Of pages alone; the problems' processes inherit it.
            os.environ[LIBRARY] = str((folder / "library").resolve())
        arrangement = Arrangement(
            out=folder,
            memory_bytes=int(memory_gib * 2**30) if memory_gib is not None else None,
            scale_inputs=scale_inputs,
            wall_s=wall_minutes * 60 if wall_minutes is not None else None,
            candidates=matched.candidates if matched is not None else None,
        )
        with held(folder):
            results = _open_results(fresh, problems, folder, resume)
            _tell_of_others(results, tell)
            with (
                endings_interrupt(),
                _executor(where, arrangement, memory=memory, tell=tell) as runs,
                # Once more, since Ray puts a handler of its own in the place of ours.
                endings_interrupt(),
                Screen(console, results, quiet=quiet) as screen,
            ):
                results = evaluate(results, problems, runs, folder, screen)
    except BadInput as error:
        tell(str(error))
        raise typer.Exit(BAD_INPUT) from error
    except KeyboardInterrupt as stop:
        tell("interrupted; go on with the same command and --out DIR --resume")
        raise typer.Exit(INTERRUPTED) from stop
    _show(results, folder, tell, quiet=quiet)
    if as_json:
        sys.stdout.write(json.dumps(results.document(), indent=2) + "\n")
    if require_correct and (lacking := _lacking(results)):
        tell(f"--require-correct: no correct kernel of its own for {', '.join(lacking)}")
        raise typer.Exit(NOT_ALL_CORRECT)


def _where(asked: Where, executor: str | None, address: str | None, beside: int | None) -> Where:
    """Where the problems are run: as the options say, else as the suite does."""
    given = {"executor": executor, "address": address, "beside": beside}
    if address is not None and executor is None:
        given["executor"] = "ray"
    told = asked.model_dump() | {key: value for key, value in given.items() if value is not None}
    if told["executor"] not in ("local", "ray"):
        raise BadInput(f"--executor {executor}", "is unknown.", "Use local or ray.")
    where = Where.model_validate(told)
    if where.executor == "local" and (where.address or where.beside > 1):
        key = "address" if where.address else "beside"
        raise BadInput(f"--{key}", "is for --executor ray.", "Problems here run one by one.")
    return where


@contextmanager
def _executor(
    where: Where, arrangement: Arrangement, *, memory: bool, tell: Callable[[str], None]
) -> Iterator[Executor]:
    if where.executor == "local":
        if arrangement.memory_bytes is None:
            arrangement = replace(arrangement, memory_bytes=free_memory())
        yield Here(arrangement, arrangement.execute())
        return
    require_ray("--executor ray")
    fleet = importlib.import_module("eval.fleet.cluster")
    with fleet.Cluster(
        arrangement, where.address, beside=where.beside, memory=memory, tell=tell
    ) as cluster:
        try:
            yield cluster
        except fleet.FleetLost as error:
            mend = "Go on with the same command and --out DIR --resume."
            raise BadInput("--executor ray", f"{error}.", mend) from error


def _show(results: Results, folder: Path, tell: Callable[[str], None], *, quiet: bool) -> None:
    """The tables, and what is left to be run again."""
    if not quiet:
        Console(stderr=True).print(rows_table(results))
        if results.breakdown.named:
            Console(stderr=True).print(parts_table(results))
        tell(f"{summary_text(results.summary)}\nresults: {folder / FILE}")
    if outages := [row.name for row in results.rows if is_outage(row)]:
        tell(f"parked or lost, and run again with --out {folder} --resume: {', '.join(outages)}")


def _lacking(results: Results) -> list[str]:
    """The problems without a correct kernel; a baseline in a kernel's place is none."""
    judged = [row for row in results.rows if not isinstance(row, Skipped)]
    return [row.name for row in judged if not has_own_kernel(row)]


def _tell_of_others(results: Results, tell: Callable[[str], None]) -> None:
    """What lies in the folders and is not run, so that nobody wonders."""
    for what, files in (("no problem", results.others), ("no candidate", results.unmatched)):
        for one in files[:OTHERS_SHOWN]:
            tell(f"{what}: {one.file} ({one.reason})")
        if (more := len(files) - OTHERS_SHOWN) > 0:
            tell(f"{what}: {more} more files, listed in {FILE}")


def _folder_of(fresh: Results, out: Path | None, resume: bool) -> Path:
    """The evaluation's folder, made if it is a new one."""
    if resume:
        if out is None:
            raise BadInput(
                "--resume", "needs --out.", "Give the folder of the evaluation to go on with."
            )
        if not (out / FILE).exists():
            raise BadInput(f"--resume: {out}", "holds no results.", "Leave --resume out.")
        return out
    stamp = datetime.fromisoformat(fresh.started).strftime("%Y%m%d-%H%M%S")
    folder = out or DEFAULT_OUT / f"{stamp}-{Path(fresh.suite).resolve().stem}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"--out {folder}", f"cannot be made ({error.strerror}).") from error
    return folder


def _open_results(fresh: Results, problems: list[Problem], folder: Path, resume: bool) -> Results:
    """The results in a folder, if the evaluation is to go on with them, or new ones."""
    if resume:
        earlier = load(folder)
        require_alike(folder, differences(earlier, fresh), earlier.provenance.commit)
        return with_kept_rows(earlier, problems, folder)
    if (folder / FILE).exists():
        raise BadInput(
            f"--out {folder}", "already holds results.", "Add --resume, or give another folder."
        )
    return fresh


if __name__ == "__main__":
    app()
