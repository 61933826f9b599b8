"""Loops printed as CUDA C++: run thread by thread on the CPU against float64, and their shapes."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from knowledge.emit import emit
from knowledge.pattern import Parameter, Refusal, Step, load_pattern
from knowledge.program import Program
from tests.knowledge.cuda_host import LaunchFailed, on_cpu, prepare, sources_of
from tests.knowledge.test_loops_triton import CASES, NOTHING_TO_FUSE, TELLING
from tests.patterns.ops import OPS
from tests.patterns.workshop import SITUATION, Built, build, complaints, function, reference


def in_cuda(
    source: str, parameters: dict[str, Parameter] | None = None, on_gpu: bool = False
) -> Built:
    """A reference fused by row_loop into CUDA C++, to be run on the CPU unless a GPU is there."""
    traced = build(source, ())
    step = Step(pattern="row_loop", parameters=parameters or {})
    program = load_pattern("row_loop").apply(Program.of(traced.graph, source, "cuda"), step)
    assert {kernel.language for kernel in program.kernels} == {"cuda"}
    made = Built(traced.model, traced.inputs, traced.graph, program, emit(program))
    return made if on_gpu else on_cpu(made)


# What the small ops don't reach: rows in a block's registers, rows shared among blocks, strips of
# neighbours, addresses that are not aligned to four elements.
OURS = {
    "block_row": ("x", "torch.softmax(x * 2, -1)", "torch.randn(5, 3000)"),
    "block_row_of_halves": ("x", "F.layer_norm(x, (2050,))", "torch.randn(3, 2050).half()"),
    "warp_row_in_fours": ("x", "F.layer_norm(torch.sigmoid(x), (700,))", "torch.randn(70, 700)"),
    "long_strips": ("x", "[x.sum(1), x.amax(1)]", "torch.randn(2, 5000, 33)"),
    "strips_of_few": ("x", "torch.softmax(x, 1)", "torch.randn(2, 300, 3)"),
    "statistics_of_channels": (
        "x, w",
        "(x - x.mean(1, keepdim=True)) * torch.rsqrt(x.var(1, keepdim=True) + 1e-5) * w",
        "torch.randn(4, 24, 7, 9), torch.randn(24, 1, 1)",
    ),
    "split_row_and_total": (
        "x",
        "[F.log_softmax(x, -1), x.sum(), x.sum(-1)]",
        "torch.randn(2, 70001)",
    ),
    "totals_of_strips": ("x", "[x.sum(1), x.sum(), x.amax()]", "torch.randn(5, 40, 70)"),
    "odd_addresses": ("x", "x.exp() + x", "torch.randn(4099)[1:]"),
    "bfloat16_run": ("x, y", "F.silu(x) * y", "torch.randn(33, 65).bfloat16(), "
                     "torch.randn(33, 65).bfloat16()"),
    "spread_total": (
        "x, b",
        "(x * b[:, None]).abs().sum()",
        "torch.randn(3, 50000), torch.randn(3)",
    ),
    "columns_of_two_kinds": (
        "x, w",
        "F.layer_norm(x, (6, 50)) * w",
        "torch.randn(7, 6, 50), torch.randn(6, 1)",
    ),
    "labels_in_strips": (
        "x, t",
        "F.cross_entropy(x, t, reduction='none')",
        "torch.randn(3, 5, 40), torch.randint(0, 5, (3, 40))",
    ),
}  # fmt: skip
SETTINGS: tuple[dict[str, Parameter], ...] = (
    {"accumulate": "double", "keep": "nothing"},
    {"threads": 32},
    {"threads": 256},
)
TUNED = ("block_row", "long_strips", "statistics_of_channels", "split_row_and_total")
EXPRESSIONS = {**CASES, **OURS}
SOME = {
    **{name: reference(*OPS[name]) for name in TELLING},
    **{name: function(*case) for name, case in EXPRESSIONS.items()},
}
REST = {
    name: reference(*op)
    for name, op in OPS.items()
    if name not in SOME and name not in NOTHING_TO_FUSE
}
SOFTMAX = function("x", "torch.softmax(x, dim=-1)", "torch.randn(8, 16)")


def compiled(built: list[Built]) -> None:
    """Compile the kernels of several candidates in a few libraries side by side."""
    sources = list(dict.fromkeys(text for one in built for text in sources_of(one)))
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(prepare, [sources[n::8] for n in range(min(8, len(sources)))]))


@pytest.fixture(scope="module")
def all_built() -> dict[str, Built]:
    """An op for each schedule and kind of operand, compiled."""
    built = {name: in_cuda(source) for name, source in SOME.items()}
    compiled(list(built.values()))
    return built


@pytest.mark.parametrize("name", SOME)
def test_candidate_is_as_right_as_the_reference(name: str, all_built: dict[str, Built]) -> None:
    assert complaints(all_built[name]) == []


@pytest.mark.slow
def test_every_other_op_is_as_right_as_the_reference() -> None:
    built = {name: in_cuda(source) for name, source in REST.items()}
    compiled(list(built.values()))
    assert {name: found for name, one in built.items() if (found := complaints(one))} == {}


def test_every_tunable_keeps_the_result() -> None:
    built = {
        (name, str(settings)): in_cuda(function(*EXPRESSIONS[name]), settings)
        for settings in SETTINGS
        for name in TUNED
    }
    compiled(list(built.values()))
    text = "".join(kernel.source for one in built.values() for kernel in one.program.kernels)
    assert max(map(int, re.findall(r"__launch_bounds__\((\d+)", text))) <= 1024
    wrong = {key: found for key, one in built.items() if (found := complaints(one))}
    assert wrong == {}


@pytest.mark.parametrize(
    "shape", [(1, 16), (5, 17), (0, 16), (5, 0), (129, 32), (3, 1000), (2, 5000)]
)
def test_softmax_takes_sizes_it_was_not_traced_with(shape: tuple[int, ...]) -> None:
    assert complaints(in_cuda(SOFTMAX), [torch.randn(shape)]) == []


@pytest.mark.parametrize("shape", [(1, 7, 2), (3, 300, 1), (2, 5001, 40), (700, 2, 3)])
def test_sums_of_strips_take_sizes_they_were_not_traced_with(
    shape: tuple[int, ...], all_built: dict[str, Built]
) -> None:
    assert complaints(all_built["long_strips"], [torch.randn(shape)]) == []


@pytest.mark.parametrize("count", [1, 3, 4, 1023, 1025, 5000])
def test_a_run_of_any_length_is_done_to_its_end(count: int, all_built: dict[str, Built]) -> None:
    assert complaints(all_built["odd_addresses"], [torch.randn(count)]) == []


def test_rows_of_odd_length_begin_at_odd_addresses_and_stay_right(
    all_built: dict[str, Built],
) -> None:
    assert complaints(all_built["block_row"], [torch.randn(5, 2999)]) == []
    assert complaints(all_built["warp_row_in_fours"]) == []


def test_nan_and_infinity_go_through_a_softmax_as_in_torch() -> None:
    rows = torch.randn(6, 16)
    rows[0, 3], rows[1, 3], rows[2, 3] = float("nan"), float("inf"), -float("inf")
    rows[3] = -float("inf")
    assert complaints(in_cuda(SOFTMAX), [rows]) == []


def test_label_out_of_range_gives_nan_and_reads_no_foreign_memory() -> None:
    source = function(
        "x, t", "F.cross_entropy(x, t, reduction='none')", "torch.randn(4, 8), torch.arange(4)"
    )
    made = in_cuda(source).candidate()(torch.randn(4, 8), torch.tensor([0, 8, -1, 3]))
    assert made.isnan().tolist() == [False, True, True, False]


def test_a_total_is_the_same_to_the_bit_every_time(all_built: dict[str, Built]) -> None:
    candidate = all_built["split_row_and_total"].candidate()
    values = torch.randn(2, 70001)
    assert len({candidate(values)[1].item() for _ in range(3)}) == 1


def test_few_long_rows_are_shared_among_blocks_and_short_ones_stay_in_registers(
    all_built: dict[str, Built],
) -> None:
    (split,) = all_built["split_row_and_total"].program.kernels
    assert "blockIdx.y" in split.source
    assert "_sweep_2" in split.source
    (kept,) = all_built["block_row"].program.kernels
    assert "float kept_" in kept.source
    assert "if 0 < cols <= " in kept.source


def test_a_kernel_that_forgets_a_barrier_is_found_out(all_built: dict[str, Built]) -> None:
    # Of the row's maximum: without the first barrier, a warp reads what others have yet to write.
    right = all_built["block_row"]
    (kernel,) = right.program.kernels
    head, tail = kernel.source.split("__syncthreads();", 1)
    racing = kernel.model_copy(update={"source": head + tail})
    program = right.program.changed(kernels=(racing,))
    wrong = on_cpu(Built(right.model, right.inputs, right.graph, program, emit(program)))
    assert complaints(wrong) != []


def test_a_barrier_that_some_threads_miss_is_an_error(all_built: dict[str, Built]) -> None:
    right = all_built["block_row"]
    (kernel,) = right.program.kernels
    text = kernel.source.replace("__syncthreads();", "if (thread < 32) __syncthreads();", 1)
    program = right.program.changed(kernels=(kernel.model_copy(update={"source": text}),))
    wrong = on_cpu(Built(right.model, right.inputs, right.graph, program, emit(program)))
    with pytest.raises(LaunchFailed, match="while others wait"):
        complaints(wrong)


def test_proposals_vary_one_tunable_each_and_can_be_applied() -> None:
    graph = build(function(*OURS["block_row"]), ()).graph
    pattern, program = load_pattern("row_loop"), Program.of(graph, SOFTMAX, "cuda")
    proposals = pattern.propose(program, SITUATION)
    assert not isinstance(proposals, Refusal)
    first = proposals[0].step.parameters
    assert first == {"accumulate": "float", "threads": 0, "keep": "registers"}
    for proposal in proposals[1:]:
        changed = [k for k, v in proposal.step.parameters.items() if v != first[k]]
        assert len(changed) == 1
        assert pattern.apply(program, proposal.step).kernels


@pytest.mark.parametrize("parameters", [{"threads": 48}, {"keep": "all"}, {"block": 256}])
def test_unknown_tunable_is_an_error(parameters: dict[str, Parameter]) -> None:
    with pytest.raises(ValueError, match="unknown tunables"):
        in_cuda(SOFTMAX, parameters)


def test_sources_say_what_a_reader_needs_and_nothing_else(all_built: dict[str, Built]) -> None:
    for name, built in all_built.items():
        for text in sources_of(built):
            assert name not in EXPRESSIONS or max(map(len, text.splitlines())) <= 112, name
            helpers = set(re.findall(r"static __device__ inline \w+ (\w+)\(", text))
            assert all(len(re.findall(rf"\b{one}\b", text)) > 1 for one in helpers), name
