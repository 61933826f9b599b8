"""`python -m tools.profile REFERENCE.py CANDIDATE.py`: where a kernel's time goes.

Says on which rung of the ladder the profile stands, what was read there, and why not on a better
one. Nothing is judged: whether the kernel is right, and how fast, `python -m tools.judge` says.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn, assert_never

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from knowledge.device import Device, present_gpu, resolve
from knowledge.errors import BadInput
from tools.ahead import roofline_of
from tools.candidate import Candidate, backend_of
from tools.examine import examine
from tools.facts import ReferenceFacts, Roofline
from tools.judge.source import parse_candidate
from tools.materialise import materialise
from tools.profile.ladder import Climb, Subject, climb
from tools.profile.roofline import measure_roofline
from tools.reference import load
from tools.task import parse_task
from tools.told import printable
from tools.verdict import CounterReadings, ReportReadings, TimeReadings

BAD_INPUT = 2

app = typer.Typer(add_completion=False)


@app.command()
def run(
    reference: Annotated[Path, typer.Argument(help="file with Model, get_inputs, get_init_inputs")],
    candidate: Annotated[Path, typer.Argument(help="file with ModelNew")],
    target: Annotated[str, typer.Option(help="auto, cpu, cuda or a device's name")] = "auto",
    hot_spots: Annotated[
        bool, typer.Option("--hot-spots", help="the lines that warps wait at, by Nsight Compute")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON document")] = False,
) -> None:
    """Say where the time of CANDIDATE goes, by the best instrument that this machine allows.

    Exit code 0, also where no instrument could be read; 2 on bad input.
    """
    try:
        kernel = _read_candidate(candidate)
        device = resolve(target, "--target")
        if device.kind == "hip":
            raise BadInput("--target", f"no backend prints kernels for {device.title}.")
        facts = _facts(reference)
        subject = Subject(candidate=kernel, reference=facts.source, moved_bytes=facts.moved_bytes)
        gpu = present_gpu() if device.kind == "cuda" else None
        present = device.kind == "cpu" or (gpu is not None and gpu.name == device.name)
        found = climb(subject, device, present=present, hot_spots=hot_spots)
        roof = measure_roofline(facts) if device.kind == "cpu" else roofline_of(device, facts)
    except BadInput as error:
        _refuse(error)
    if as_json:
        sys.stdout.write(json.dumps(_document(device, found, roof), indent=1) + "\n")
    else:
        _show(device, found, roof)


def _read_candidate(path: Path) -> Candidate:
    try:
        source = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(str(path), f"cannot be read ({error}).") from error
    if (failed := parse_candidate(source)) is not None:
        mend = "A candidate defines class ModelNew(torch.nn.Module)."
        raise BadInput(str(path), f"{failed.log}.", mend)
    return Candidate(source=source, backend=backend_of(source))


def _facts(reference: Path) -> ReferenceFacts:
    raw = {"name": reference.stem or "op", "reference": str(reference), "target": "cpu"}
    task = parse_task(raw, str(reference), Path.cwd())
    return examine(load(materialise(task), str(reference)), task)


def forward_ms(found: Climb) -> float | None:
    """What a forward takes by the process's own clock; None where none ran under one."""
    readings = found.readings
    return readings.forward_us / 1e3 if isinstance(readings, TimeReadings) else None


def _document(device: Device, found: Climb, roof: Roofline) -> dict[str, Any]:
    taken = forward_ms(found)
    return {
        "device": device.name,
        **found.model_dump(mode="json"),
        "forward_ms": taken,
        "roofline": roof.model_dump(mode="json") | {"floor_ms": roof.floor_ms, "bound": roof.bound},
        "roofline_fraction": roof.fraction(taken) if taken else None,
    }


def _refuse(error: BadInput) -> NoReturn:
    sys.stderr.write(f"{error}\n")
    raise typer.Exit(BAD_INPUT)


def _show(device: Device, found: Climb, roof: Roofline) -> None:
    console = Console(highlight=False)
    console.print(f"[bold]{escape(found.rung)}[/] on {escape(device.title)}")
    for one in found.skipped:
        console.print(f"[yellow]no {escape(one.rung)}[/] {escape(printable(one.reason))}")
    for row in _rows(found):
        console.print(row)
    console.print(
        f"roofline: {roof.floor_ms:.3g} ms, {roof.bound}-bound: {roof.moved_bytes / 1e6:.1f} MB at "
        f"{roof.bandwidth_gbps:,.0f} GB/s, {roof.flops / 1e9:.3g} GFLOP at "
        f"{roof.peak_gflops:,.0f} GFLOP/s"
    )
    if taken := forward_ms(found):
        achieved = roof.moved_bytes / (taken * 1e6)
        console.print(
            f"a forward takes {taken:.3g} ms by its own clock: {achieved:,.1f} GB/s, "
            f"{roof.fraction(taken):.0%} of the roofline"
        )


def _rows(found: Climb) -> list[Table | str]:
    """What was read, as tables and lines."""
    match found.readings:
        case None:
            return []
        case TimeReadings() as timed:
            rows = [[one.name, f"{one.calls:g}", f"{one.self_us:,.1f}", f"{one.share:.1%}"]
                    for one in timed.kernels]  # fmt: skip
            told = [f"{name} {value:,.4g}" for name, value in timed.counters.items()]
            lines = [f"counted per forward: {', '.join(told)}"] if told else []
            if timed.copy_gbps:
                lines.append(f"a copy reaches {timed.copy_gbps:,.1f} GB/s in the same process")
            return [_table(("kernel", "calls", "us a forward", "share"), rows), *lines]
        case CounterReadings() as counted:
            names = dict.fromkeys(name for one in counted.kernels for name in one.metrics)
            rows = [
                [name, *(f"{one.metrics.get(name, float('nan')):,.6g}" for one in counted.kernels)]
                for name in names
            ]
            spots = [
                f"line {spot.line}, {spot.share:.0%} of samples: {escape(printable(spot.source))}"
                for spot in counted.hot_spots
            ]
            return [_table(("metric", *(one.function for one in counted.kernels)), rows), *spots]
        case ReportReadings() as report:
            rows = [[one.function, one.architecture, str(one.threads), str(one.registers),
                     str(one.spilled_bytes), str(one.shared_bytes), str(one.tensor_core),
                     f"{one.occupancy:.0%}"] for one in report.kernels]  # fmt: skip
            heads = ("kernel", "for", "threads", "registers", "spilled", "shared", "tensor core",
                     "occupancy")  # fmt: skip
            return [_table(heads, rows)]
        case _ as never:
            assert_never(never)


def _table(headings: tuple[str, ...], rows: list[list[str]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for number, heading in enumerate(headings):
        table.add_column(escape(heading), justify="right" if number else "left")
    for row in rows:
        table.add_row(*(escape(printable(cell)) for cell in row))
    return table


def main() -> None:
    """The command."""
    app()


if __name__ == "__main__":
    main()
