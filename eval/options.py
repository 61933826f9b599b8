"""The options that commands over a whole suite have in common."""

from pathlib import Path
from typing import Annotated

import typer

Suite = Annotated[
    Path,
    typer.Argument(
        metavar="SUITE", help="a YAML list of tasks, or a folder of references or definitions"
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="replace a key of every task"),
]
Only = Annotated[
    str | None,
    typer.Option("--only", metavar="NAME[,NAME]", help="these problems; conv* is a pattern"),
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="run the first N problems only")]
MemoryGib = Annotated[
    float | None,
    typer.Option("--memory-gib", min=0.5, help="one problem may take; most of what is free"),
]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON document on standard output")]
Quiet = Annotated[bool, typer.Option("--quiet", help="no progress")]
