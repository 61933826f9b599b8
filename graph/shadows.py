"""Finds packages of other people's that stand in the way of ours, which have everyday names."""

import importlib.util
import sys
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]
ROOMS = ("agents", "knowledge", "tools")
INSTEAD = (
    "Ways that can't collide: the MCP server of an environment of its own (kernelwright-mcp), and "
    "the HTTP API of langgraph dev."
)


def shadowed(folder: Path | None = None) -> str:
    """One line on a package that would be imported in the place of ours; empty where none is.

    Args:
        folder: where processes are started, which look for packages there first; None for the
            present one.
    """
    for room in ROOMS:
        found = _found(room)
        if found is None or found.parent.parent != HOME:
            where = f"at {found.parent}" if found is not None else "that is no package"
            return (
                f"another `{room}` ({where}) is imported instead of Kernelwright's, which is in "
                f"{HOME}: put that first on sys.path. {INSTEAD}"
            )
    here = (folder or Path.cwd()).resolve()
    if here != HOME:
        for room in (*ROOMS, "graph"):
            hits = [path for path in (here / room / "__init__.py", here / f"{room}.py")
                    if path.is_file()]  # fmt: skip
            if hits:
                return (
                    f"{hits[0]} would be imported instead of Kernelwright's `{room}` by the "
                    f"processes that are started here: work from another folder. {INSTEAD}"
                )
    return ""


def _found(name: str) -> Path | None:
    """The file that a package would be imported from."""
    loaded = getattr(sys.modules.get(name), "__file__", None)
    if loaded is None:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            return None
        loaded = spec.origin if spec is not None else None
    return Path(loaded).resolve() if loaded is not None else None
