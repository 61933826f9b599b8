"""`python -m graph.report RUN_DIR`: makes a run's report again, from its folder alone."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from graph.folder import write_whole
from graph.report.load import load_record
from graph.report.pages import missing, pages_of
from graph.report.words import headline
from graph.report.write import write_page
from knowledge.errors import BadInput
from tools.secrets import redact

BAD_INPUT = 2

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def main(
    run_dir: Annotated[Path, typer.Argument(help="the folder of a run", metavar="RUN_DIR")],
    quiet: Annotated[
        bool, typer.Option("--quiet", help="print the path of the report and nothing else")
    ] = False,
) -> None:
    """Write RUN_DIR/report.html anew, and report.json where there is none.

    Exit code 0: written; 2: bad input.
    """
    try:
        folder = run_dir.resolve()
        record, notes = load_record(folder)
        pages = pages_of(record, folder)
        lacking = missing(record, pages)
        if lacking:
            notes += (f"cited pages that are not at hand: {', '.join(lacking)}",)
        try:
            page = write_page(record, folder, pages)
            if not (folder / "report.json").exists():
                write_whole(folder / "report.json", redact(record.model_dump_json(indent=2)))
        except OSError as error:
            raise BadInput(str(folder), f"cannot be written to ({error.strerror}).") from error
    except BadInput as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(BAD_INPUT) from error
    if not quiet:
        found = headline(record)
        sys.stderr.write(f"{record.task.name}: {found.title}. {found.sentence}\n")
        for note in notes:
            sys.stderr.write(f"{note}\n")
    sys.stdout.write(f"{page}\n")


if __name__ == "__main__":
    app()
