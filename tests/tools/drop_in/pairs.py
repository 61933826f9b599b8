"""Reference and drop-in side by side, and how often the kernel was called."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

from tests.tools.shipping import NORM_REFERENCE, REFERENCE


def reference_of(source: str) -> Any:
    namespace: dict[str, Any] = {}
    exec(source, namespace)  # noqa: S102 - the test's own text
    return namespace["Model"]


Model, NormModel = reference_of(REFERENCE), reference_of(NORM_REFERENCE)


def pair(kernel: ModuleType, old: Any = Model, features: int = 5) -> tuple[Any, Any]:
    """Reference and drop-in with the same weights."""
    model, new = old(features), kernel.ModelNew(features)
    new.load_state_dict(model.state_dict())
    return model, new


def calls(kernel: ModuleType, call: Callable[[], Any]) -> tuple[int, Any]:
    """How often the kernel was called meanwhile, and what came of it."""
    before = len(kernel.CALLS)
    made = call()
    return len(kernel.CALLS) - before, made
