"""A Python file as a module; importing it runs it, so whoever asks has decided to trust it."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def import_file(path: Path, name: str) -> ModuleType:
    """The module in a file, run anew and registered under a name.

    It stays registered where running it raises, so that whoever catches that may look at it.
    """
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise RuntimeError(f"Python has no loader for {path.name}")
    module = importlib.util.module_from_spec(spec)
    # Triton, inspect and torch's exporter look source and classes up by the module's name.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
