"""`python -m benchmarks.judge`: how fast the judge is, and how still, on this machine.

Everything goes through the judge's public client, except that a fork is timed at the zygote. What
lies within one judgement is told apart by candidates that fail at different points of it.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn
from rich.table import Table

from knowledge.errors import BadInput
from tools.candidate import Candidate, backend_of
from tools.judge.client import Judge
from tools.judge.zygote import Zygote
from tools.runner.jail import PROJECT, strongest_jail
from tools.task import parse_task
from tools.verdict import Correct, Verdict

BAD_INPUT = 2
RUNNER_MEMORY = 4 << 30
# Whoever writes candidates needs longer than this for one, and the judge has its next runner ready.
PAUSE_SECONDS = 0.1
# Elements of a GELU in float32, for calls of about 0.05, 0.3, 2 and 20 ms on two cores; what they
# do take is shown.
SIZES = {"0.05 ms": 1 << 16, "0.3 ms": 1 << 19, "2 ms": 1 << 22, "20 ms": 1 << 25}

REFERENCE = """import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return {answer}


def get_inputs():
    return [torch.randn({shape})]


def get_init_inputs():
    return []
"""
SQUARE = REFERENCE.format(answer="x * x + 1", shape="16, 64")
CPP = """import torch

from tools.backends.cpp.loader import cpp_kernel

SOURCE = r'''
#include <cstdint>
// {tag}
extern "C" void run(const float* x, float* y, int64_t count) {{
  for (int64_t i = 0; i < count; ++i) y[i] = x[i] * x[i] + {constant};
}}
'''
run = cpp_kernel(SOURCE, "run", "ppi")


class ModelNew(torch.nn.Module):
    def forward(self, x):
        x = x.contiguous()
        y = torch.empty_like(x)
        run(x, y, x.numel())
        return y
