"""The candidates of a soak: each kind's source, and the verdict that it must get.

Every source carries a tag of its own. Where the kind allows it the tag comes back in the verdict's
text by way of the runner (an exception's message, a print, the number of a wrong element), so that
a verdict which was made by another candidate's run is found out.
"""

import random
from dataclasses import dataclass

from tools.candidate import Candidate

ROWS, COLUMNS = 16, 64
FIRST_WRONG_VALUE = 10_000

REFERENCE = """import torch


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
{parameters}
    def forward(self, x):
        return {answer}


def get_inputs():
    return [torch.randn({rows}, {columns})]


def get_init_inputs():
    return []
"""

CANDIDATE = """import ctypes
import os
import sys
import time

import torch

TAG = "{tag}"
done = []


def deed(x):
{deed}


{at_import}


class ModelNew(torch.nn.Module):
    def __init__(self):
        super().__init__()
{parameters}{at_construction}
    def forward(self, x):
        if not done:
            done.append(TAG)
            deed(x)
        y = {answer}
{spoil}
        return y
"""

CPP_HEAD = """from tools.backends.cpp.loader import cpp_kernel

SOURCE = r'''
#include <cmath>
#include <cstdint>
// {tag}
extern "C" void run(const float* x, const float* w, const float* b, float* y, int64_t rows,
                    int64_t columns, int64_t place, double wrong) {{
{broken}
  for (int64_t row = 0; row < rows; ++row) {{
    const float* from = x + row * columns;
    float* to = y + row * columns;
{loop}
  }}
  if (place >= 0) y[place] = float(wrong);
}}
'''
run = cpp_kernel(SOURCE, "run", "ppppiiid")


def launch(x, w, b):
    x = x.contiguous()
    y = torch.empty_like(x)
    run(x, w, b, y, x.shape[0], x.shape[1], {place}, {wrong})
    return y
"""


@dataclass(frozen=True)
class Reference:
    """A small op: as an expression in torch, and as the body of a C++ loop over rows."""

    name: str
    answer: str
    loop: str
    parameters: str = ""
    weights: tuple[str, str] = ("x", "x")

    @property
    def source(self) -> str:
        """The reference file."""
        return REFERENCE.format(
            parameters=self.parameters, answer=self.answer, rows=ROWS, columns=COLUMNS
        )


REFERENCES = (
    Reference(
        "affine",
        "x * self.scale + self.shift",
        "    for (int64_t i = 0; i < columns; ++i) to[i] = from[i] * w[i] + b[i];",
        f"        self.scale = torch.nn.Parameter(torch.randn({COLUMNS}))\n"
        f"        self.shift = torch.nn.Parameter(torch.randn({COLUMNS}))\n",
        ("self.scale", "self.shift"),
    ),
    Reference(
        "softmax",
        "torch.softmax(x, dim=1)",
        "    float top = from[0], total = 0;\n"
        "    for (int64_t i = 1; i < columns; ++i) top = from[i] > top ? from[i] : top;\n"
        "    for (int64_t i = 0; i < columns; ++i) total += to[i] = std::exp(from[i] - top);\n"
        "    for (int64_t i = 0; i < columns; ++i) to[i] /= total;",
    ),
    Reference(
        "square",
        "x * x + 1",
        "    for (int64_t i = 0; i < columns; ++i) to[i] = from[i] * from[i] + 1;",
    ),
)


@dataclass(frozen=True)
class Kind:
    """One kind of candidate.

    Attributes:
        name: what it does.
        verdict: the `kind` of the verdict that it must get.
        share: how often it is drawn, relative to the others.
        deed: statements run at the first call of forward.
        at_import, at_construction: statements run earlier.
        wrong: one element, whose number and value come from the tag, is set to another value.
        cpp: the answer comes from C++; `broken` stands in its body.
        tells: the verdict's text must hold the tag.
    """

    name: str
    verdict: str
    share: int
    deed: str = "pass"
    at_import: str = ""
    at_construction: str = ""
    wrong: bool = False
    cpp: bool = False
    broken: str = ""
    tells: bool = False


DAEMON = """if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(1000)
    os._exit(0)"""
