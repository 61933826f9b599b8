"""The command's options; `__main__.py` first sees to it that our own packages are imported."""

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from knowledge.catalogue import home_folder
from knowledge.errors import BadInput

BAD_INPUT = 2
PORT = 8642

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def main(
    http: Annotated[
        bool, typer.Option("--http", help="serve HTTP on 127.0.0.1 instead of standard input")
    ] = False,
    port: Annotated[int, typer.Option("--port", help="for --http; 0: any that is free")] = PORT,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="folder of all runs; kernelwright/runs in the user's caches"),
    ] = None,
    library: Annotated[
        Path | None, typer.Option("--library", help="the library's folder, if not the user's own")
    ] = None,
    idle_minutes: Annotated[
        float, typer.Option("--idle-minutes", min=0.05, help="a task left alone so long stops")
    ] = 30.0,
) -> None:
    """Let an assistant optimise PyTorch ops, judge kernels, and write them itself.

    Over HTTP every request must bear the token, which is printed to standard error once, or taken
    from $KERNELWRIGHT_MCP_TOKEN.
    """
    try:
        _serve(http, port, out, library, idle_minutes)
    except BadInput as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(BAD_INPUT) from error


def _serve(
    http: bool, port: int, out: Path | None, library: Path | None, idle_minutes: float
) -> None:
    if importlib.util.find_spec("mcp") is None:
        raise BadInput("mcp", "is not installed.", "Do: pip install 'kernelwright[mcp]'")
    base = Path.cwd()
    runs = (out or home_folder().with_name("runs")).expanduser().resolve()
    try:
        runs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"--out {runs}", f"cannot be made ({error.strerror}).") from error
    library = library.expanduser().resolve() if library is not None else None
    # Processes that are started look for packages where they are: an assistant's project may well
    # have a `tools` of its own. What a reference imports is found there, after what is ours.
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [os.environ.get("PYTHONPATH", ""), str(base)])
    )
    os.chdir(runs)
    hall_module = importlib.import_module("graph.mcp.hall")
    serve = importlib.import_module("graph.mcp.serve")
    settings = hall_module.Settings(
        runs=runs, base=base, library=library, idle_seconds=idle_minutes * 60
    )
    hall = hall_module.Hall(settings)
    if http:
        serve.serve_http(hall, port)
    else:
        serve.serve_stdio(hall)
