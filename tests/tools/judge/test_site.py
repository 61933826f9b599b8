import subprocess
import sys

import pytest
import torch

from knowledge.errors import BadInput
from tests.cuda_compiler import needs_nvrtc
from tools.backends.cpp.build import extract_sources
from tools.judge.site import Host, compile_cuda, device_lock, site_of, wants_gpu
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


def test_a_runner_has_no_more_than_its_share_of_the_control_groups_memory(monkeypatch):
    monkeypatch.setattr("tools.judge.site.memory_bytes", lambda: 8 << 30)
    assert Host().memory(1 << 40) == 6 << 30
    assert Host().memory(0) == 4 << 30


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


CUDA = """import torch
from tools.backends.cuda.loader import cuda_kernel
kernel = cuda_kernel(r'''extern "C" __global__ void twice(float* x, long long n) {
    const long long i = blockIdx.x * 256ll + threadIdx.x;
    if (i < n) x[i] *= 2.0f;
}
''', "twice", "pi")
class ModelNew(torch.nn.Module):
    pass
"""


@needs_nvrtc
def test_cuda_in_a_candidate_is_compiled_once_where_its_loader_looks(tmp_path):
    loader = pytest.importorskip("tools.backends.cuda.loader")
    texts = extract_sources(CUDA, "cuda_kernel")
    assert compile_cuda(texts, "sm_90", tmp_path) is None
    cubin = tmp_path / loader.cubin_name(texts[0].source, "sm_90", texts[0].flags)
    assert cubin.read_bytes().startswith(b"\x7fELF")


@needs_nvrtc
def test_cuda_that_does_not_compile_is_told_with_its_line(tmp_path):
    texts = extract_sources(CUDA.replace("*= 2.0f;", "*= two;"), "cuda_kernel")
    failed = compile_cuda(texts, "sm_90", tmp_path)
    assert failed is not None
    assert failed.log.startswith("kernel.cu:3: for sm_90:")
    assert "x[i] *= two;" in failed.log
    assert not list(tmp_path.iterdir())
