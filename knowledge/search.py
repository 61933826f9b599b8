"""`python -m knowledge.search "query"`: ask the library, as the agents do."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.rule import Rule
from rich.text import Text

from knowledge.errors import BadInput
from knowledge.pages import MARKED
from knowledge.store import Library, Passage

app = typer.Typer(add_completion=False)


@app.command()
def search(  # noqa: PLR0913 - a command's options are its parameters
    query: Annotated[str, typer.Argument(help="Symptoms, operators or an error message.")],
    k: Annotated[int, typer.Option("-k", min=1, max=100, help="How many passages.")] = 5,
    kind: Annotated[
        str | None,
        typer.Option(help="hardware, language, pattern, profile, repair or document."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or a device's name.")] = None,
    language: Annotated[str | None, typer.Option(help="cpp, cuda, triton or python.")] = None,
    op: Annotated[str | None, typer.Option(help="An operator, e.g. softmax.")] = None,
    bottleneck: Annotated[
        str | None, typer.Option(help="memory, compute, latency or pages.")
    ] = None,
    place: Annotated[
        str | None,
        typer.Option("--library", metavar="FOLDER|URL", help="Not $KERNELWRIGHT_LIBRARY's."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Print the passages that answer a query, best first."""
    try:
        library = Library.open(place)
        report = library.refresh()
        if report.rebuilt and report.dropped:
            gone = f"{report.dropped} documents that can't be read now have left it"
            sys.stderr.write(f"the library was built anew ({report.rebuilt}): {gone}\n")
        found = library.search(
            query,
            k,
            kind=kind,
            device=device,
            language=language,
            op=op,
            bottleneck=bottleneck,
        )
    except BadInput as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(2) from error
    if as_json:
        document = {"query": query, "passages": [passage.model_dump() for passage in found]}
        sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
        return
    _show(found)


def _show(found: list[Passage]) -> None:
    screen = Console()
    if not found:
        screen.print("Nothing in the library answers that.")
    for passage in found:
        heading = Text.assemble((passage.title, "bold"), f"  {passage.score:.2f}")
        screen.print(Rule(heading, align="left"))
        screen.print(passage.source, style="dim", markup=False, highlight=False)
        suffix = Path(passage.source.split("#")[0]).suffix.lower()
        # Source code and plain text would lose their lines and whatever looks like a tag.
        marked = suffix in MARKED or passage.kind != "document"
        screen.print(Markdown(passage.text) if marked else Text(passage.text))


if __name__ == "__main__":
    app()
