"""Loops printed as Triton: in the interpreter against float64, and what the printer decides."""

import re

import pytest
import torch

from knowledge.emit import emit
from knowledge.pattern import Parameter, Refusal, Step, load_pattern
from knowledge.program import Program
from tests.knowledge.test_loops_movement import CASES as MOVED
from tests.knowledge.test_loops_movement import LOOKUPS
from tests.patterns.ops import OPS
from tests.patterns.test_row_loop import APART
from tests.patterns.workshop import SITUATION, build, function, load, reference
from tools.backends.triton.interpret import Candidate, Interpreted, NotInterpreted, interpret

pytest.importorskip("triton")

# A schedule or a kind of operand each; `slow` runs the rest.
TELLING = (
    "conv_relu_bias", "bn_eval", "gemm_gn_min_bias", "conv_softmax_chan", "gn_affine", "ln_3d",
    "frob", "rms4d", "l2norm", "mindim0", "ce_spatial", "ce_ignore", "triplet", "kl", "multiout",
    "listout", "noncontig", "bf16", "f16", "f64", "int", "boolmask", "bcast_outer", "bigrow",
    "flatbig", "varnorm",
)  # fmt: skip
NOTHING_TO_FUSE = ("lstm", "gru", "diag")
CASES = {
    "softmax_of_nan_and_infinity": (
        "x",
        "torch.softmax(x, -1)",
        "torch.tensor([[1.0, 2.0, float('nan')], [1.0, float('inf'), 2.0], [-float('inf')] * 3])",
    ),
    "extremes_of_nan": (
        "x",
        "(x.amax(-1), x.amin(-1), x.max(), torch.relu(x), torch.clamp(x, -1, 1))",
        "torch.tensor([[1.0, 2.0, float('nan')], [1.0, float('inf'), 2.0]])",
    ),
    "long_neighbours": ("x", "torch.softmax(x, 1)", "torch.randn(2, 700, 30)"),
    "labels_of_long_rows": (
        "x, t",
        "F.cross_entropy(x, t)",
        "torch.randn(3, 40000), torch.tensor([0, 39999, 7])",
    ),
    "long_rows_of_infinity": (
        "x",
        "torch.softmax(x, -1)",
        "torch.randn(4, 40000).clamp(max=2.0).masked_fill("
        "torch.tensor([[True], [False], [False], [False]]), -float('inf')).where("
        "torch.arange(40000) >= torch.tensor([[0], [39000], [0], [0]]), -float('inf')).where("
        "torch.arange(40000) != torch.tensor([[-1], [-1], [39999], [-1]]), float('inf'))",
    ),
    "long_sums": (
        "x",
        "(x.sum(-1), torch.softmax(x, -1), F.layer_norm(x, (40000,)), torch.logsumexp(x, 0))",
        "torch.randn(3, 40000) + 2",
    ),
    "many_long_neighbours": ("x", "torch.softmax(x, 1)", "torch.randn(1, 9000, 3)"),
    "spread_columns": (
        "x, b",
        "torch.tanh(x + b[:, None])",
        "torch.randn(3, 5000), torch.randn(3)",
    ),
    "strided": ("x", "F.gelu(x).sum(-1)", "torch.randn(40, 66)[::2, ::3]"),
    "products": ("x", "(x.prod(-1), x.sum())", "torch.rand(7, 33) + 0.5"),
    "numbers_in_double": (
        "x",
        "x * 0.1 + torch.where(x > 0.1, 0.3, x) + torch.clamp(x, 0.1, 0.7)",
        "torch.randn(1001).double()",
    ),
    "functions": (
        "x",
        "torch.log1p(x.abs()) + torch.expm1(x) + torch.sin(x) + torch.erf(x) + torch.round(x)"
        " + torch.pow(x.abs(), 1.3) + torch.floor(x) + torch.trunc(x) + torch.sign(x)",
        "torch.randn(1001)",
    ),
    "short_ints": (
        "x",
        "(x + x // 2, x.sum(-1), (x * 2).amax(-1))",
        "torch.randint(-9, 9, (33, 9), dtype=torch.int32)",
    ),
    "functions_of_subnormals": (
        "x, y",
        "torch.sqrt(x.abs()) + torch.atan2(x, y) + torch.pow(x.abs(), 0.3) + torch.rsqrt(y.abs())"
        " * 1e-20 + torch.floor(x) + torch.ceil(y) + torch.pow(x.abs(), y)",
        "torch.randn(999) * 1e-39, torch.randn(999) * 1e-39",
    ),
    "rests": (
        "x, y",
        "(torch.fmod(x, y), torch.fmod(x * 1e-39, y * 1e-39) * 1e30, torch.pow(x, 3.5))",
        "torch.randn(999) * 9, torch.randn(999)",
    ),
    "places_of_extremes": (
        "x",
        "(x.argmax(-1), x.argmin(1), x.argmax(0), x.argmax(), x.max(-1)[1], x.min(0)[1])",
        "torch.randint(-9, 9, (33, 70)).float()",
    ),
    "places_in_long_rows": (
        "x",
        "(x.argmax(-1), x.max(0)[1], x.argmin())",
        "torch.randn(3, 40000).where(torch.arange(40000) != torch.tensor([[7], [39999], [-1]]),"
        " float('nan'))",
    ),
    "places_among_neighbours": (
        "x",
        "x.argmax(1)",
        "torch.randn(2, 700, 30).round()",
    ),
    "places_over_two_dimensions": ("x", "x.flatten(1).argmax(-1)", "torch.randn(5, 6, 7)"),
    "mean_of_rows": ("x", "torch.logsumexp(x, 1).mean()", "torch.randn(2000, 40)"),
    "one_number": ("x", "torch.relu(x) * 2", "torch.tensor(3.0)"),
    **{
        name: MOVED[name]
        for name in (
            "side by side along the row", "side by side between rows",
            "softmax over pieces, in lanes", "a heat equation", "rotary positions", "reflection",
            "triangles",
        )
    },
    **{
        name: LOOKUPS[name]
        for name in ("token, segment and position", "elements along the row", "both ends of edges")
    },
}  # fmt: skip
SETTINGS: tuple[dict[str, Parameter], ...] = (
    {"exp": "inline", "accumulate": "double"},
    {"block": 256},
    {"rows": 2, "warps": 8},
)
SOFTMAX = function("x", "torch.softmax(x, dim=-1)", "torch.randn(8, 16)")


