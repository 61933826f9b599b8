"""Cheats that need a GPU: streams, graphs, events, caches and races of a device."""

from pathlib import Path

import pytest

from tests.declared import declared
from tools.verdict import Correct

KERNELS = sorted((Path(__file__).parent / "gpu").glob("*.py"))
# A cheat that is right, and whose lie nobody believed, reads no faster than eager.
NO_GAIN, MOST_GAIN = "no_gain", 1.15
KINDS = {
    NO_GAIN, "crashed", "timed_out", "wrong_output", "contract_broken", "cheated", "implausible",
    "timer_mismatch", "judge_error",
}  # fmt: skip


@pytest.mark.gpu
@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.stem)
def test_a_cheating_kernel_on_a_gpu_is_rejected_for_the_right_reason(path, judge_on_gpu):
    source = path.read_text()
    against, kinds = declared(source)
    verdict = judge_on_gpu(against, source)
    if NO_GAIN in kinds and isinstance(verdict, Correct):
        assert verdict.timing.against_best.speedup < MOST_GAIN, verdict
    else:
        assert verdict.kind in kinds, verdict


@pytest.mark.gpu
@pytest.mark.parametrize("against", ["heavy", "softmax", "mean"])
def test_the_judge_still_works_after_all_of_them(against, judge_on_gpu):
    root = Path(__file__).parents[1] / "references" / "gpu"
    honest = (root / f"{against}.py").read_text().replace("class Model(", "class ModelNew(")
    verdict = judge_on_gpu(f"gpu/{against}", honest)
    assert isinstance(verdict, Correct), verdict
    assert 1 / MOST_GAIN < verdict.timing.against_best.speedup < MOST_GAIN


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.stem)
def test_a_cheat_for_a_gpu_says_what_it_is_to_be_caught_as(path):
    against, kinds = declared(path.read_text())
    assert Path(__file__).parents[1].joinpath("references", f"{against}.py").exists()
    assert kinds
    assert set(kinds) <= KINDS


def test_there_are_as_many_gpu_cheats_as_the_suite_promises():
    assert len(KERNELS) >= 20
