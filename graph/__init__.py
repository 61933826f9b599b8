"""How work flows: the state machine of a run, the ways into it, and what a person sees.

`from graph import optimize, aoptimize, build_graph, as_tool, Result, Interrupted` imports what is
asked for, and importing `graph` alone next to nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

from graph.shadows import shadowed

if TYPE_CHECKING:
    from graph.api import aoptimize, optimize
    from graph.build import build_graph
    from graph.drive import Interrupted
    from graph.langchain_tool import as_tool
    from graph.result import Result

__all__ = ["Interrupted", "Result", "aoptimize", "as_tool", "build_graph", "optimize"]

_HOMES = {
    "optimize": "graph.api",
    "aoptimize": "graph.api",
    "build_graph": "graph.build",
    "as_tool": "graph.langchain_tool",
    "Result": "graph.result",
    "Interrupted": "graph.drive",
}


def __getattr__(name: str) -> Any:
    """What the package gives by name.

    Raises:
        AttributeError: it has no such name.
        ImportError: another package stands in the way of one of ours; the message is one line.
    """
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if told := shadowed():
        raise ImportError(told)
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