def in_triton(source: str, parameters: dict[str, Parameter] | None = None) -> str:
    """A reference fused by row_loop into Triton."""
    graph = build(source, ()).graph
    step = Step(pattern="row_loop", parameters=parameters or {})
    program = load_pattern("row_loop").apply(Program.of(graph, source, "triton"), step)
    assert {kernel.language for kernel in program.kernels} == {"triton"}
    return emit(program)


def checked(sources: dict[str, str], settings: dict[str, Parameter]) -> dict[str, object]:
    """What is wrong with each reference's candidate; all run in one interpreter."""
    given = [
        Candidate(candidate=in_triton(source, settings), reference=source)
        for source in sources.values()
    ]
    answers = interpret(given, 500.0)
    return {
        name: answer
        for name, answer in zip(sources, answers, strict=True)
        if not (isinstance(answer, Interpreted) and not answer.complaints)
    }


def test_ops_are_as_right_as_the_reference() -> None:
    sources = {name: reference(*OPS[name]) for name in TELLING}
    sources |= {name: function(*case) for name, case in CASES.items()}
    assert checked(sources, {}) == {}


@pytest.mark.slow
def test_every_op_that_makes_a_loop_is_as_right_as_the_reference() -> None:
    names = [name for name in OPS if name not in (*TELLING, *NOTHING_TO_FUSE)]
    assert checked({name: reference(*OPS[name]) for name in names}, {}) == {}


