"""What can be said of a candidate without running it: it is Python, and defines ModelNew."""

import ast

from tools.verdict import BuildFailed


def parse_candidate(source: str) -> BuildFailed | None:
    """None where the source is Python that defines ModelNew; else what is missing."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        place = f" on line {line}" if line else ""
        return BuildFailed(
            log=f"the candidate is not Python: {getattr(error, 'msg', error)}{place}"
        )
    if not _defines(tree, "ModelNew"):
        return BuildFailed(log="the candidate has no class ModelNew")
    return None


def _defines(tree: ast.Module, name: str) -> bool:
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=found) if found == name:
                return True
            case ast.Name(id=found, ctx=ast.Store()) if found == name:
                return True
            case ast.alias(name=found, asname=alias) if name in (found, alias):
                return True
    return False
