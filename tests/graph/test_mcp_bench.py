"""The tools that look at one kernel, with real processes behind them."""

import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from mcp import Client

from graph.mcp.bench import Profiling
from graph.mcp.hall import ERRANDS, Hall
from knowledge.errors import BadInput
from tests.graph.conftest import LIMITS, RIGHT, WRONG
from tests.graph.mcp_bench import RELU, ask, refused, settings, with_client
from tools.candidate import Candidate
from tools.judge.client import JudgeClosed
from tools.task import Task

CPP = '''
import torch

from tools.backends.cpp.loader import cpp_kernel

SOURCE = """
#include <cstdint>
extern "C" void rectify(const float* x, float* y, int64_t n) {
    for (int64_t i = 0; i < n; ++i) y[i] = x[i] > 0 ? x[i] : WORD;
}
"""
rectify = cpp_kernel(SOURCE, "rectify", "ppi")


class ModelNew(torch.nn.Module):
    def forward(self, x):
        out = torch.empty_like(x)
        rectify(x.contiguous(), out, x.numel())
        return out
'''
REFERENCE = """
import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return torch.relu(x)


def get_inputs():
    return [torch.randn(64, 64)]


def get_init_inputs():
    return []
"""


@pytest.fixture(scope="module")
def told(
    tmp_path_factory: pytest.TempPathFactory, new_library: Callable[[], Path]
) -> dict[str, Any]:
    """What each tool says, in one conversation."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "mine.py").write_text(RIGHT)
    (folder / "kernels").mkdir()
    (folder / "kernels" / "helpers.py").write_text("from torch import relu\n")
    (folder / "kernels" / "model.py").write_text(f"from helpers import relu\n{REFERENCE}")
    hall = Hall(settings(folder, new_library(), limits=LIMITS))

    async def talk(client: Client) -> dict[str, Any]:
        return {
            # A path, beside which the server was started, and source.
            "right": await ask(
                client, "judge", reference=REFERENCE, candidate="mine.py", target="cpu"
            ),
            "wrong": await ask(client, "judge", **RELU, candidate=WRONG, timed=False),
            "compiles": await ask(
                client, "compile", candidate=CPP.replace("WORD", "0"), target="cpu"
            ),
            "broken": await ask(client, "compile", candidate=CPP, target="cpu"),
            "profile": await ask(client, "profile", **RELU, candidate=RIGHT),
            "neighbour": await ask(
                client, "profile", reference="kernels/model.py", candidate=RIGHT, target="cpu"
            ),
            "for a gpu": await refused(
                client, "compile", target="cpu",
                candidate=f'kernel = cuda_kernel("int x =", "k", "p")\n{RIGHT}',
            ),
            "raises": await refused(
                client, "judge", candidate=RIGHT, target="cpu",
                reference=REFERENCE.replace("torch.relu(x)", "1 / 0"),
            ),
        }  # fmt: skip

    return with_client(hall, talk)


def test_a_right_kernel_is_timed_against_every_baseline(told: dict[str, Any]) -> None:
    right = told["right"]
    assert right["accepted"]
    assert {row["name"] for row in right["baselines"]} >= {"eager", "compile"}
    assert right["speed"]["low"] <= right["speed"]["speedup"] <= right["speed"]["high"]
    assert not right["speed"]["confirmed"]


def test_a_wrong_kernel_is_rejected_and_not_timed(told: dict[str, Any]) -> None:
    wrong = told["wrong"]
    assert (wrong["accepted"], wrong["verdict"], wrong["speed"]) == (False, "wrong_output", None)
    assert "elements are wrong" in wrong["told"]


def test_a_reference_is_profiled_with_what_lies_beside_it(told: dict[str, Any]) -> None:
    assert told["neighbour"].keys() == told["profile"].keys()


def test_what_is_for_a_gpu_is_not_called_compiled_by_a_cpu(told: dict[str, Any]) -> None:
    assert "cuda:h200-sxm" in told["for a gpu"]


def test_the_compiler_is_quoted_as_data(told: dict[str, Any]) -> None:
    assert told["compiles"] == {"compiles": True, "told": "", "backend": "cpp"}
    assert not told["broken"]["compiles"]
    assert all(line.startswith("| ") for line in told["broken"]["told"].splitlines())
    assert "WORD" in told["broken"]["told"]


def test_a_profile_says_on_which_rung_it_stands(told: dict[str, Any]) -> None:
    profile = told["profile"]
    assert profile["rung"]
    assert profile["roofline"]["floor_ms"] > 0


def test_a_reference_that_raises_is_one_line(told: dict[str, Any]) -> None:
    assert "ZeroDivisionError" in told["raises"] or "division by zero" in told["raises"]


def test_errands_end_with_the_hall_also_those_that_have_no_thread_yet(tmp_path: Path) -> None:
    hall = Hall(settings(tmp_path, tmp_path / "library"))
    abandoned, ended = threading.Event(), list[bool]()

    def work() -> None:
        ended.append(abandoned.wait(30))

    errands = [hall.send(work, abandoned.set) for _ in range(ERRANDS + 2)]
    hall.close()
    assert all(errand.done() for errand in errands)
    assert ended == [True] * len(errands)
    with pytest.raises(BadInput, match="is shutting down"):
        hall.send(work, abandoned.set)


def profilers() -> list[psutil.Process]:
    """The processes of this one that profile."""
    found = []
    for one in psutil.Process().children():
        with suppress(psutil.Error):
            found += [one] if "tools.profile" in one.cmdline() else []
    return found


def test_a_profile_that_is_under_way_ends_with_the_hall_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch, reference = tmp_path / "scratch", tmp_path / "op.py"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    reference.write_text(REFERENCE)
    hall = Hall(settings(tmp_path, tmp_path / "library"))
    task = Task(name="relu", reference=reference, target="cpu")
    work = Profiling(Candidate(source=RIGHT, backend="torch"), task, hall)
    errand = hall.send(work.run, work.abandon)
    while not profilers() and not errand.done():
        time.sleep(0.02)
    hall.close()
    assert isinstance(errand.exception(0), JudgeClosed)
    assert profilers() == []
    assert list(scratch.iterdir()) == []
