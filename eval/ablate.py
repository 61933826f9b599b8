"""What each part is worth: `python -m eval.ablate SUITE` runs a suite with parts switched off.

Every problem is run by all variants one after the other, in an order that changes from problem to
problem, so that a machine that drifts favours none.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from eval.ablation import Ablation, load_ablation, markdown, save_ablation
from eval.alike import require_alike
from eval.one import Arrangement, run_problem
from eval.options import AsJson, Limit, MemoryGib, Only, Overrides, Quiet, Suite
from eval.problem import Problem
from eval.process import Ended, Execute, free_memory
from eval.provenance import provenance, versions
from eval.results import FILE, Results, load, save
from eval.rows import BAD_INPUT, INTERRUPTED
from eval.suite import choose, open_suite
from eval.surroundings import LIBRARY, endings_interrupt, held
from eval.tables import in_words
from eval.variant import VARIANTS, WHOLE, Variant, order_of, variants_named
from graph.report.words import duration
from knowledge.errors import BadInput

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def ablate(
    ablation: Ablation,
    problems: Sequence[Problem],
    folder: Path,
    run: Execute,
    tell: Callable[[str], None],
) -> Ablation:
    """Run what has no row yet, problem by problem, writing everything down after each run.

    Args:
        ablation: the variants and their rows so far.
        problems: every one that is to have a row in each variant.
        folder: each variant has a folder of its name in it, with a library of its own.
        run: how a problem's command is run.
        tell: is given a line a run.
    """
    variants = {variant.name: variant for variant in ablation.variants}
    total = len(problems) * len(variants)
    save_ablation(ablation, folder)
    for place, problem in enumerate(problems):
        for name in order_of(tuple(variants), place):
            results = ablation.results[name]
            if any(row.name == problem.task.name for row in results.rows):
                continue
            variant, mine = variants[name], folder / name
            mine.mkdir(parents=True, exist_ok=True)
            arrangement = Arrangement(out=mine, memory_bytes=ablation.memory_bytes)
            row = run_problem(
                problem._replace(task=variant.of(problem.task)),
                arrangement,
                in_library(run, mine / "library"),
            )
            results = results.with_row(row)
            save(results, mine)
            ablation = ablation.with_results(name, results)
            save_ablation(ablation, folder)
            done = sum(len(one.rows) for one in ablation.results.values())
            tell(f"[{done}/{total}] {row.name}, {name}: {in_words(row)}, {duration(row.seconds)}")
    return ablation


def in_library(run: Execute, library: Path) -> Execute:
    """The same, with that library: a variant must not learn from what another one found."""

    def with_library(command: list[str], deadline_s: float, log: Path) -> Ended:
        with _variable(LIBRARY, str(library.resolve())):
            return run(command, deadline_s, log)

    return with_library


@contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    """Within this block, what is started finds a variable of the environment with that value."""
    earlier = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if earlier is None:
            del os.environ[name]
        else:
            os.environ[name] = earlier


@app.command()
def main(  # noqa: PLR0913 - a command's options are its parameters
    suite: Suite,
    out: Annotated[Path, typer.Option("--out", help="folder for tables, results and runs")],
    variants: Annotated[
        str,
        typer.Option(
            "--variants", metavar="NAME[,NAME]", help=f"of {', '.join(VARIANTS)}; all by default"
        ),
    ] = "",
    overrides: Overrides = None,
    only: Only = None,
    limit: Limit = None,
    library: Annotated[
        Path | None,
        typer.Option("--library", help="each variant begins with a copy; empty by default"),
    ] = None,
    memory_gib: MemoryGib = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with what is in --out")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Run a suite whole, and with each part switched off; say what each part contributes.

    Exit code 0 when every problem has a row in every variant; 2 for bad input; 130 when
    interrupted.
    """
    console = Console(stderr=True, soft_wrap=True)

    def tell(text: str) -> None:
        if not quiet:
            console.print(text, markup=False, highlight=False)

    try:
        given = tuple(overrides or ())
        problems = choose(open_suite(suite, given).problems, only)[:limit]
        asked = variants_named(variants)
        fresh = _fresh(suite, given, problems, asked)
        fresh = fresh.model_copy(
            update={
                "library": str(library) if library is not None else "",
                "memory_bytes": int(memory_gib * 2**30) if memory_gib else free_memory(),
            }
        )
        _make(out, resume)
        with held(out), endings_interrupt():
            ablation = _opened(fresh, out, resume)
            if library is not None:
                _copy_library(library, out, asked)
            arrangement = Arrangement(out=out, memory_bytes=ablation.memory_bytes)
            ablation = ablate(ablation, problems, out, arrangement.execute(), tell)
    except BadInput as error:
        console.print(str(error), markup=False, highlight=False)
        raise typer.Exit(BAD_INPUT) from error
    except KeyboardInterrupt as stop:
        tell("interrupted; go on with the same command and --resume")
        raise typer.Exit(INTERRUPTED) from stop
    tell(f"results: {out / FILE}")
    if as_json:
        sys.stdout.write(json.dumps(ablation.document(), indent=2) + "\n")
    else:
        sys.stdout.write(markdown(ablation))


def _fresh(
    suite: Path, overrides: tuple[str, ...], problems: Sequence[Problem], asked: Sequence[Variant]
) -> Ablation:
    started = datetime.now(UTC).isoformat(timespec="seconds")
    come_from = provenance(tuple(sys.argv[1:]))
    names = tuple(problem.task.name for problem in problems)
    return Ablation(
        suite=str(suite),
        started=started,
        variants=tuple(asked),
        results={
            variant.name: Results(
                suite=str(suite),
                started=started,
                versions=versions(),
                overrides=(*overrides, *variant.overrides),
                problems=names,
                provenance=come_from,
            )
            for variant in asked
        },
    )


def _make(out: Path, resume: bool) -> None:
    """Make the folder, if it is to be a new one.

    Raises:
        BadInput: it can't be made, or there is nothing in it to go on with.
    """
    if resume:
        if not (out / FILE).exists():
            raise BadInput(f"--resume: {out}", "holds no ablation.", "Leave --resume out.")
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"--out {out}", f"cannot be made ({error.strerror}).") from error


def _opened(fresh: Ablation, out: Path, resume: bool) -> Ablation:
    """The ablation in a folder with its rows so far, or a new one.

    Raises:
        BadInput: the folder holds one and `--resume` was not given, or it is of other settings.
    """
    if not (out / FILE).exists():
        return fresh
    if not resume:
        raise BadInput(
            f"--out {out}", "already holds results.", "Add --resume, or give another folder."
        )
    earlier = load_ablation(out)
    begun = earlier.results[WHOLE].provenance.commit
    require_alike(out, earlier.differences(fresh), begun)
    for variant in earlier.variants:
        # Written first, and so it knows at least as much as the one of all.
        own = out / variant.name
        found = load(own) if (own / FILE).exists() else earlier.results[variant.name]
        earlier = earlier.with_results(variant.name, found.without_outages())
    return earlier


def _copy_library(library: Path, out: Path, variants: Sequence[Variant]) -> None:
    """Give each variant that has none yet a library to begin with."""
    if not library.is_dir():
        raise BadInput(f"--library {library}", "is not a folder.", "Give the folder of a library.")
    for variant in variants:
        place = out / variant.name / "library"
        if not place.exists():
            draft = place.with_name(".library.draft")
            shutil.rmtree(draft, ignore_errors=True)
            shutil.copytree(library, draft)
            draft.rename(place)


if __name__ == "__main__":
    app()