@pytest.mark.slow
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_every_tunable_keeps_the_result(settings: dict[str, Parameter]) -> None:
    assert checked({name: function(*case) for name, case in CASES.items()}, settings) == {}


def test_a_wrong_kernel_is_told_from_a_right_one_and_an_error_has_its_line() -> None:
    right = in_triton(SOFTMAX)
    wrong = right.replace("axis=1", "axis=0")
    failing = right.replace("tl.load(", "tl.missing(")
    assert len({right, wrong, failing}) == 3
    given = [Candidate(candidate=text, reference=SOFTMAX) for text in (right, wrong, failing)]
    first, second, third = interpret(given)
    assert first == Interpreted(complaints=())
    assert isinstance(second, Interpreted)
    assert "off by" in second.complaints[0]
    assert isinstance(third, NotInterpreted)
    assert third.line in range(1, len(failing.splitlines()) + 1)
    assert "missing" in third.message


def test_sizes_may_differ_from_the_traced_ones_and_a_label_out_of_range_gives_nan() -> None:
    labels = function(
        "x, t", "F.cross_entropy(x, t, reduction='none').isnan()",
        "torch.randn(4, 8), torch.arange(4)",
    )  # fmt: skip
    given = [
        Candidate(candidate=in_triton(SOFTMAX), reference=SOFTMAX, inputs=f"[torch.randn({shape})]")
        for shape in ("1, 16", "17, 16", "3, 1000")
    ]
    assert interpret(given) == [Interpreted(complaints=())] * len(given)
    assert "tl.where(has" in in_triton(labels)


def test_what_takes_subnormals_for_0_is_not_used_in_float32() -> None:
    call = "torch.sqrt(x) + torch.rsqrt(x) + torch.floor(x) + torch.pow(x, x) + torch.atan2(x, x)"
    single = in_triton(function("x", call, "torch.rand(64)"))
    for flushing in ("tl.sqrt(", "tl.rsqrt(", "tl.floor("):
        assert flushing not in single
    assert "tl.sqrt_rn(" in single
    assert single.count("libdevice.pow(") == single.count("libdevice.atan2(") == 1
    double = in_triton(function("x", call, "torch.rand(64).double()"))
    assert "tl.sqrt(" in double
    assert "_rn" not in double


def test_rows_much_longer_than_the_traced_ones_or_empty_are_refused() -> None:
    module = load(in_triton(function("x", "torch.softmax(x, -1)", "torch.randn(64, 16)")))
    for columns in (0, 2**11 + 1):
        with pytest.raises(ValueError, match="rows of 1 to 2048 elements"):
            module.ModelNew()(torch.randn(3, columns))
    fixed = function("x, b", "torch.softmax(x + 16, -1)", "torch.randn(64, 16), torch.randn(16)")
    assert "rows of 1 to" not in in_triton(fixed)


def test_parts_and_permuted_views_are_read_as_they_lie() -> None:
    sources = {name: function("x", *APART[name]) for name in APART}
    sources["permuted"] = function(
        "x, c",
        "x.view(2, 33, 8, 64).transpose(1, 2) * c + 1",
        "torch.randn(2, 33, 512), torch.randn(33, 64)",
    )
    sources["softmax of permuted"] = function(
        "x", "torch.softmax(x.view(2, 33, 8, 64).transpose(1, 2), -1)", "torch.randn(2, 33, 512)"
    )
    for name, source in sources.items():
        assert "_laid.stride(" in in_triton(source), name
    assert checked(sources, {}) == {}
    turned = Candidate(
        candidate=in_triton(sources["halves"]), reference=sources["halves"],
        inputs="[torch.randn(512, 130).t()]",
    )  # fmt: skip
    assert interpret([turned]) == [Interpreted(complaints=())]


