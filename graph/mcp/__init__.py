"""An MCP server: `python -m graph.mcp` lets an assistant optimise, judge, and write kernels itself.

`hall.py` holds what the server holds, `server.py` wires its tools and resources, `serve.py` speaks
to clients. Nothing here decides anything about kernels: the graph and the judge do.
"""
