import subprocess
import sys

import pytest
import torch

from knowledge.errors import BadInput
from tools.judge.site import Host, device_lock, site_of, wants_gpu
from tools.task import Task

H200 = "NVIDIA H200"


def task(**given):
    return Task.model_validate({"name": "t", "reference": "t.py", **given})


@pytest.mark.parametrize("target", ["auto", "cuda", "h200-sxm", "cuda:h200-sxm"])
def test_a_task_for_the_present_gpu_is_judged_there(target):
    assert wants_gpu(task(target=target), H200)


@pytest.mark.parametrize("target", ["cpu", "h100-sxm5", "cuda:b200"])
def test_a_task_for_another_device_is_not(target):
    assert not wants_gpu(task(target=target), H200)


def test_kernels_in_cpp_are_the_cpus_even_beside_a_gpu():
    assert not wants_gpu(task(backend="cpp"), H200)


def test_without_a_gpu_auto_means_the_cpu():
    assert not wants_gpu(task(), "")
    if not torch.cuda.is_available():
        assert isinstance(site_of(task()), Host)


def test_cuda_without_a_gpu_is_one_line():
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(BadInput, match="no CUDA device"):
        site_of(task(target="cuda"))


def test_a_device_is_held_by_one_judge_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    program = (
        "import sys\nfrom tools.judge.site import device_lock\n"
        "try:\n    with device_lock('GPU-1', 0.1): print('had it')\n"
        "except TimeoutError: print('waited')\n"
    )

    def another():
        return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    with device_lock("GPU-1"):
        assert another().stdout.strip() == "waited"
    assert another().stdout.strip() == "had it"