"""


@dataclass(frozen=True)
class Figure:
    """One figure. `low` and `high` are the quartiles of the repetitions."""

    what: str
    unit: str
    median: float
    low: float
    high: float
    repetitions: int
    target: str = ""
    met: bool | None = None


def figure(
    what: str, unit: str, values: list[float], target: float | None = None, at_least: bool = False
) -> Figure:
    """The median of repetitions, and whether it meets its target."""
    middle = statistics.median(values)
    low, _, high = (
        statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else (middle,) * 3
    )
    if target is None:
        return Figure(what, unit, middle, low, high, len(values))
    met = middle >= target if at_least else middle <= target
    word = "at least" if at_least else "at most"
    return Figure(what, unit, middle, low, high, len(values), f"{word} {target:g}", met)


@contextmanager
def judge_of(source: str) -> Iterator[Judge]:
    """A judge of one reference, started and with its exam written."""
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "reference.py").write_text(source, encoding="utf-8")
        task = parse_task({"name": "bench", "reference": "reference.py"}, "bench", folder)
        with Judge(task, folder / "scratch") as judge:
            _timed(judge, _torch(source, "first"), "correct")
            yield judge


def _torch(reference: str, tag: str) -> str:
    return f"{reference.replace('Model(', 'ModelNew(')}\n# {tag}\n"


def _timed(judge: Judge, source: str, expected: str) -> float:
    """Milliseconds of one verification, which must end as expected.

    Raises:
        BadInput: it does not, so that its time would mean nothing.
    """
    candidate = Candidate(source=source, backend=backend_of(source))
    began = time.perf_counter()
    verdict = judge.verify(candidate)
    took = (time.perf_counter() - began) * 1e3
    _require(verdict, expected)
    return took


def _spaced(judge: Judge, source: str, expected: str) -> float:
    """As `_timed`, but not on the heels of the last one, as candidates never come."""
    time.sleep(PAUSE_SECONDS)
    return _timed(judge, source, expected)


def _require(verdict: Verdict, expected: str) -> None:
    if verdict.kind != expected:
        what = f"{verdict.kind} instead of {expected}: {verdict.model_dump_json()[:500]}"
        raise BadInput("the judge on this machine", what)


def throughput(judge: Judge, repetitions: int) -> list[Figure]:
    """Distinct C++ candidates, compiled and put to the whole exam."""
    times = []
    for number in range(repetitions):
        source = CPP.format(tag=f"distinct {number} {time.time_ns()}", constant=1)
        times.append(_timed(judge, source, "correct"))
    rates = [60e3 / took for took in times]
    what = "C++ candidates compiled and verified, one lane"
    return [figure(what, "a minute", rates, 60, at_least=True)]


def first_verdicts(judge: Judge, repetitions: int) -> list[Figure]:
    """From the request, with everything built, to the verdict on a wrong candidate."""
    compiled = CPP.format(tag="wrong", constant=2)
    _timed(judge, compiled, "wrong_output")
    wrong = _torch(SQUARE, "wrong").replace("+ 1", "+ 2")
    cases = (("torch", wrong), ("C++", compiled))
    return [
        figure(
            f"built to first verdict, wrong in {name}", "ms",
            [_spaced(judge, source, "wrong_output") for _ in range(repetitions)], 15,
        )
        for name, source in cases
    ]  # fmt: skip


def parts(judge: Judge, repetitions: int) -> list[Figure]:
    """The cost of each part, as the difference of candidates that fail before and after it."""
    right = _torch(SQUARE, "right")
    ends = {
        "fork, end, reply": (f"raise ValueError\n{right}", "build_failed"),
        "import and construct": (
            right.replace(
                "    def forward",
                "    def __init__(self):\n        super().__init__()\n        raise ValueError\n\n"
                "    def forward",
            ),
            "crashed",
        ),
        "bind, first call": (
            right.replace("return x *", "raise ValueError; return x *"),
            "crashed",
        ),
        "copy and mark": (right.replace("+ 1", "+ 2"), "wrong_output"),
        "all other cases": (right, "correct"),
    }
    times: dict[str, list[float]] = {name: [] for name in ends}
    for _ in range(repetitions):
        for name, (source, expected) in ends.items():
            times[name].append(_timed(judge, source, expected))
    found, before = [], [0.0] * repetitions
    for name, taken in times.items():
        differences = [now - then for now, then in zip(taken, before, strict=True)]
        found.append(figure(f"part: {name}", "ms", differences))
        before = taken
    return found


def forks(repetitions: int) -> list[Figure]:
    """From asking the zygote to a confined runner that waits, and ending it."""
    ready, ended = [], []
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        zygote = Zygote(strongest_jail(), Path(folder), ahead=False)
        try:
            zygote.fork(RUNNER_MEMORY, {}).close()
            for _ in range(repetitions):
                began = time.perf_counter()
                runner = zygote.fork(RUNNER_MEMORY, {})
                ready.append((time.perf_counter() - began) * 1e3)
                began = time.perf_counter()
                runner.close()
                ended.append((time.perf_counter() - began) * 1e3)
        finally:
            zygote.close()
    return [figure("fork to ready", "ms", ready), figure("end of a runner", "ms", ended)]


def command(repetitions: int) -> list[Figure]:
    """`python -m tools.judge --no-time`, the whole process."""
    seconds = []
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        reference, candidate = Path(name, "reference.py"), Path(name, "candidate.py")
        reference.write_text(SQUARE, encoding="utf-8")
        candidate.write_text(_torch(SQUARE, "right"), encoding="utf-8")
        line = [sys.executable, "-m", "tools.judge", str(reference), str(candidate), "--no-time"]
        for _ in range(repetitions):
            began = time.perf_counter()
            done = subprocess.run(line, cwd=PROJECT, capture_output=True, text=True, check=False)
            seconds.append(time.perf_counter() - began)
            if done.returncode != 0:
                raise BadInput("tools.judge", f"ended with {done.returncode}: {done.stderr[-500:]}")
    return [figure("python -m tools.judge --no-time", "s", seconds, 6)]


def against_itself(name: str, elements: int, repetitions: int) -> tuple[list[Figure], list[bool]]:
    """The reference as its own candidate: how far from 1, and how often it is called faster."""
    answer = "torch.nn.functional.gelu(x)"
    source = REFERENCE.format(answer=answer, shape=elements)
    off, half_widths, noise, calls, wins = [], [], [], [], []
    refused: list[str] = []
    with judge_of(source) as judge:
        for number in range(repetitions):
            candidate = Candidate(source=_torch(source, f"again {number}"), backend="torch")
            verdict = judge.measure(candidate, ("eager",))
            timing = verdict.timing if isinstance(verdict, Correct) else None
            if timing is None:
                refused.append(verdict.kind)
                continue
            row = timing.against_best
            off.append(abs(row.speedup - 1) * 100)
            half_widths.append((row.high - row.low) / 2 * 100)
            noise.append(timing.noise * 100)
            calls.append(row.baseline_ms)
            wins.append(timing.faster)
    told = f"same kernel, {name}: refused {', '.join(sorted(set(refused)))}".rstrip()
    count = float(len(refused))
    rejected = Figure(
        told, f"of {repetitions}", count, count, count, repetitions, "at most 0", not refused
    )
    if not off:
        return [rejected], wins
    return [
        rejected,
        figure(f"same kernel, {name}: off from 1", "%", off, 1),
        figure(f"same kernel, {name}: half of the interval", "%", half_widths),
        figure(f"same kernel, {name}: noise that the judge shows", "%", noise),
        figure(f"same kernel, {name}: one call", "ms", calls),
    ], wins


def measure_all(scale: float, tell: Callable[[str], None]) -> list[Figure]:
    """Every figure; `scale` multiplies the numbers of repetitions."""

    def times(usual: int) -> int:
        return max(2, round(usual * scale))

    found: list[Figure] = []
    with judge_of(SQUARE) as judge:
        tell("compiling and verifying")
        found += throughput(judge, times(30))
        tell("first verdicts")
        found += first_verdicts(judge, times(50))
        tell("parts of a judgement")
        found += parts(judge, times(40))
    tell("forks")
    found += forks(times(50))
    tell("the command")
    found += command(times(5))
    wins: list[bool] = []
    for name, elements in SIZES.items():
        tell(f"the same kernel against itself, {name}")
        figures, won = against_itself(name, elements, times(10))
        found += figures
        wins += won
    false_wins = float(sum(wins))
    found.append(
        Figure(
            "called faster than itself", f"of {len(wins)}", false_wins, false_wins, false_wins,
            len(wins), "at most 0", not false_wins,
        )
    )  # fmt: skip
    return found


def run(
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON document")] = False,
    scale: Annotated[float, typer.Option(help="multiplies the numbers of repetitions")] = 1.0,
) -> None:
    """Measure the judge on this machine, which should be doing nothing else.

    Exit code 0, whatever the figures are; 2 where the judge does not work here.
    """
    console = Console(stderr=True)
    try:
        if scale <= 0:
            raise BadInput("--scale", f"{scale:g} is too small.", "Give a number above 0.")
        with Progress(
            SpinnerColumn(), TextColumn("{task.description}"), console=console, transient=True
        ) as progress:
            bar = progress.add_task("starting")
            found = measure_all(scale, lambda text: progress.update(bar, description=text))
    except BadInput as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(BAD_INPUT) from error
    if as_json:
        document: dict[str, Any] = {"figures": [asdict(one) for one in found]}
        sys.stdout.write(json.dumps(document, indent=1) + "\n")
    else:
        show(found)


def show(found: list[Figure]) -> None:
    """The table, for people."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for number, heading in enumerate(("", "median", "quartiles", "unit", "target", "n")):
        table.add_column(heading, justify="right" if number in (1, 2, 5) else "left")
    for one in found:
        colour = {True: "green", False: "red", None: "default"}[one.met]
        table.add_row(
            one.what, f"[{colour}]{one.median:.3g}[/]", f"{one.low:.3g} to {one.high:.3g}",
            one.unit, one.target, str(one.repetitions),
        )  # fmt: skip
    Console(highlight=False).print(table)


def main() -> None:
    """The command."""
    typer.run(run)


if __name__ == "__main__":
    main()