FILES = """for folder in (".", os.environ["HOME"], os.environ["TMPDIR"], "/dev/shm", "/tmp"):
    for number in range(4):
        try:
            with open(f"{folder}/{TAG}-{number}", "w") as file:
                file.write(TAG * 1000)
        except OSError:
            pass
os.makedirs("deep/er/still", exist_ok=True)
os.symlink("/", "deep/er/root")"""

KINDS = (
    Kind("honest", "correct", 20),
    Kind("wrong", "wrong_output", 14, wrong=True, tells=True),
    Kind("raises at import", "build_failed", 4, at_import="raise ValueError(TAG)", tells=True),
    Kind("raises in constructor", "crashed", 4, at_construction="raise KeyError(TAG)", tells=True),
    Kind("raises in forward", "crashed", 6, "raise RuntimeError(TAG)", tells=True),
    Kind("segfaults", "crashed", 5, "print(TAG, flush=True)\nctypes.string_at(0)", tells=True),
    Kind("exits", "crashed", 5, "print(TAG, flush=True)\nos._exit(0)", tells=True),
    Kind("hangs", "timed_out", 3, "time.sleep(1000)"),
    Kind("spins", "timed_out", 1, "while True:\n    pass"),
    Kind(
        "wants all memory", "crashed", 4,
        "print(TAG, flush=True)\nkept = []\nwhile True:\n    kept.append(torch.empty(1 << 26))",
    ),
    Kind("uses much memory", "correct", 3, "torch.ones(1 << 24).add_(1)"),
    Kind(
        "leaves children", "correct", 4,
        "for _ in range(5):\n    if os.fork() == 0:\n        time.sleep(1000)",
    ),
    Kind("leaves a daemon", "correct", 4, DAEMON),
    Kind("leaves children and exits", "crashed", 2, f"{DAEMON}\nos._exit(3)"),
    Kind("writes files", "correct", 5, FILES),
    Kind("prints megabytes", "correct", 4, "for _ in range(8):\n    print(TAG * (1 << 15))"),
    Kind("closes all descriptors", "crashed", 4, "os.closerange(0, 65536)"),
    Kind("C++, right", "correct", 4, cpp=True),
    Kind("C++, wrong", "wrong_output", 3, cpp=True, wrong=True, tells=True),
    Kind("C++, not compiling", "build_failed", 3, cpp=True, broken="  {name};", tells=True),
    Kind(
        "C++, segfaulting", "crashed", 2, "print(TAG, flush=True)", cpp=True, tells=True,
        broken="  *(volatile int*)8 = 1;",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Suspect:
    """One candidate of a soak: what it is, and what its verdict's text must hold."""

    number: int
    kind: Kind
    reference: Reference
    candidate: Candidate
    tag: str
    told: tuple[str, ...]


def suspect(number: int, kind: Kind, reference: Reference, chance: random.Random) -> Suspect:
    """Candidate `number` of a soak, unlike any other in its text."""
    tag = f"soak_{number}_{chance.getrandbits(64):016x}"
    place = chance.randrange(ROWS * COLUMNS)
    value = FIRST_WRONG_VALUE + number
    told: tuple[str, ...] = ()
    if kind.tells:
        told = (f"element {place} ", f" {value} ") if kind.wrong else (tag,)
    source = _source(kind, reference, tag, (place, value))
    backend = "cpp" if kind.cpp else "torch"
    candidate = Candidate.model_validate({"source": source, "backend": backend, "labels": (tag,)})
    return Suspect(number, kind, reference, candidate, tag, told)


def _source(kind: Kind, reference: Reference, tag: str, wrong: tuple[int, int]) -> str:
    place, value = wrong
    head, answer, spoil = kind.at_import, reference.answer, ""
    if kind.cpp:
        head = CPP_HEAD.format(
            tag=tag, loop=reference.loop, broken=kind.broken.format(name=tag),
            place=place if kind.wrong else -1, wrong=float(value),
        )  # fmt: skip
        answer = "launch(x, {}, {})".format(*reference.weights)
    elif kind.wrong:
        spoil = f"y.view(-1)[{place}] = {value}"
    return CANDIDATE.format(
        tag=tag, deed=_indented(kind.deed, 4), at_import=head, parameters=reference.parameters,
        at_construction=_indented(kind.at_construction, 8) + "\n", answer=answer,
        spoil=_indented(spoil, 8),
    )  # fmt: skip


def _indented(code: str, by: int) -> str:
    return "\n".join(" " * by + line for line in code.splitlines())
