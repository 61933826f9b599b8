"""`python -m benchmarks.ahead`: what the playbook's Triton kernels take of GPUs that are not here.

Every candidate that the playbook makes for the examples, each recipe and each change of its
tunables, is compiled ahead of time for one device of each architecture. Nothing runs on a GPU, and
nothing here says how fast anything is.
"""

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from agents.brief import Brief
from agents.playbook.recipes import cook, enumerate_recipes, situation_of, variants
from knowledge.device import Device, resolve
from knowledge.errors import BadInput
from knowledge.pattern import Situation, Step
from tools.ahead import ABSENT, roofline_of, uses_of
from tools.backends.triton import compile as triton
from tools.examine import examine
from tools.facts import Baseline, Baselines, ReferenceFacts
from tools.materialise import materialise
from tools.reference import load
from tools.task import load_task
from tools.verdict import KernelUse

BAD_INPUT, FAILED = 2, 1
EXAMPLES = Path(__file__).parents[1] / "examples"
DEVICES = ("a100-sxm4-80gb", "h100-sxm5", "b200")
SECONDS = 1800.0
BEGIN, END = "<!-- ahead: begin -->", "<!-- ahead: end -->"


@dataclass(frozen=True)
class Row:
    """One kernel of one candidate on one architecture; `failed` says why there are no figures."""

    example: str
    device: str
    recipe: str
    use: KernelUse | None
    failed: str = ""


def candidates_of(facts: ReferenceFacts, situation: Situation) -> dict[str, str]:
    """The distinct sources that the playbook makes for an op, each with the recipe's words."""
    assert facts.graph is not None
    graph, source = facts.graph, facts.source
    recipes, _ = enumerate_recipes(graph, source, situation)
    steps = [one.steps for one in recipes]
    steps += [
        near.steps for one in recipes for near in variants(graph, source, situation, one.steps)
    ]
    found: dict[str, str] = {}
    for one in steps:
        # What does not fit the op is an attempt that fails before anything is compiled.
        with contextlib.suppress(ValueError):
            text = cook(graph, source, one, situation.language)
            if "@triton.jit" in text:
                found.setdefault(text, ", ".join(map(_words, one)))
    return found


def _words(step: Step) -> str:
    settings = " ".join(f"{key}={value}" for key, value in step.parameters.items())
    return f"{step.pattern} ({settings})" if settings else step.pattern


def compile_example(task_file: Path, devices: Sequence[Device], most: int) -> Iterator[Row]:
    """The rows of one example, device by device.

    Raises:
        BadInput: the task is not one, or its op can't be run or traced.
    """
    asked = [(one, (f"target=cuda:{one.name}", "backend=triton")) for one in devices]
    tasks = [(one, load_task(task_file, settings)) for one, settings in asked]
    facts = examine(load(materialise(tasks[0][1]), str(task_file)), tasks[0][1])
    if facts.graph is None:
        raise BadInput(str(task_file), f"cannot be traced: {facts.untraceable}")
    eager, compiled = (
        Baseline(name="eager", median_ms=None, failed=ABSENT),
        Baseline(name="compile", median_ms=None, failed=ABSENT),
    )
    baselines = Baselines(rows=(eager, compiled), noise=0.0)
    for device, task in tasks:
        brief = Brief(
            task=task, device=device, facts=facts, baselines=baselines,
            roofline=roofline_of(device, facts), trials_left=1, seconds_left=1.0,
        )  # fmt: skip
        found = candidates_of(facts, situation_of(brief))
        yield from _compile(task.name, facts.source, dict(list(found.items())[:most]), device)


def _compile(
    example: str, reference: str, candidates: dict[str, str], device: Device
) -> Iterator[Row]:
    pairs = [(source, reference) for source in candidates]
    answers = triton.compile_candidates(pairs, [device], SECONDS)
    for recipe, answer in zip(candidates.values(), answers, strict=True):
        if isinstance(answer, triton.CompileError):
            yield Row(example, device.name, recipe, None, answer.told("kernel.py"))
            continue
        for use in uses_of(answer, device):
            yield Row(example, device.name, recipe, use)


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown: kernels that take the same are one line, with how many candidates."""
    lines = [
        "| op | architecture | kernel | candidates | threads | registers | spilled bytes | "
        "shared KiB | tensor-core instructions | theoretical occupancy |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    groups: dict[tuple[str, str, str], list[KernelUse]] = {}
    for row in rows:
        if row.use is not None:
            key = (row.example, row.use.architecture, row.use.function)
            groups.setdefault(key, []).append(row.use)
    for (example, architecture, function), uses in groups.items():
        figures = (
            _span([use.threads for use in uses]),
            _span([use.registers for use in uses]),
            _span([use.spilled_bytes for use in uses]),
            _span([round(use.shared_bytes / 1024, 1) for use in uses]),
            _span([use.tensor_core for use in uses]),
            _span([round(100 * use.occupancy) for use in uses], "%"),
        )
        told = " | ".join([example, architecture, f"`{function}`", str(len(uses)), *figures])
        lines.append(f"| {told} |")
    return "\n".join(lines) + "\n"


def put_into(page: Path, rows: Sequence[Row]) -> None:
    """Replace the table of a page, which stands between two marks.

    Raises:
        BadInput: the page can't be read, or has no such marks.
    """
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(str(page), f"cannot be read ({error.strerror}).") from error
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BadInput(str(page), "has no place for the table.", f"Mark it: {BEGIN} and {END}.")
    page.write_text(f"{before}{BEGIN}\n{table(rows)}{END}{after}", encoding="utf-8")


def _span(values: Sequence[float], unit: str = "") -> str:
    low, high = min(values), max(values)
    return f"{low:g}{unit}" if low == high else f"{low:g} to {high:g}{unit}"


def run(
    tasks: Annotated[list[Path] | None, typer.Argument(help="all in examples/ by default")] = None,
    device: Annotated[
        list[str] | None, typer.Option(help="a device to compile for; A100, H100, B200 by default")
    ] = None,
    most: Annotated[int, typer.Option(help="candidates of an op at most", min=1)] = 1000,
    into: Annotated[Path | None, typer.Option(help="a page whose table to replace")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON document")] = False,
) -> None:
    """Compile the playbook's Triton candidates ahead of time, and print what they take.

    Exit code 0, 1 where one does not compile, 2 on bad input.
    """
    console = Console(stderr=True, highlight=False)
    rows: list[Row] = []
    try:
        devices = [resolve(name, "--device") for name in device or DEVICES]
        if wrong := [one.name for one in devices if one.kind != "cuda"]:
            raise BadInput("--device", f"{wrong[0]} is no NVIDIA GPU.")
        for task_file in tasks or sorted(EXAMPLES.glob("*.yaml")):
            found = list(compile_example(task_file, devices, most))
            failed = [row for row in found if row.use is None]
            console.print(f"{task_file.stem}: {len(found)} kernels, {len(failed)} failed")
            rows += found
        if into is not None:
            put_into(into, rows)
    except BadInput as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(BAD_INPUT) from error
    if as_json:
        document = [asdict(row) | {"use": row.use and row.use.model_dump()} for row in rows]
        sys.stdout.write(json.dumps(document, indent=1) + "\n")
    else:
        sys.stdout.write(table(rows))
    for row in rows:
        if row.failed:
            console.print(f"{row.example}, {row.device}: {row.recipe}: {row.failed}", markup=False)
    raise typer.Exit(FAILED if any(row.failed for row in rows) else 0)


def main() -> None:
    """The command."""
    typer.run(run)


if __name__ == "__main__":
    main()
