"""The judge: trusted, in a process of its own. It never imports, runs or unpickles a candidate.

`Environment` is for whoever trains a model (`docs/training.md`). It is loaded when it is asked for:
the judge's own processes import this package, and have no use for it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tools.judge.environment import Environment

__all__ = ["Environment"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("tools.judge.environment"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
