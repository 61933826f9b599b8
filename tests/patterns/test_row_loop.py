"""Ops of many kinds through trace, algebra, fusion and emission, against float64; and proposals."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from knowledge.freedom import freedom
from knowledge.opgraph import line_of
from knowledge.pattern import Proposal, Refusal, Step, load_pattern
from knowledge.program import Program
from tests.patterns.ops import OPS
from tests.patterns.workshop import FUSED, SITUATION, Built, build, complaints, function, reference
from tools.backends.cpp.loader import cpp_kernel

SOFTMAX = function("x", "torch.softmax(x, dim=-1)", "torch.randn(8, 16)")


@pytest.fixture(scope="module")
def all_built() -> dict[str, Built]:
    """Every op, with its kernels compiled side by side."""
    built = {name: build(reference(*op)) for name, op in OPS.items()}
    kernels = [kernel for one in built.values() for kernel in one.program.kernels]
    flags = ("-fno-unsafe-math-optimizations", "-fno-trapping-math", "-fno-thread-jumps")
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda k: cpp_kernel(k.source, k.name, k.signature, flags), kernels))
    return built


@pytest.mark.parametrize("name", OPS)
def test_candidate_is_as_right_as_the_reference(name: str, all_built: dict[str, Built]) -> None:
    assert complaints(all_built[name]) == []


@pytest.mark.parametrize("name", ["lstm", "attention", "bn_train", "embedding", "dropout_train"])
def test_op_without_any_step_goes_to_the_library_and_stays_right(name: str) -> None:
    built = build(reference(*OPS[name]), ())
    assert not built.program.kernels
    assert complaints(built) == []


@pytest.mark.parametrize(
    ("name", "kernels"),
    [("swiglu", 2), ("varnorm", 1), ("newgelu", 1), ("multiout", 1), ("triplet", 1), ("lstm", 0)],
)
def test_what_can_go_together_makes_one_loop(
    name: str, kernels: int, all_built: dict[str, Built]
) -> None:
    assert len(all_built[name].program.kernels) == kernels


@pytest.mark.parametrize(
    ("exp", "accumulate", "streaming"),
    [("libm", "float", False), ("inline", "double", False), ("inline", "float", True)],
)
@pytest.mark.parametrize(
    ("expression", "inputs"),
    [
        ("F.log_softmax(x, -1).exp() * torch.tanh(x)", "torch.randn(7, 700)"),
        ("F.layer_norm(torch.sigmoid(x), (700,))", "torch.randn(7, 700)"),
        ("F.gelu(x) + x.log1p().nan_to_num()", "torch.randn(30011)"),
        ("torch.softmax(x, 1)", "torch.randn(3, 70, 90)"),
    ],
)
def test_every_tunable_keeps_the_result(
    exp: str, accumulate: str, streaming: bool, expression: str, inputs: str
) -> None:
    step = Step(
        pattern="row_loop",
        parameters={"exp": exp, "accumulate": accumulate, "streaming": streaming},
    )
    assert complaints(build(function("x", expression, inputs), (step,))) == []


@pytest.mark.parametrize("shape", [(1, 16), (5, 16), (17, 16), (3, 1000)])
def test_softmax_takes_sizes_it_was_not_traced_with(shape: tuple[int, ...]) -> None:
    assert complaints(build(SOFTMAX, FUSED), [torch.randn(shape)]) == []


def test_rows_longer_than_a_float_can_sum_are_summed_in_double() -> None:
    built = build(function("x", "x.sum(-1)", "torch.rand(3, 200000)"), FUSED)
    assert "double v" in built.program.kernels[0].source
    assert complaints(built) == []


def test_nan_and_infinity_go_through_a_softmax_as_in_torch() -> None:
    rows = torch.randn(6, 16)
    rows[0, 3], rows[1, 3], rows[2, 3] = float("nan"), float("inf"), -float("inf")
    rows[3] = -float("inf")
    assert complaints(build(SOFTMAX, FUSED), [rows]) == []


def test_label_out_of_range_gives_nan_and_reads_no_foreign_memory() -> None:
    source = function(
        "x, t", "F.cross_entropy(x, t, reduction='none')", "torch.randn(4, 8), torch.arange(4)"
    )
    candidate = build(source, FUSED).candidate()
    made = candidate(torch.randn(4, 8), torch.tensor([0, 8, -1, 3]))
    assert made.isnan().tolist() == [False, True, True, False]


def test_a_total_is_the_same_to_the_bit_whatever_the_number_of_threads() -> None:
    candidate = build(function("x", "x.sum()", "torch.randn(1000003)"), FUSED).candidate()
    values, threads = torch.randn(1000003), torch.get_num_threads()
    results = set()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.add(candidate(values).item())
    finally:
        torch.set_num_threads(threads)
    assert len(results) == 1


def test_a_value_along_the_columns_is_not_computed_again_for_every_row() -> None:
    source = function("x, b", "x * torch.exp(b)", "torch.randn(64, 32), torch.randn(32)")
    built = build(source, FUSED)
    assert len(built.program.kernels) == 2
    assert complaints(built) == []


def test_a_square_input_is_not_broadcast_along_the_wrong_dimension() -> None:
    built = build(function("x", "x - x.sum(1)", "torch.randn(9, 9)"), FUSED)
    assert complaints(built) == []


@pytest.mark.parametrize(("rows", "place"), [(256, None), (2048, 0), (16384, 2)])
def test_results_are_streamed_where_they_leave_the_caches_and_their_pages_are_there(
    rows: int, place: int | None
) -> None:
    built = build(function("x", "F.layer_norm(x, (1024,))", f"torch.randn({rows}, 1024)"), ())
    proposals = load_pattern("row_loop").propose(built.program, SITUATION)
    assert isinstance(proposals, list)
    ranked = sorted(proposals, key=lambda one: -one.speedup)
    streamed = [at for at, one in enumerate(ranked) if one.step.parameters["streaming"]]
    assert streamed == ([] if place is None else [place])


def test_proposals_vary_tunables_and_reckon_with_bytes() -> None:
    source = function("x", "F.gelu(x * 0.7).sum(-1)", "torch.randn(512, 512)")
    program = build(source, ()).program
    proposals = load_pattern("row_loop").propose(program, SITUATION)
    assert isinstance(proposals, list)
    assert [p.step.parameters["exp"] for p in proposals[:2]] == ["inline", "libm"]
    assert proposals[0].speedup > proposals[1].speedup > 1
    assert "1.1 MB" in proposals[0].arithmetic


def test_an_op_that_the_library_does_whole_is_refused_with_the_reason() -> None:
    program = build(function("x", "torch.cumsum(x, 1)", "torch.randn(4, 8)"), ()).program
    answer = load_pattern("row_loop").propose(program, SITUATION)
    assert isinstance(answer, Refusal)
    assert "aten.cumsum.default is left to the library" in answer.reason


def test_unknown_tunable_is_an_error() -> None:
    program = build(SOFTMAX, ()).program
    with pytest.raises(ValueError, match="unknown tunables"):
        load_pattern("row_loop").apply(
            program, Step(pattern="row_loop", parameters={"exp": "table"})
        )


def test_loops_are_fused_once(all_built: dict[str, Built]) -> None:
    program: Program = all_built["varnorm"].program
    assert isinstance(load_pattern("row_loop").propose(program, SITUATION), Refusal)
    with pytest.raises(ValueError, match="nothing to fuse"):
        load_pattern("row_loop").apply(program, Step(pattern="row_loop"))


def test_every_proposal_can_be_applied() -> None:
    program = build(SOFTMAX, ()).program
    pattern = load_pattern("row_loop")
    proposals = pattern.propose(program, SITUATION)
    assert isinstance(proposals, list)
    assert all(isinstance(proposal, Proposal) for proposal in proposals)
    for proposal in proposals:
        assert pattern.apply(program, proposal.step).kernels


APART = {
    "halves": ("x.chunk(2, -1)[0] * torch.sigmoid(x.chunk(2, -1)[1])", "torch.randn(130, 512)"),
    "shifted": ("torch.relu(x[:, 3:300]) + x[:, 4:301]", "torch.randn(200, 400)"),
    "channels": ("x[:, 1].exp() * x[:, 2] - x[:, 0]", "torch.randn(6, 3, 100, 90)"),
    "rows of a part": ("torch.softmax(x[:, :300], -1)", "torch.randn(90, 400)"),
    "sums of a part": ("(x[..., 5:261] * 2).sum(-1)", "torch.randn(7, 30, 300)"),
    "inner part": ("torch.tanh(x[1:, :, 2:-1]) + 1", "torch.randn(5, 60, 131)"),
    "columns of a part": ("torch.softmax(x[:, :, 3:], 1)", "torch.randn(4, 70, 90)"),
    "queries": ("x.unflatten(-1, (3, 4, 32))[:, :, 1] * 0.5 + 1", "torch.randn(9, 20, 384)"),
}


@pytest.mark.parametrize("name", APART)
def test_part_of_a_tensor_is_read_as_it_lies(name: str) -> None:
    built = build(function("x", *APART[name]), FUSED)
    assert any(kernel.spaced for kernel in built.program.kernels)
    assert complaints(built) == []
    (given,) = built.inputs
    turned = given.transpose(-1, -2).contiguous().transpose(-1, -2)
    assert complaints(built, [turned]) == []
    if freedom(built.program)[0]:
        assert complaints(built, [given[:3]]) == []
        assert complaints(built, [given[:1]]) == []


def test_small_parts_are_copied_rather_than_cut_the_loops_up() -> None:
    built = build(function("x", "x[:, 3:9] * 2", "torch.randn(20, 12)"), FUSED)
    assert not any(kernel.spaced for kernel in built.program.kernels)
    assert complaints(built) == []


@pytest.mark.parametrize("exponent", [2.2, 0.4545, -0.7, 9.0, -11.0, 40.5, 100.5])
def test_powers_are_right_at_the_edges_too(exponent: float) -> None:
    edges = "torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan, -1.0, 1.0, 1e-40])"
    inputs = f"torch.cat([{edges}, torch.randn(5000), 1.2 * torch.rand(5000)])"
    assert complaints(build(function("x", f"x.pow({exponent})", inputs), FUSED)) == []


STACKED = """\
    def forward(self, x, c, s, y):
        a, b = x[..., 0::2], x[..., 1::2]
        parts = (a * c - b * s, a * s + b * c, a * a, b * b, a - b, a + b)
        mixed = torch.stack(parts, -1).flatten(-2)
        return mixed, torch.softmax(torch.exp(y).cumsum(-1) * 0.1, -1)"""


def test_an_island_of_short_rows_that_the_library_does_faster_is_left_to_it() -> None:
    inputs = (
        "torch.randn(4, 8, 50, 32), torch.randn(50, 16), torch.randn(50, 16), torch.randn(60, 700)"
    )
    built = build(reference(STACKED, inputs), ())
    quick = {line_of(node): 0.002 for node in built.graph.calls if node.spec.shape[0] in (4, 50)}
    situation = SITUATION.model_copy(update={"call_ms": quick})
    answer = load_pattern("row_loop").propose(built.program, situation)
    assert isinstance(answer, list)
    steps = [one.step for one in answer]
    assert not any("stack" in name for name in steps[0].only)
    fused = build(reference(STACKED, inputs), tuple(steps[:1]))
    assert any("stack" in node.target for node in fused.program.library_calls)
    assert not any("softmax" in node.target for node in fused.program.library_calls)
    assert complaints(fused) == []
    assert not steps[-1].only
    assert len(build(reference(STACKED, inputs), tuple(steps[-1:])).program.library_calls) == 1


LONG = "torch.randn(3, 100003) * 3 + 50"


@pytest.mark.parametrize(
    ("expression", "kernels"),
    [
        ("(x - x.mean()) / (x.std() + 1e-5)", 3),
        ("torch.var(x, (0, 1), unbiased=False, keepdim=True) + x", 3),
        ("torch.var(x * 2, correction=3)", 2),
        ("x - torch.logsumexp(x, (0, 1))", 3),
        ("torch.logsumexp(x - float('inf'), (0, 1))", 2),
        ("x.double().std()", 2),
    ],
)
def test_a_spread_of_one_long_row_is_the_work_of_all_threads(expression: str, kernels: int) -> None:
    built = build(function("x", expression, LONG), FUSED)
    assert complaints(built) == []
    assert complaints(built, [torch.randn(3, 100003)]) == []
    assert len(built.program.kernels) == kernels
    sources = [kernel.source for kernel in built.program.kernels]
    assert all("tasks = 1;" not in source for source in sources)
    assert all("#pragma omp" in source for source in sources)
