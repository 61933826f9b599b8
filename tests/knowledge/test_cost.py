"""What a program should cost on a GPU: programs too few to fill it, launches, and copies."""

import pytest

from knowledge.loops.cost import Machine, kernel_ms, program_ms
from knowledge.opgraph import OpGraph
from knowledge.pattern import Parameter, Step, load_pattern
from knowledge.program import Program
from tests.patterns.workshop import build, function

pytest.importorskip("triton")

# About an H200, on which bytes alone count.
GPU = Machine(
    bandwidth_gbps=4800.0, peak_gflops=67000.0, fault_us=0.0, huge_pages=False, multiprocessors=132
)


def fused(call: str, inputs: str, pattern: str = "row_loop", **given: Parameter) -> Program:
    source = function("x", call, inputs)
    program = Program.of(build(source, ()).graph, source, "triton")
    return load_pattern(pattern).apply(program, Step(pattern=pattern, parameters=given))


def library_ms(graph: OpGraph) -> float:
    return program_ms(Program.of(graph, "", "triton"), GPU)


@pytest.mark.parametrize(
    ("call", "inputs", "programs"),
    [
        ("x.amax(0)", "torch.ones(100000, 64)", 1),
        ("x.amax(0)", "torch.ones(9, 70000)", 1094),
        ("x.amax(-1)", "torch.ones(33, 40000)", 33),
        ("torch.softmax(x, -1)", "torch.ones(1000, 16)", 16),
        ("torch.relu(x)", "torch.ones(3000)", 3),
        ("x.sum()", "torch.ones(3000, 1024)", 1024),
    ],
)
def test_a_loop_knows_how_many_programs_share_it(call: str, inputs: str, programs: int) -> None:
    (kernel,) = fused(call, inputs).kernels
    assert kernel.programs == programs


def test_few_programs_reach_their_share_of_the_bandwidth_and_the_library_splits_sums() -> None:
    program = fused("x.amax(0)", "torch.ones(100000, 64)")
    assert program_ms(program, GPU) > 20 * library_ms(program.graph)
    (kernel,) = program.kernels
    enough = kernel.model_copy(update={"programs": 264})
    assert kernel_ms(enough, False, GPU) < program_ms(program, GPU) / 20
    assert kernel_ms(kernel, False, GPU.shared_by(0)) == program_ms(program, GPU)


def test_the_library_gives_each_row_of_a_softmax_to_one_block_too() -> None:
    program = fused("torch.softmax(x, -1)", "torch.ones(16, 100000)")
    launch = 0.015
    assert program_ms(program, GPU) - library_ms(program.graph) == pytest.approx(launch, abs=0.001)


def test_a_scan_of_one_line_is_shared_by_its_parts() -> None:
    (kernel,) = fused("torch.cumsum(x, 0)", "torch.ones(100000)", "scan", parts=16).kernels
    assert kernel.programs == 16
