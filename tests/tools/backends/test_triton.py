"""Compiling candidates for GPUs that are not there: the report, and what a mistake looks like."""

import pytest

from knowledge.device import load_devices
from tests.knowledge.test_loops_triton import NOTHING_TO_FUSE, in_triton
from tests.patterns.ops import OPS
from tests.patterns.workshop import function, reference
from tools.backends.triton.compile import (
    Compiled,
    CompiledKernel,
    CompileError,
    TensorCore,
    compile_candidates,
    occupancy,
)
from tools.backends.triton.interpret import Candidate, Interpreted, interpret

pytest.importorskip("triton")

A100, H100, B200 = (load_devices()[n] for n in ("a100-sxm4-80gb", "h100-sxm5", "b200"))
PRODUCT = function("a, b", "a @ b", "torch.randn(256, 256).half(), torch.randn(256, 256).half()")
# As a model might write it: autotuned, the grid a function of the configuration.
MATMUL = """import torch
import triton
import triton.language as tl


@triton.autotune(
    configs=[
        triton.Config({"BLOCK": 64, "DEPTH": 32}, num_warps=4, num_stages=3),
        triton.Config({"BLOCK": 128, "DEPTH": 64}, num_warps=8, num_stages=STAGES),
    ],
    key=["size"],
)
@triton.jit
def matmul_kernel(a, b, out, size, BLOCK: tl.constexpr, DEPTH: tl.constexpr):
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[:, None]
    col = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)[None, :]
    total = tl.zeros((BLOCK, BLOCK), tl.float32)
    for start in range(0, size, DEPTH):
        depth = start + tl.arange(0, DEPTH)
        left = tl.load(a + row * size + depth[None, :])
        right = tl.load(b + depth[:, None] * size + col)
        total = tl.dot(left, right, total)
    tl.store(out + row * size + col, total.to(tl.float16))


class ModelNew(torch.nn.Module):
    def forward(self, a, b):
        assert a.is_cuda
        out = torch.empty_like(a)
        grid = lambda meta: (triton.cdiv(256, meta["BLOCK"]), triton.cdiv(256, meta["BLOCK"]))
        matmul_kernel[grid](a, b, out, 256)
        return out
"""
POINTWISE = function("x", "x * 2", "torch.randn(64)")
BROKEN = """import torch
import triton
import triton.language as tl


@triton.jit
def twice(value):
    wide = tl.arange(0, 32)
    return value + wide


@triton.jit
def kernel(x, out, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(out + at, twice(tl.load(x + at)))


class ModelNew(torch.nn.Module):
    def forward(self, x):
        out = torch.empty_like(x)
        kernel[(1,)](x, out, BLOCK=64)
        return out
"""


def compiled(answer: Compiled | CompileError) -> tuple[CompiledKernel, ...]:
    assert isinstance(answer, Compiled), answer
    return answer.kernels


def kernel_of(registers: int, shared_bytes: int, warps: int) -> CompiledKernel:
    return CompiledKernel(
        function="k", capability=90, registers=registers, stack_bytes=0, spill_store_bytes=0,
        spill_load_bytes=0, shared_bytes=shared_bytes, warps=warps,
        tensor_core=TensorCore(wgmma=0, mma=0, tcgen05=0),
    )  # fmt: skip


def test_printed_kernels_compile_for_three_generations_without_spills() -> None:
    sources = [reference(*OPS[name]) for name in ("rms4d", "ce_spatial", "flatbig", "bf16")]
    devices = (A100, H100, B200)
    answers = compile_candidates([(in_triton(one), one) for one in sources], devices)
    for kernels in map(compiled, answers):
        assert {kernel.capability for kernel in kernels} == {80, 90, 100}
        for kernel in kernels:
            assert kernel.spill_store_bytes == kernel.spill_load_bytes == 0
            assert 8 <= kernel.registers <= 255
            assert kernel.tensor_core == TensorCore(wgmma=0, mma=0, tcgen05=0)
    names = [kernel.function for kernel in compiled(answers[1])]
    assert "fused_0_cross_entropy_loss_finish" in names


