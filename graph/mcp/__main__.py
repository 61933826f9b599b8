"""`python -m graph.mcp`: the server, over standard input and output, or over HTTP on loopback."""

import importlib
import sys

from graph.shadows import shadowed

BAD_INPUT = 2


def main() -> None:
    """The command."""
    if told := shadowed():
        sys.stderr.write(f"{told}\n")
        sys.exit(BAD_INPUT)
    # Imported only now: what is shadowed would be a traceback.
    importlib.import_module("graph.mcp.command").app(prog_name="python -m graph.mcp")


if __name__ == "__main__":
    main()
