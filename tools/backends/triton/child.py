"""The untrusted side: loads candidates, records what they launch, answers one line of JSON.

Started by `jailed.py` as `python -m tools.backends.triton.child WHAT`, with the job on standard
input. What it answers helps the crew; it is never a verdict: the candidate shares the process.
"""

import copy
import importlib
import json
import os
import sys
import tempfile
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch.utils import _pytree as pytree

from tools.importing import import_file

CANDIDATE = "candidate"


def load(source: str, name: str) -> ModuleType:
    """A source text as a module with a file, from which Triton reads its kernels."""
    path = Path(tempfile.mkdtemp()) / f"{name}.py"
    path.write_text(source, encoding="utf-8")
    return import_file(path, name)


def constructor_arguments(reference: ModuleType) -> list[Any]:
    """What the reference hands to its constructor."""
    return list(getattr(reference, "get_init_inputs", list)())


def map_tensors(change: Any, values: Any) -> Any:
    """The same values with every tensor changed."""
    return pytree.tree_map(lambda v: change(v) if isinstance(v, torch.Tensor) else v, values)


def place_of(error: BaseException, name: str = CANDIDATE) -> int:
    """The last line of the candidate's file on an error's way; 0 if it did not pass there."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f.lineno or 0 for f in frames if Path(f.filename).name == f"{name}.py"]
    if isinstance(error, SyntaxError) and error.lineno and not lines:
        return error.lineno
    return lines[-1] if lines else 0


def told(error: BaseException) -> str:
    """An error in one paragraph."""
    return f"{type(error).__name__}: {error}"[:2000]


def doubled(model: torch.nn.Module, inputs: Any) -> tuple[torch.nn.Module, Any]:
    """The reference and its inputs in float64."""
    wide = map_tensors(lambda t: t.double() if t.is_floating_point() else t, inputs)
    return copy.deepcopy(model).double(), wide


def main(what: str) -> None:
    """Answer the job on standard input."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # Whatever a candidate prints goes where errors go.
    os.dup2(2, 1)
    job = json.load(sys.stdin)
    torch.set_num_threads(1)
    work = importlib.import_module(f"tools.backends.triton.{what}")
    answers.write(json.dumps(work.answer(job)))
    answers.flush()
    # A candidate's threads and exit handlers have no say in how this ends.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