@pytest.mark.slow
def test_every_op_that_makes_a_loop_compiles_for_three_generations() -> None:
    names = [name for name in OPS if name not in NOTHING_TO_FUSE]
    sources = [reference(*OPS[name]) for name in names]
    pairs = [(in_triton(source), source) for source in sources]
    answers = compile_candidates(pairs, (A100, H100, B200), 900.0)
    for name, answer in zip(names, answers, strict=True):
        spilled = [kernel.spill_store_bytes for kernel in compiled(answer)]
        assert not any(spilled), name


def test_a_candidates_own_kernel_is_compiled_with_its_configurations_and_tensor_cores() -> None:
    (answer,) = compile_candidates([(MATMUL.replace("STAGES", "2"), PRODUCT)], (A100, H100, B200))
    kernels = compiled(answer)
    assert len(kernels) == 6
    by_capability = {kernel.capability: kernel.tensor_core for kernel in kernels}
    assert by_capability[80].mma > 0
    assert by_capability[90].wgmma > 0
    assert by_capability[100].tcgen05 > 0
    assert {kernel.warps for kernel in kernels} == {4, 8}


def test_mistakes_are_told_with_function_and_line_and_end_no_one_elses_compilation() -> None:
    unfinished = BROKEN.replace("torch.empty_like(x)", "torch.empty_like(y)")
    unparsable = BROKEN.replace("def twice(value):", "def twice(value:")
    greedy = MATMUL.replace("STAGES", "9")
    right = in_triton(POINTWISE)
    pairs = [
        (BROKEN, POINTWISE), (unfinished, POINTWISE), (unparsable, POINTWISE), (greedy, PRODUCT),
        (right, POINTWISE),
    ]  # fmt: skip
    shapes, name, syntax, shared, fine = compile_candidates(pairs, (H100,))
    assert isinstance(shapes, CompileError)
    assert (shapes.function, shapes.line, shapes.capability) == ("twice", 9, 90)
    assert "64" in shapes.message
    assert shapes.told("kernel.py").startswith("kernel.py:9: in twice for sm_90: ")
    assert isinstance(name, CompileError)
    assert (name.function, name.line) == ("forward", 20)
    assert isinstance(syntax, CompileError)
    assert syntax.line == 7
    assert isinstance(shared, CompileError)
    assert "232448" in shared.message
    assert compiled(fine)


def test_a_candidate_that_ends_its_process_is_an_error_and_never_a_report() -> None:
    ending = f"import os\n\nprint('{{\"answers\": []}}')\nos._exit(0)\n{BROKEN}"
    (answer,) = compile_candidates([(ending, POINTWISE)], (H100,))
    assert isinstance(answer, CompileError)
    assert "process ended" in answer.message


def test_occupancy_is_bounded_by_registers_shared_memory_and_warps() -> None:
    # 40 registers are 1280 a warp; 51 warps fit, in fours 48, of 64.
    assert occupancy(kernel_of(40, 0, 4), H100) == 0.75
    assert occupancy(kernel_of(16, 0, 8), H100) == 1.0
    # 100 KiB and what the system keeps: two blocks of 4 warps.
    assert occupancy(kernel_of(16, 100 << 10, 4), H100) == 0.125
    # 32 blocks of one warp.
    assert occupancy(kernel_of(16, 0, 1), H100) == 0.5


def test_a_cpu_is_no_target() -> None:
    with pytest.raises(ValueError, match="no NVIDIA GPU"):
        compile_candidates([], (H100.model_copy(update={"architecture": "x86-64 avx512"}),))


BESIDE = """import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return None, x * 2.0


def get_inputs():
    return [torch.randn(4, 6)]
"""


def test_none_is_held_to_its_place_without_a_device_too() -> None:
    made = {
        "None, x + x": (),
        "x + x, None": (
            "output 0: torch.float32(4, 6), not None", "output 1: None, not torch.float32(4, 6)",
        ),
        "x + x": ("1 outputs, not 2",),
    }  # fmt: skip
    answers = interpret([
        Candidate(
            candidate=BESIDE.replace("Model(", "ModelNew(").replace("None, x * 2.0", text),
            reference=BESIDE,
        )
        for text in made
    ])  # fmt: skip
    assert answers == [Interpreted(complaints=told) for told in made.values()]
