"""An MCP server on standard input and output, as `python -m graph.mcp` is, with a test's limits."""

import os
import sys
from pathlib import Path

from graph.mcp.hall import Hall, Settings
from graph.mcp.serve import serve_stdio
from tests.graph.conftest import LIMITS

if __name__ == "__main__":
    runs, library = map(Path, sys.argv[1:])
    # A tool that prints must not break the protocol.
    os.write(2, b"ready\n")
    serve_stdio(Hall(Settings(runs, Path.cwd(), library, limits=LIMITS)))
