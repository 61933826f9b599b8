"""CUDA C++ compiled for GPUs that are not there: what it takes, and what a mistake looks like."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from knowledge.device import load_devices
from tests.cuda_compiler import needs_nvrtc
from tests.knowledge.cuda_host import sources_of
from tests.knowledge.test_loops_cuda import REST, SOME, in_cuda
from tests.knowledge.test_loops_triton import TELLING
from tests.patterns.workshop import Built, complaints
from tests.tools.backends.test_on_gpu import SOURCE as ON_GPU
from tools.backends.cuda.compile import (
    Compiled,
    CompiledKernel,
    CompileError,
    CudaSource,
    compile_sources,
    read_usage,
)
from tools.backends.cuda.loader import compile_cubin, cubin_name, find_or_compile
from tools.export import stand_alone
from tools.profile.occupancy import occupancy

A100, H100, T4 = (load_devices()[name] for name in ("a100-sxm4-80gb", "h100-sxm5", "t4"))
TWICE = """extern "C" __global__ void __launch_bounds__(256) twice(float* x, long long n) {
    const long long i = blockIdx.x * 256ll + threadIdx.x;
    if (i < n) x[i] *= 2.0f;
}
"""
LOG = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'twice' for 'sm_90'
ptxas info    : Function properties for twice
    16 bytes stack frame, 12 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 4224 bytes smem, 16 bytes cumulative stack size
ptxas info    : Compiling entry function 'other' for 'sm_90'
ptxas info    : Function properties for other
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, used 0 barriers
"""


def kernels_of(sources: dict[str, str], architectures: tuple[str, ...]) -> list[CompiledKernel]:
    """What every kernel of these references takes; all of them have to compile."""
    texts = [CudaSource(source=text) for one in sources.values() for text in _texts(one)]
    found: list[CompiledKernel] = []
    for row in compile_sources(texts, architectures):
        for answer in row:
            assert isinstance(answer, Compiled), answer.told()
            assert answer.cubin.startswith(b"\x7fELF")
            found += answer.kernels
    return found


def _texts(source: str) -> list[str]:
    return sources_of(in_cuda(source))


@needs_nvrtc
def test_every_kind_of_loop_compiles_for_hopper_without_spills() -> None:
    kernels = kernels_of(SOME, ("sm_90",))
    assert len(kernels) > 60
    for kernel in kernels:
        assert kernel.spill_store_bytes == kernel.spill_load_bytes == kernel.stack_bytes == 0
        assert kernel.shared_bytes <= 48 << 10
        # Blocks of __launch_bounds__ threads can be launched, and several at a time.
        found = occupancy(H100, kernel.threads, kernel.registers, kernel.shared_bytes)
        assert found.blocks >= 1, kernel
        assert kernel.threads <= 64 or found.share >= 0.2, kernel


@needs_nvrtc
@pytest.mark.slow
def test_every_other_op_compiles_for_hopper_without_spills() -> None:
    assert not any(kernel.spill_store_bytes for kernel in kernels_of(REST, ("sm_90",)))


@needs_nvrtc
def test_some_loops_compile_for_the_generations_before_and_after() -> None:
    names = ("block_row", "long_strips", "split_row_and_total", "bfloat16_run", "f16", "f64")
    kernels = kernels_of({name: SOME[name] for name in names}, ("sm_80", "sm_100"))
    assert {kernel.architecture for kernel in kernels} == {"sm_80", "sm_100"}


@needs_nvrtc
def test_a_mistake_is_told_with_its_line_and_ends_no_one_elses_compilation() -> None:
    wrong = TWICE.replace("x[i] *= 2.0f", "y[i] *= 2.0f")
    (bad,), (good,) = compile_sources([CudaSource(source=s) for s in (wrong, TWICE)], ("sm_90",))
    assert isinstance(bad, CompileError)
    assert (bad.line, bad.source_line) == (3, "    if (i < n) y[i] *= 2.0f;")
    assert bad.told("twice.cu").startswith("twice.cu:3: for sm_90: ")
    assert "y" in bad.message
    assert isinstance(good, Compiled)
    assert [kernel.function for kernel in good.kernels] == ["twice"]
    assert good.kernels[0].threads == 256


@needs_nvrtc
def test_an_unknown_architecture_is_an_error_without_a_line() -> None:
    ((answer,),) = compile_sources([CudaSource(source=TWICE)], ("sm_12",))
    assert isinstance(answer, CompileError)
    assert answer.line == 0
    assert answer.message


