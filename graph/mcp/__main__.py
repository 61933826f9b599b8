"""`python -m graph.mcp`: the server, over standard input and output, or over HTTP on loopback."""

import importlib
import sys

from graph.shadows import HOME, shadowed

BAD_INPUT = 2


def main() -> None:
    """The command."""
    # Its processes are started in the folder of all runs, whatever lies in this one.
    if told := shadowed(HOME):
        sys.stderr.write(f"{told}\n")
        sys.exit(BAD_INPUT)
    # Imported only now: what is shadowed would be a traceback.
    importlib.import_module("graph.mcp.command").app(prog_name="python -m graph.mcp")


if __name__ == "__main__":
    main()
