"""The modules that a reference imports from beside it, which must go wherever it goes."""

import ast
from collections.abc import Iterator
from pathlib import Path


def neighbours(file: Path, source: str | None = None) -> tuple[Path, ...]:
    """Every module and package beside a file that it imports, and those that they import.

    Args:
        file: a Python file.
        source: its text; None to read it. What is no Python imports nothing.
    """
    home = file.parent
    found: dict[Path, None] = {}
    waiting = list(_imported(source if source is not None else _text(file)))
    while waiting:
        name = waiting.pop().partition(".")[0]
        module, package = home / f"{name}.py", home / name
        if module.is_file():
            new = [module]
        elif (package / "__init__.py").is_file():
            new = sorted(package.rglob("*.py"))
        else:
            continue
        for one in new:
            if one != file and one not in found:
                found[one] = None
                waiting += _imported(_text(one))
    return tuple(found)


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8-sig", errors="replace")


def _imported(source: str) -> Iterator[str]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom(module=str(module)):
                yield module
            case ast.ImportFrom(module=None):
                yield from (alias.name for alias in node.names)
            case _:
                pass
