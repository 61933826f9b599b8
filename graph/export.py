"""`python -m graph.export RUN_DIR`: its kernel as a package, or in flashinfer-bench's schema."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from graph.record import RunRecord
from graph.shipping import shipment_of
from knowledge.errors import BadInput
from tools.flashinfer import write_flashinfer
from tools.package import module_name, write_package

BAD_INPUT = 2

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def main(
    run_dir: Annotated[Path, typer.Argument(help="a finished run's folder", metavar="RUN_DIR")],
    package: Annotated[
        str, typer.Option(metavar="NAME", help="write a package that pip installs by this name")
    ] = "",
    flashinfer: Annotated[
        bool, typer.Option("--flashinfer", help="write a Definition, its Workload and a Solution")
    ] = False,
    out: Annotated[Path, typer.Option(help="folder in which the new one is made")] = Path(),
    as_json: Annotated[
        bool, typer.Option("--json", help="one JSON document on standard output")
    ] = False,
) -> None:
    """Hand a run's kernel over. Exit code 0; 2: bad input."""
    try:
        written = _written(run_dir, package, flashinfer, out)
    except BadInput as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(BAD_INPUT) from error
    if as_json:
        sys.stdout.write(json.dumps({"written": written}) + "\n")
        return
    sys.stdout.writelines(f"{kind:<10}  {folder}\n" for kind, folder in written.items())


def _written(run_dir: Path, package: str, flashinfer: bool, out: Path) -> dict[str, str]:
    """What was written, and where."""
    if not (package or flashinfer):
        mend = "Say --package NAME, --flashinfer, or both."
        raise BadInput("command line", "doesn't say what to write.", mend)
    if package:
        module_name(package)
    record = read_record(run_dir)
    shipment = shipment_of(record)
    if shipment is None:
        raise BadInput(str(run_dir), f"has no correct kernel to hand over: {record.ended}.")
    written: dict[str, str] = {}
    if package:
        made = write_package(shipment, package, out, record.versions, record.started)
        written["package"] = str(made)
    if flashinfer:
        written["flashinfer"] = str(write_flashinfer(shipment, out, heaviest_call(record)))
    return written


def read_record(run_dir: Path) -> RunRecord:
    """The record of a run, from its folder.

    Raises:
        BadInput: there is none, or none that this version reads.
    """
    file = run_dir / "report.json"
    try:
        return RunRecord.model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            str(run_dir),
            "is not the folder of a finished run: there is no report.json that can be read.",
            "Give runs/<id>, or end the run: python -m graph.run --resume RUN_DIR",
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise BadInput(
            str(file), f"is no report of this version ({place}: {first['msg']})."
        ) from error


def heaviest_call(record: RunRecord) -> str:
    """The operator that takes most of the op's time, `op` where the op has no graph."""
    graph = record.facts.graph
    if graph is None or not graph.calls:
        return "op"
    times = record.facts.call_ms
    heaviest = max(graph.calls, key=lambda call: times.get(call.name, 0.0))
    parts = heaviest.target.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


if __name__ == "__main__":
    app()
