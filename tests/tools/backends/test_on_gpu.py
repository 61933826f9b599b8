"""CUDA C++ through the loader on a device: launches, shared memory, cooperation. Else it skips."""

import importlib

import pytest
import torch

pytestmark = pytest.mark.gpu

# The barrier is written out: cooperative_groups.h needs the headers of CCCL besides.
SOURCE = r"""extern "C" __global__ void twice(const float* x, float* y, long long n) {
    const long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i < n) y[i] = 2.0f * x[i];
}
extern "C" __global__ void turned(const float* x, float* y, long long n) {
    extern __shared__ float kept[];
    for (long long i = threadIdx.x; i < n; i += blockDim.x) kept[i] = x[i];
    __syncthreads();
    for (long long i = threadIdx.x; i < n; i += blockDim.x) y[i] = kept[n - 1 - i];
}
extern "C" __global__ void meet(volatile float* parts, float* total, unsigned int* arrived) {
    if (threadIdx.x != 0) return;
    parts[blockIdx.x] = 1.0f;
    __threadfence();
    atomicAdd(arrived, 1u);
    while (atomicAdd(arrived, 0u) < gridDim.x) {}
    __threadfence();
    if (blockIdx.x == 0) {
        float sum = 0.0f;
        for (unsigned int i = 0; i < gridDim.x; ++i) sum += parts[i];
        total[0] = sum;
    }
}
"""


@pytest.fixture(scope="module")
def loader():
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device here")
    pytest.importorskip("cuda.bindings.driver", reason="cuda-python is not installed")
    return importlib.import_module("tools.backends.cuda.loader")


def test_several_kernels_of_one_source_run_on_the_current_stream(loader):
    twice = loader.cuda_kernel(SOURCE, "twice", "ppi")
    x = torch.randn(100_003, device="cuda")
    y, z = torch.empty_like(x), torch.empty_like(x)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        twice((391,), (256,), x, y, x.numel())
        twice((391,), (256,), y, z, x.numel())
    side.synchronize()
    assert torch.equal(z, 4 * x)


def test_more_than_48_kb_of_dynamic_shared_memory_are_to_be_had(loader):
    turned = loader.cuda_kernel(SOURCE, "turned", "ppi")
    x = torch.arange(14_000.0, device="cuda")
    y = torch.empty_like(x)
    turned((1,), (512,), x, y, x.numel(), shared=4 * x.numel())
    assert torch.equal(y, x.flip(0))


def test_all_blocks_of_a_cooperative_launch_meet(loader):
    blocks = loader.resident_blocks(SOURCE, "meet", 128)
    assert blocks >= 1
    parts, total = torch.zeros(blocks, device="cuda"), torch.zeros(1, device="cuda")
    arrived = torch.zeros(1, dtype=torch.int32, device="cuda")
    meet = loader.cuda_kernel(SOURCE, "meet", "ppp")
    meet((blocks,), (128,), parts, total, arrived, cooperative=True)
    assert total.item() == blocks


def test_more_blocks_than_fit_are_refused_by_name(loader):
    blocks = 1 + loader.resident_blocks(SOURCE, "meet", 128)
    parts, total = torch.zeros(blocks, device="cuda"), torch.zeros(1, device="cuda")
    arrived = torch.zeros(1, dtype=torch.int32, device="cuda")
    meet = loader.cuda_kernel(SOURCE, "meet", "ppp")
    with pytest.raises(RuntimeError, match="meet: CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE"):
        meet((blocks,), (128,), parts, total, arrived, cooperative=True)
