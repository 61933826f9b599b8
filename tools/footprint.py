"""`python -m tools.footprint TASK.yaml`: the memory that judging takes, reckoned without taking it.

The reference is constructed and run on fake tensors, which have shapes and no data. It is the
user's own code, so this is a process of its own; what can't be faked is said not to be known, and
then only the run itself can tell.
"""

import json
import sys
import weakref
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from knowledge.errors import BadInput
from tools.estimate import Estimate, Footprint, Scaled
from tools.materialise import materialise
from tools.reference import LoadedReference, load, named_tensors, tensors_of
from tools.scaling import Constant, halvings, rewrite
from tools.task import Task, load_task

BAD_INPUT = 2
SEED = 0
MOST_HALVINGS = 40


class _Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of storages that are alive at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self._holders: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = {tensor.untyped_storage()._cdata for tensor in tensors_of((args, kwargs or {}))}
        returned = func(*args, **(kwargs or {}))
        for tensor in tensors_of(returned):
            key = tensor.untyped_storage()._cdata
            # A view keeps alive what it looks at; what was there before isn't forward's.
            if key in given and key not in self._holders:
                continue
            self._hold(key, tensor)
        return returned

    def _hold(self, key: int, tensor: torch.Tensor) -> None:
        size = tensor.untyped_storage().nbytes()
        if key not in self._holders:
            self._holders[key] = 0
            self.now += size
            self.most = max(self.most, self.now)
        self._holders[key] += 1
        weakref.finalize(tensor, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._holders[key] -= 1
        if not self._holders[key]:
            del self._holders[key]
            self.now -= size


def footprint_of(loaded: LoadedReference) -> Footprint:
    """What a reference's tensors take.

    Raises:
        BadInput: it fails on fake tensors, its own fault or not.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = loaded.build(SEED)
        inputs = loaded.inputs(SEED)
        live = _Live()
        with live:
            returned = loaded.run(model, inputs, SEED)
        made = tensors_of(returned)
        outputs = _distinct_bytes(made)
        return Footprint(
            inputs=_distinct_bytes(tensors_of(inputs)),
            weights=_distinct_bytes(tuple(named_tensors(model).values())),
            outputs=outputs,
            working=max(0, live.most - outputs),
        )


def _distinct_bytes(tensors: tuple[torch.Tensor, ...]) -> int:
    storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def estimate(task: Task, limit: int | None = None, *, scale: bool = False) -> Estimate:
    """What judging a task takes, and, where it is too much and that is wished, smaller sizes.

    Args:
        task: what is to be judged.
        limit: bytes there are; None for no limit.
        scale: look for smaller sizes where more is needed.

    Raises:
        BadInput: the reference can't be read or imported.
    """
    source = materialise(task)
    origin = str(task.reference) if task.reference is not None else task.name
    loaded = load(source, origin)
    try:
        found = footprint_of(loaded)
    except BadInput as error:
        return Estimate(unknown=str(error))
    told = Estimate(footprint=found, needed=found.needed)
    if limit is None or found.needed <= limit or not scale:
        return told
    return _scaled(source, origin, limit) or told


def _scaled(source: str, origin: str, limit: int) -> Estimate | None:
    """The reference with constants halved until it fits; None where no halving leads there.

    One constant is halved at a time, the one that saves most, where the op still runs. Those that
    only inputs depend on go first: a batch may have any size, while weights are the op's own.
    """
    text, sizes = source, dict[str, tuple[int, int]]()
    for _ in range(MOST_HALVINGS):
        best: tuple[tuple[bool, int], Constant, str, Footprint] | None = None
        for constant in halvings(text):
            smaller = rewrite(text, constant, constant.value // 2)
            try:
                found = footprint_of(load(smaller, origin))
            except BadInput:
                continue
            rank = (not constant.inputs_only, found.needed)
            if best is None or rank < best[0]:
                best = (rank, constant, smaller, found)
        if best is None:
            return None
        _, halved, text, found = best
        given, _ = sizes.get(halved.name, (halved.value, 0))
        sizes[halved.name] = (given, halved.value // 2)
        if found.needed <= limit:
            scaled = tuple(Scaled(name=n, given=a, used=b) for n, (a, b) in sizes.items())
            return Estimate(footprint=found, needed=found.needed, scaled=scaled, source=text)
    return None


def run(
    task_file: Annotated[Path, typer.Argument(metavar="TASK.yaml", help="the task")],
    limit: Annotated[int | None, typer.Option("--limit", help="bytes of memory there are")] = None,
    scale: Annotated[
        bool, typer.Option("--scale", help="look for smaller sizes where that is too little")
    ] = False,
) -> None:
    """Print what judging a task takes of memory, as one JSON document."""
    try:
        found = estimate(load_task(task_file), limit, scale=scale)
    except BadInput as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(BAD_INPUT) from error
    sys.stdout.write(json.dumps(found.model_dump(mode="json"), indent=1) + "\n")


if __name__ == "__main__":
    typer.run(run)