def test_what_is_read_twice_is_copied_once_and_the_copy_counts() -> None:
    call = "(lambda t: t * c + torch.cat((-t[..., 32:], t[..., :32]), -1))(q.transpose(1, 2))"
    source = function("q, c", call, "torch.randn(2, 128, 8, 64), torch.randn(128, 64)")
    text = in_triton(source)
    assert text.count("transpose.contiguous()") == 1
    program = Program.of(build(source, ()).graph, source, "triton")
    (kernel,) = load_pattern("row_loop").apply(program, Step(pattern="row_loop")).kernels
    whole = 2 * 128 * 8 * 64 * 4
    assert kernel.moved_bytes >= 4 * whole
    assert checked({"rotary": source}, {}) == {}


def test_long_rows_are_summed_in_float_by_lanes_and_take_one_exponential_an_element() -> None:
    sums = in_triton(function("x", "x.sum(-1)", "torch.ones(2, 40000)"))
    assert "float64" not in sums
    longer = in_triton(function("x", "x.sum(-1)", "torch.ones(1, 1).expand(2, 5_000_000)"))
    assert "float64" in longer
    softmax = in_triton(function("x", "torch.softmax(x, -1)", "torch.ones(2, 40000)"))
    assert '_all = tl.full((), float("-inf"), tl.float32)' in softmax


def test_many_long_rows_make_one_flat_grid_and_large_products_are_of_64_bits() -> None:
    spread = in_triton(
        function("x, b", "torch.tanh(x + b[:, None])", "torch.ones(3, 5000), torch.ones(3)")
    )
    assert "_kernel[(rows * triton.cdiv(cols, 1024),)]" in spread
    assert "tl.program_id(1)" not in spread
    call = "torch.tanh(x + a[:, :, None, :] * b[:, None, :, None])"
    sizes = "torch.ones({0}, {0}, {0}, {0}), torch.ones({0}, {0}, {0}), torch.ones({0}, {0})"
    rows = in_triton(function("x, a, b", call, sizes.format(4)))
    assert re.search(r"row < tl\.cast\(rows0, tl\.int64\) \* rows1", rows)


def test_a_module_with_several_kernels_has_each_import_and_helper_once() -> None:
    source = function(
        "x, w", "torch.softmax(torch.softmax(x, -1) @ w, -1)",
        "torch.randn(8, 16), torch.randn(16, 16)",
    )  # fmt: skip
    text = in_triton(source)
    assert text.count("@triton.jit\ndef nan_max") == 1
    assert text.count("import triton\n") == 1
    assert text.count("softmax_kernel[") == 2
    assert "cpp_kernel" not in text
    assert "device=x.device" in text


def test_tunables_reach_the_launch_and_unknown_ones_are_errors() -> None:
    text = in_triton(SOFTMAX, {"rows": 4, "warps": 2, "exp": "inline"})
    assert "ROWS=4, num_warps=2" in text
    assert "tl.exp(" in text
    for wrong in ({"warps": 3}, {"streaming": True}, {"exp": "table"}):
        with pytest.raises(ValueError, match="unknown tunables"):
            in_triton(SOFTMAX, wrong)


def test_proposals_for_triton_vary_its_own_tunables_and_can_all_be_applied() -> None:
    program = Program.of(build(SOFTMAX, ()).graph, SOFTMAX, "triton")
    pattern = load_pattern("row_loop")
    proposals = pattern.propose(program, SITUATION)
    assert not isinstance(proposals, Refusal)
    assert {"block", "rows", "warps"} <= set(proposals[0].step.parameters)
    for proposal in proposals:
        assert pattern.apply(program, proposal.step).kernels


def test_arithmetic_of_truth_values_is_refused_with_the_reason() -> None:
    source = function("x", "(x > 0) + (x < 1)", "torch.randn(40)")
    program = Program.of(build(source, ()).graph, source, "triton")
    answer = load_pattern("row_loop").propose(program, SITUATION)
    assert isinstance(answer, Refusal)
    assert "truth values" in answer.reason
