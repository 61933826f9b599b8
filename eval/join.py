"""Offer this machine to evaluations: `python -m eval.join [ADDRESS]` starts Ray with its lanes.

The first machine is started without an address, and tells what the others are to be given.
"""

import json
import os
import sys
from typing import Annotated

import typer

from eval.fleet import require_ray
from eval.fleet.lanes import lanes_here
from knowledge.errors import BadInput

PORT = 6379
BAD_INPUT = 2

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def main(
    address: Annotated[
        str, typer.Argument(metavar="[HOST:PORT]", help="of the first machine; none to be it")
    ] = "",
    port: Annotated[int, typer.Option("--port", help="of the first machine")] = PORT,
    host: Annotated[
        str, typer.Option("--host", help="this machine's own address in the fleet's network")
    ] = "",
    cpu: Annotated[
        bool, typer.Option("--cpu", help="offer the CPU too, on a machine that has GPUs")
    ] = False,
    stay: Annotated[
        bool, typer.Option("--stay", help="end with this command, e.g. as a service")
    ] = False,
) -> None:
    """Start Ray on this machine with a lane for each device that kernels can be timed on.

    Whoever reaches Ray's ports can run anything on these machines: a network of your own.
    """
    try:
        require_ray("python -m eval.join")
    except BadInput as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(BAD_INPUT) from error
    lanes = lanes_here(cpu=cpu)
    sys.stderr.write(f"offering {', '.join(f'{k} x {v:g}' for k, v in sorted(lanes.items()))}\n")
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--disable-usage-stats"]
    command += [f"--address={address}"] if address else ["--head", f"--port={port}"]
    command += [] if address else ["--include-dashboard=false"]
    command += [f"--node-ip-address={host}"] if host else []
    command += [f"--resources={json.dumps(lanes)}"]
    command += ["--block"] if stay else []
    sys.stderr.flush()
    # In the place of this process, so that whoever ends the one ends the other.
    os.execv(sys.executable, command)


if __name__ == "__main__":
    app()
