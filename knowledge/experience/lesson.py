"""What was tried and what it gave: lessons, kept in a plain file that outlives any index.

A lesson is written once and never changed. Two ops are the same op where their fingerprints agree,
and alike where their signatures, the operators in words, are.
"""

import json
import os
import re
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from knowledge.opgraph import Frozen, Node, OpGraph, Ref
from knowledge.pattern import Step

# The share of two ops' operators that both have, from which one teaches about the other.
ALIKE = 0.75
# Operators that differ in a line of a kernel and in nothing of its plan.
ACTIVATIONS = frozenset((
    "celu", "elu", "gelu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "log_sigmoid",
    "mish", "relu", "relu6", "selu", "sigmoid", "silu", "softplus", "softsign", "tanh",
))  # fmt: skip


class Lesson(Frozen):
    """One judged attempt.

    `speedup`, `low` and `high` compare with the fastest baseline and are None where nothing was
    timed. `confirmed` says that the judge measured it again in a new process with new seeds.
    """

    fingerprint: str
    signature: str = Field(description="the op's operators in words, in execution order")
    device: str
    title: str
    steps: tuple[Step, ...]
    verdict: str = Field(description="the verdict's kind, e.g. correct or wrong_output")
    speedup: float | None = None
    low: float | None = None
    high: float | None = None
    confirmed: bool = False
    run_id: str
    when: str = Field(description="ISO 8601, UTC")

    @property
    def key(self) -> str:
        """Identity of the trial that it tells of: a repetition replaces what was known before."""
        what = [self.fingerprint, self.device, self.confirmed]
        what += [step.model_dump(mode="json", exclude={"part"}) for step in self.steps]
        return sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:24]


def signature(graph: OpGraph) -> str:
    """The operators in execution order, repetitions once, e.g. `linear add sum`."""
    return " ".join(dict.fromkeys(plain_op(node.target) for node in graph.calls))


def likeness(ours: str, theirs: str) -> float:
    """How much of two signatures is in both, from 0 to 1; one activation is as good as another."""
    first, second = ({_family(word) for word in text.split()} for text in (ours, theirs))
    return len(first & second) / len(first | second) if first and second else 0.0


def _family(word: str) -> str:
    return "activation" if word in ACTIVATIONS else word


def plain_op(target: str) -> str:
    """An operator's bare name: `aten.softmax.int` is `softmax`, `aten.add_.Tensor` is `add`."""
    parts = target.split(".")
    name = parts[1] if len(parts) > 1 and parts[0] in ("aten", "prims") else parts[-1]
    return re.sub(r"_+$", "", name) or target


def fingerprint(graph: OpGraph) -> str:
    """Identity of an op: structure, shapes, dtypes and constants, whatever the nodes are called."""
    numbers = {node.name: number for number, node in enumerate(graph.nodes)}
    described = {
        "nodes": [_described(node, numbers) for node in graph.nodes],
        "outputs": [_plain(ref, numbers) for ref in graph.outputs],
        "returns": graph.returns,
        "mutations": sorted(
            (path, numbers.get(name.partition("[")[0], -1), name.partition("[")[2])
            for path, name in graph.mutations.items()
        ),
        "training": graph.training,
    }
    text = json.dumps(described, sort_keys=True, separators=(",", ":"))
    return sha256(text.encode()).hexdigest()[:24]


def _described(node: Node, numbers: dict[str, int]) -> list[Any]:
    # A parameter's path is a name too; its place in the order and its shape identify it.
    target = node.target if node.kind in ("call", "input") else ""
    made = node.result if isinstance(node.result, tuple) else (node.result,)
    return [
        node.kind,
        target,
        [_plain(argument, numbers) for argument in node.args],
        {key: _plain(value, numbers) for key, value in sorted(node.kwargs.items())},
        [[spec.shape, spec.dtype, spec.strides] if spec else None for spec in made],
        node.data,
    ]


def _plain(argument: Any, numbers: dict[str, int]) -> Any:
    if isinstance(argument, Ref):
        return {"node": numbers[argument.ref], "index": argument.index}
    if isinstance(argument, list):
        return [_plain(item, numbers) for item in argument]
    return argument


def append_lesson(path: Path, lesson: Lesson) -> None:
    """Write one lesson to the end of the file, through to the disk; the caller holds the lock."""
    line = lesson.model_dump_json() + "\n"
    with path.open("ab+") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            # A process killed while writing leaves half a line; it must not swallow this one.
            line = line if file.read(1) == b"\n" else "\n" + line
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())


def read_lessons(path: Path) -> list[Lesson]:
    """All lessons, oldest first; half-written lines are passed over."""
    if not path.exists():
        return []
    lessons: list[Lesson] = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            lessons.append(Lesson.model_validate_json(line))
        except ValidationError:
            continue
    return lessons


def latest(lessons: Iterable[Lesson]) -> list[Lesson]:
    """The last account of each trial."""
    return list({lesson.key: lesson for lesson in lessons}.values())


def drop_lessons(path: Path, unwanted: Callable[[Lesson], bool]) -> tuple[list[Lesson], int]:
    """Write the file anew without some lessons, in one step; the caller holds the lock.

    A line that can't be read here, as of a later version, stays as it is.

    Returns:
        What is left, and how many were dropped.
    """
    kept: list[bytes] = []
    left: list[Lesson] = []
    dropped = 0
    for line in path.read_bytes().split(b"\n") if path.exists() else []:
        try:
            lesson = Lesson.model_validate_json(line)
        except ValidationError:
            kept += [line] if line.strip() else []
            continue
        if unwanted(lesson):
            dropped += 1
        else:
            left.append(lesson)
            kept.append(line)
    fresh = path.with_name(f"{path.name}.new")
    with fresh.open("wb") as file:
        file.writelines(line + b"\n" for line in kept)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    return left, dropped
