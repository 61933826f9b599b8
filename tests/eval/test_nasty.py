"""Problems that break whatever runs them, through the real processes: each is a row, and the next
one runs.
"""

from pathlib import Path

import pytest

from eval import one
from eval.executor import Here
from eval.one import Arrangement
from eval.problem import Problem
from eval.results import Results, load
from eval.rows import Broken, Finished, Row
from eval.run import evaluate
from tools.task import parse_task

HEAD = "import os, time\nimport torch\nfrom torch import nn\n\n"
INPUTS = "\n\ndef get_inputs():\n    return [torch.randn(8)]\n"
FORWARD = "class Model(nn.Module):\n    def forward(self, x):\n        {body}\n"

NASTY = {
    "syntax": ("class Model(:\n" + INPUTS, "bad_input", "is not Python"),
    "no_model": (HEAD + INPUTS, "bad_input", "has no class Model"),
    "hangs_on_import": (HEAD + "time.sleep(10_000)\n", "timed_out", "without data"),
    "exits": (HEAD + FORWARD.format(body="os._exit(0)") + INPUTS, "bad_input", "process ended"),
    "segfaults": (
        HEAD + "import ctypes\n" + FORWARD.format(body="ctypes.string_at(0)") + INPUTS,
        "bad_input", "process ended",
    ),
    "forever": (
        HEAD + FORWARD.format(body="while True: x = x + 1") + INPUTS, "timed_out", "stopped after",
    ),
    "hoards": (
        HEAD + FORWARD.format(body="return x")
        + "\n\ndef get_inputs():\n    held = []\n    while True:\n"
        + "        held.append(bytearray(64 << 20)); time.sleep(0.02)\n",
        "out_of_memory", "all the memory",
    ),
    "floods": (
        HEAD + "while True:\n    os.write(2, b'x' * (1 << 20)); time.sleep(0.005)\n",
        "flooded", "filled the disk",
    ),
    "no_tensors": (
        HEAD + FORWARD.format(body="return {'y': 3, 'z': 'text'}") + INPUTS,
        "bad_input", "no tensor",
    ),
    "raises": (
        HEAD + FORWARD.format(body="raise KeyError('weights')") + INPUTS, "bad_input", "KeyError",
    ),
    "needs_keyword": (
        HEAD + "class Model(nn.Module):\n    def forward(self, x, *, scale):\n        return x\n"
        + INPUTS,
        "bad_input", "scale",
    ),
}  # fmt: skip
ENDLESS = ("hangs_on_import", "forever")
# Each of these takes seconds; the others go the same ways.
TELLING = ("hangs_on_import", "exits", "floods")
GIB = 1 << 30


class Hurry:
    """Lets those that never end have little time, and the others what a crowded machine takes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch

    def begin(self, problem: Problem) -> None:
        seconds = 8.0 if problem.task.name in ENDLESS else 120.0
        self.monkeypatch.setattr(one, "FOOTPRINT_S", seconds)

    def end(self, row: Row, results: Results) -> None:
        pass


def run_all(folder: Path, names: list[str], monkeypatch: pytest.MonkeyPatch) -> Results:
    """Evaluate these, then one more that is harmless but for its size, which is too large."""
    problems = []
    for number, name in enumerate(names, 1):
        file = folder / f"{name}.py"
        file.write_text(NASTY[name][0])
        raw = {"name": name, "reference": str(file), "target": "cpu"}
        problems.append(Problem(parse_task(raw, str(file), folder), number=number))
    last = folder / "large.py"
    last.write_text(
        HEAD + FORWARD.format(body="return x + 1")
        + "\n\ndef get_inputs():\n    return [torch.empty(25 << 30)]\n"
    )  # fmt: skip
    raw = {"name": "large", "reference": str(last), "target": "cpu"}
    problems.append(Problem(parse_task(raw, str(last), folder), number=len(names) + 1))
    results = Results(
        suite="nasty",
        started="2026-11-28",
        versions={},
        problems=tuple(problem.task.name for problem in problems),
    )
    out = folder / "out"
    given = Arrangement(out, memory_bytes=3 * GIB, wall_s=180.0)
    run = one.partial(one.execute, limits=one.Limits(3 * GIB, disk_bytes=256 << 20))
    evaluate(results, problems, Here(given, run), out, Hurry(monkeypatch))
    return load(out)


def check(results: Results, names: list[str]) -> None:
    assert [row.name for row in results.rows] == [*names, "large"]
    for name, row in zip(names, results.rows, strict=False):
        _, reason, told = NASTY[name]
        assert isinstance(row, Broken), (name, row)
        assert row.reason == reason, row
        assert told in row.error, row
    last = results.rows[-1]
    assert not isinstance(last, Finished)
    assert last.reason == "too_large"
    assert "100.0 GiB" in last.error
    assert results.summary.skipped == ("large",)


def test_what_breaks_is_a_row_and_what_follows_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(run_all(tmp_path, list(TELLING), monkeypatch), list(TELLING))


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NASTY if name not in TELLING])
def test_every_way_of_breaking_is_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    check(run_all(tmp_path, [name], monkeypatch), [name])