@needs_nvrtc
def test_the_loader_compiles_once_and_keeps_machine_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("KERNELWRIGHT_CUDA_CACHE", raising=False)
    cubin = find_or_compile(TWICE, "sm_90")
    (kept,) = (tmp_path / "kernelwright" / "cuda").iterdir()
    assert (kept.name, kept.read_bytes()) == (cubin_name(TWICE, "sm_90"), cubin)
    prepared = tmp_path / "prepared"
    prepared.mkdir()
    (prepared / kept.name).write_bytes(b"handed in")
    monkeypatch.setenv("KERNELWRIGHT_CUDA_CACHE", str(prepared))
    assert find_or_compile(TWICE, "sm_90") == b"handed in"


@needs_nvrtc
def test_half_precision_finds_its_headers() -> None:
    text = (
        '#include <cuda_fp16.h>\nextern "C" __global__ void k(half* x) { x[0] = __hneg(x[1]); }\n'
    )
    assert compile_cubin(text, "sm_90")[0].startswith(b"\x7fELF")


def test_a_missing_package_is_told_in_one_line_with_what_to_install() -> None:
    text = "import sys; sys.modules['cuda.bindings'] = None; import tools.backends.cuda.loader"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: CUDA C++ needs cuda-python")
    assert "pip install cuda-python nvidia-cuda-nvrtc" in last


@needs_nvrtc
def test_a_missing_header_is_told_with_what_to_install() -> None:
    ((answer,),) = compile_sources([CudaSource(source="#include <cuda_fp17.h>\n")], ("sm_90",))
    assert isinstance(answer, CompileError)
    assert answer.line == 1
    assert "pip install nvidia-cuda-runtime" in answer.message


def test_the_loader_is_written_into_an_exported_kernel() -> None:
    source = in_cuda(SOME["block_row"], on_gpu=True).source
    alone = stand_alone(source, "A faster op.")
    assert "def cuda_kernel(" in alone
    assert "tools.backends" not in alone
    compile(alone, "kernel.py", "exec")


@needs_nvrtc
def test_a_compiler_that_does_not_come_to_an_end_is_ended() -> None:
    # Each level doubles the work.
    levels = "\n".join(
        f"template <int A> struct T{n} {{ static const int v = (T{n - 1}<2 * A>::v ^ "
        f"T{n - 1}<2 * A + 1>::v) & 1; }};"
        for n in range(1, 27)
    )
    head = "template <int A> struct T0 { static const int v = A; };\n"
    text = f'{head}{levels}\nextern "C" __global__ void k(int* x) {{ *x = T26<1>::v; }}\n'
    ((answer,),) = compile_sources([CudaSource(source=text)], ("sm_90",), 4.0)
    assert isinstance(answer, CompileError)
    assert "compiler" in answer.message


def test_what_the_assembler_says_is_read() -> None:
    twice, other = read_usage(LOG, TWICE)
    assert twice == CompiledKernel(
        function="twice", architecture="sm_90", registers=40, stack_bytes=16, spill_store_bytes=12,
        spill_load_bytes=8, shared_bytes=4224, threads=256,
    )  # fmt: skip
    assert (other.function, other.shared_bytes, other.threads) == ("other", 0, 0)


def test_occupancy_is_bounded_by_registers_shared_memory_warps_and_blocks() -> None:
    # 40 registers are 1280 a warp: 12 warps in each quarter, 48 of 64.
    assert occupancy(H100, 128, 40, 0).share == 0.75
    assert occupancy(H100, 128, 40, 0).limit == "registers"
    assert occupancy(H100, 256, 16, 0).share == 1.0
    # 100 KiB and what the system keeps: two blocks of 4 warps.
    assert occupancy(H100, 128, 16, 100 << 10).share == 0.125
    assert occupancy(H100, 32, 16, 0).limit == "blocks"
    assert occupancy(H100, 128, 16, 228 << 10).blocks == 0
    assert occupancy(T4, 1024, 32, 0).share == 1.0
    assert occupancy(A100, 1024, 65, 0).blocks == 0


def test_a_cpu_has_no_occupancy() -> None:
    with pytest.raises(ValueError, match="no NVIDIA GPU"):
        occupancy(H100.model_copy(update={"architecture": "x86-64 avx512"}), 128, 40, 0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU; there is none")
@pytest.mark.parametrize("name", [*TELLING, "block_row", "split_row_and_total", "odd_addresses"])
def test_candidate_is_as_right_on_a_gpu(name: str) -> None:
    built = in_cuda(SOME[name], on_gpu=True)
    moved = Built(
        built.model.cuda(),
        [value.cuda() if isinstance(value, torch.Tensor) else value for value in built.inputs],
        built.graph, built.program, built.source,
    )  # fmt: skip
    assert complaints(moved) == []


@needs_nvrtc
def test_the_kernels_that_a_gpu_test_launches_compile_here_too():
    ((answer,),) = compile_sources([CudaSource(source=ON_GPU)], ["sm_90"])
    assert isinstance(answer, Compiled), answer.told()
    assert {kernel.function for kernel in answer.kernels} == {"twice", "turned", "meet"}
