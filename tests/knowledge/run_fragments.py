"""Runs Python fragments of pages, one after the other, in Triton's interpreter.

A program of its own, since Triton decides on its import whether it interprets: prints one JSON
object that has, for each file named, what went wrong, or an empty string.
"""

import contextlib
import importlib.util
import json
import os
import sys
import traceback
from pathlib import Path

os.environ["TRITON_INTERPRET"] = "1"


def complaint(path: Path) -> str:
    """What is wrong with a fragment: it is imported, and its `check` called."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        # What it prints must not stand between the lines of the answer.
        with contextlib.redirect_stdout(sys.stderr):
            spec.loader.exec_module(module)
            module.check()
    except Exception:  # noqa: BLE001 - whatever a page does wrong is what is asked for
        return traceback.format_exc()
    return ""


if __name__ == "__main__":
    told = {path: complaint(Path(path)) for path in sys.argv[1:]}
    sys.stdout.write(json.dumps(told))
