"""Cheats that need a GPU: streams, graphs, events, caches and races of a device."""

from pathlib import Path

import pytest
import torch

from tests.declared import declared

KERNELS = sorted((Path(__file__).parent / "gpu").glob("*.py"))


@pytest.mark.gpu
@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.stem)
def test_a_cheating_kernel_on_a_gpu_is_rejected_for_the_right_reason(path, judge_fully):
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device here, and this cheat needs one")
    source = path.read_text()
    against, kinds = declared(source)
    verdict = judge_fully(against, source, True)
    assert verdict.kind in kinds, verdict


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.stem)
def test_a_cheat_for_a_gpu_says_what_it_is_to_be_caught_as(path):
    against, kinds = declared(path.read_text())
    assert Path(__file__).parents[1].joinpath("references", f"{against}.py").exists()
    assert kinds
