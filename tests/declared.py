"""What a kernel file of the evil and honest sets says of itself, read without running it."""

import ast
from typing import Any


def declared(source: str) -> tuple[str, tuple[str, ...]]:
    """The reference that it stands against, and how it is to be caught."""
    against, caught = _assigned(source, ("AGAINST", "CAUGHT"))
    return against, caught


def reference_of(source: str) -> str:
    """The reference that it stands against, and nothing to catch."""
    (against,) = _assigned(source, ("AGAINST",))
    return against


def _assigned(source: str, names: tuple[str, ...]) -> tuple[Any, ...]:
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Assign):
            (target,) = statement.targets
            parts = target.elts if isinstance(target, ast.Tuple) else [target]
            if tuple(part.id for part in parts if isinstance(part, ast.Name)) == names:
                value = ast.literal_eval(statement.value)
                return value if isinstance(target, ast.Tuple) else (value,)
    raise AssertionError(f"the kernel does not say {', '.join(names)}")
