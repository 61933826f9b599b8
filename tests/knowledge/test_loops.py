"""Fused loops: all operators on awkward values, and groups of reductions, against float64."""

import pytest
import torch

from knowledge.loops import islands
from knowledge.loops.form import Refused
from knowledge.loops.islands import find_islands
from knowledge.loops.plan import Options
from knowledge.loops.shapes import fits, partition, refine
from knowledge.loops.spelling import literal
from tests.patterns.workshop import FUSED, Built, build, complaints, function, reference

AWKWARD = (
    "torch.cat([torch.tensor([0.0, -0.0, 1.0, -1.0, float('inf'), -float('inf'), float('nan'), "
    "1e-40, -1e-40, 88.0, 88.7, 89.0, -87.0, -88.0, -100.0, -103.0, -110.0, 1e30, -1e30, 20.0, "
    "20.1, -20.0, 3.95, 5.0, -5.0, 2.0, 6.0]), torch.linspace(-12, 12, 3001), "
    "torch.logspace(-30, 30, 300), -torch.logspace(-30, 30, 300)])"
)
FUNCTIONS = [
    "exp",
    "log",
    "log1p",
    "expm1",
    "tanh",
    "sigmoid",
    "erf",
    "sqrt",
    "rsqrt",
    "abs",
    "neg",
    "sign",
    "reciprocal",
    "relu",
    "floor",
    "ceil",
    "round",
    "trunc",
    "exp2",
    "log2",
    "log10",
    "sin",
    "cos",
    "atan",
    "isnan",
    "isinf",
    "isfinite",
    "square",
    "frac",
    "logical_not",
]
ACTIVATIONS = [
    "gelu",
    "silu",
    "mish",
    "softplus",
    "elu",
    "selu",
    "celu",
    "hardsigmoid",
    "relu6",
    "hardtanh",
    "leaky_relu",
    "softsign",
    "logsigmoid",
    "tanhshrink",
    "hardshrink",
    "softshrink",
]
EXPRESSIONS = [
    *(f"torch.{name}(x)" for name in FUNCTIONS),
    *(f"F.{name}(x)" for name in ACTIVATIONS),
    "F.gelu(x, approximate='tanh')", "F.softplus(x, beta=2.0)", "F.elu(x, 0.5)",
    "F.leaky_relu(x, 0.2)", "x**2", "x**0.5", "x**-1", "x**3", "x**2.5", "2.0**x", "1 - x",
    "x / 3", "3 / x", "torch.clamp(x, -1, 1)", "torch.clamp(x, max=2.0)", "torch.maximum(x, -x)",
    "torch.minimum(x, x * 0 + 1)", "torch.nan_to_num(x)", "torch.remainder(x, 3.0)",
    "torch.fmod(x, 3.0)", "torch.fmod(x, -0.1)", "torch.fmod(x, 1e-6)", "torch.fmod(x, 1e30)",
    "torch.remainder(x, -0.7)", "torch.fmod(x, x + 1)", "torch.clamp(x, -1.5, float('inf'))",
    "torch.where(x > 0, x, -x)", "x.masked_fill(x < 0, 5.0)",
    "torch.lerp(x, x * 2, 0.3)", "torch.addcmul(x, x, x, value=0.5)",
    "torch.addcdiv(x, x, x + 1)", "x // 2", "torch.logaddexp(x, x * 0)",
    "F.threshold(x, 0.1, 2.0)", "(x > 0) & (x < 1)", "~(x > 0) | (x == 2)",
    "torch.zeros_like(x) * x", "x.half().float()", "x.bfloat16().float()",
    "(x > 0).to(torch.int32)", "torch.logaddexp(x, x)", "torch.xlogy(x.abs(), x)",
    "torch.fmax(x, x * 0 + 1)", "torch.fmin(x, x * 0)", "torch.heaviside(x, x * 0 + 0.5)",
    "torch.special.entr(x)", "torch.hypot(x, x + 1)", "torch.copysign(x.abs(), 1 - x)",
    "torch.deg2rad(x)", "torch.rad2deg(x)", "torch.logit(x)",
    "torch.logit(x, eps=0.1)", "torch.isclose(x, x.abs())", "F.rrelu(x)", "torch.sgn(x)",
    "torch.zeros(3628) + x", "(x > 0).int() & 3 | 4 ^ (x > 1).int()",
]  # fmt: skip


@pytest.fixture(scope="module", params=["inline", "libm"])
def pointwise(
    request: pytest.FixtureRequest,
) -> tuple[Built, list[torch.Tensor], list[torch.Tensor]]:
    """All pointwise expressions as one kernel, its results, and those of float64."""
    step = FUSED[0].model_copy(update={"parameters": {"exp": request.param}})
    built = build(function("x", f"[{', '.join(EXPRESSIONS)}]", AWKWARD), (step,))
    with torch.no_grad():
        return built, built.candidate()(*built.inputs), built.model(built.inputs[0].double())


def test_all_pointwise_operators_make_one_kernel(
    pointwise: tuple[Built, list[torch.Tensor], list[torch.Tensor]],
) -> None:
    assert len(pointwise[0].program.kernels) == 1
    assert not pointwise[0].program.library_calls


@pytest.mark.parametrize("position", range(len(EXPRESSIONS)), ids=EXPRESSIONS)
def test_pointwise_operator_is_exact_to_a_few_units_and_keeps_nan(
    position: int, pointwise: tuple[Built, list[torch.Tensor], list[torch.Tensor]]
) -> None:
    built, ours, exact = pointwise
    made, true = ours[position], exact[position]
    with torch.no_grad():
        eager = built.model(*built.inputs)[position]
    assert made.dtype == eager.dtype
    if not made.is_floating_point():
        assert torch.equal(made, eager)
        return
    assert torch.equal(made.isnan(), true.isnan())
    finite = made.isfinite() & eager.isfinite() & (true.abs() < 1e38)
    error, known = ((t.double() - true)[finite].abs() for t in (made, eager))
    allowed = 8 * 2.0**-23 * true[finite].abs() + 4 * known + 5e-7
    assert bool((error <= allowed).all())


GROUPS = {
    "reductions over the last dimension": (
        "[x.sum(-1), x.mean(-1, keepdim=True), x.amax(-1), x.amin(-1), x.max(-1)[0], "
        "x.min(-1)[0], x.prod(-1), x.var(-1), x.std(-1, unbiased=False), torch.logsumexp(x, "
        "-1), x.norm(dim=-1), x.norm(p=1, dim=-1), x.norm(p=3, dim=-1), (x > 0).any(-1), (x >"
        " 0).all(-1), (x > 0).sum(-1), torch.var_mean(x, -1)[1]]",
        "x",
        "torch.randn(5, 33)",
    ),
    "reductions over the first dimension": (
        "[x.sum(0), x.mean(0), x.amax(0, keepdim=True), x.var(0), torch.logsumexp(x, 0), "
        "torch.softmax(x, 0), torch.log_softmax(x, 0) * x.std(0)]",
        "x",
        "torch.randn(5, 133)",
    ),
    "totals": (
        "[x.sum(), x.mean(), x.max(), x.min(), x.norm(), x.abs().sum() + 1, (x * "
        "x).mean().sqrt(), (x > 0).sum()]",
        "x",
        "torch.randn(70, 333)",
    ),
    "losses": (
        "[F.mse_loss(x, y), F.l1_loss(x, y, reduction='sum'), F.smooth_l1_loss(x, y, "
        "beta=0.5), F.huber_loss(x, y, delta=0.7), F.binary_cross_entropy_with_logits(x, "
        "y.sigmoid()), F.binary_cross_entropy(x.sigmoid(), y.sigmoid()), F.kl_div(x, y.abs(),"
        " reduction='sum'), F.kl_div(x, y, reduction='sum', log_target=True), "
        "F.poisson_nll_loss(x, y), F.soft_margin_loss(x, y.sign()), F.hinge_embedding_loss(x,"
        " y.sign()), F.mse_loss(x, y, reduction='none')]",
        "x, y",
        "torch.randn(9, 33), torch.randn(9, 33)",
    ),
    "losses by row": (
        "[F.cosine_embedding_loss(x, y, s), F.cosine_similarity(x, y, dim=1), "
        "F.pairwise_distance(x, y), F.triplet_margin_loss(x, y, x * 2)]",
        "x, y, s",
        "torch.randn(9, 33), torch.randn(9, 33), torch.randn(9).sign()",
    ),
    "cross-entropies": (
        "[F.cross_entropy(x, t), F.cross_entropy(x, t, reduction='sum', label_smoothing=0.1),"
        " F.cross_entropy(x, t, ignore_index=3), F.nll_loss(torch.log_softmax(x, 1), t), "
        "F.cross_entropy(x, t, reduction='none')]",
        "x, t",
        "torch.randn(40, 7) * 3, torch.randint(0, 7, (40,))",
    ),
    "norms": (
        "[F.layer_norm(x, (6, 5), w, w + 1), F.rms_norm(x, (6, 5), w), F.group_norm(x, 2, c, "
        "c), F.instance_norm(x), F.adaptive_avg_pool2d(x, 1), F.normalize(x, dim=1), "
        "F.prelu(x, c)]",
        "x, w, c",
        "torch.randn(3, 4, 6, 5), torch.randn(6, 5), torch.randn(4)",
    ),
    "classes that weigh differently": (
        "[F.cross_entropy(x, t, weight=w), F.cross_entropy(x, p), F.nll_loss(x, t, weight=w), "
        "F.cross_entropy(x, p, label_smoothing=0.1, reduction='sum'), "
        "F.cross_entropy(x, t, weight=w, ignore_index=3, reduction='none')]",
        "x, t, w, p",
        "torch.randn(40, 7) * 3, torch.randint(0, 7, (40,)), torch.rand(7), "
        "torch.softmax(torch.arange(280.0).view(40, 7).sin(), 1)",
    ),
    "losses with a further term": (
        "[F.poisson_nll_loss(x, y.abs() * 3, full=True), "
        "F.triplet_margin_loss(x, y, x * 2 + y, swap=True)]",
        "x, y",
        "torch.randn(9, 33), torch.randn(9, 33)",
    ),
    "reductions that skip": (
        "[torch.nansum(x.log(), -1), torch.count_nonzero(x > 0, -1), "
        "torch.aminmax(x, dim=-1)[0], torch.aminmax(x, dim=-1)[1]]",
        "x",
        "torch.randn(9, 33)",
    ),
    "made of two vectors": (
        "[torch.outer(x, y), torch.diff(torch.outer(x, y)), F.one_hot(t, 9) * 2]",
        "x, y, t",
        "torch.randn(7), torch.randn(9), torch.randint(0, 9, (7,))",
    ),
    "whole numbers": (
        "[x * 2 + 1, x.sum(1), x.float() / 3, x // 4, x % 4, x.amax(1), x.clamp(-2, 2), "
        "-x.abs(), x.to(torch.int16)]",
        "x",
        "torch.randint(-9, 9, (7, 11))",
    ),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("name", GROUPS)
def test_group_is_as_exact_as_torch(name: str, dtype: str) -> None:
    expression, arguments, inputs = GROUPS[name]
    if dtype != "float32" and name not in (
        "norms",
        "losses",
        "reductions over the first dimension",
    ):
        pytest.skip("one of the other groups")
    cast = "" if dtype == "float32" else f".to(torch.{dtype})"
    texts = inputs.split("), ")
    given = ", ".join(
        f"{text}){cast}" if n < len(texts) - 1 else f"{text}{cast}" for n, text in enumerate(texts)
    )
    built = build(function(arguments, expression, given), FUSED)
    assert built.program.kernels
    if dtype == "bfloat16":
        # torch rounds between the steps of a composite, a fused loop does not; a few values then
        # differ by more than eager's own error. Shapes and types are what is checked here.
        found = [text for text in complaints(built) if "off by" not in text]
        assert found == []
        return
    assert complaints(built) == []


HALVES = {
    "a sum": ("x + y", 300, 1000),
    "gate": ("torch.relu(x * y + x)", 7, 37),
    "layer norm": ("F.layer_norm(x, x.shape[-1:], x[0], y[0])", 33, 1000),
    "layer norm of few": ("F.layer_norm(x + y, x.shape[-1:])", 33, 31),
    "softmax": ("torch.softmax(x, -1) * y", 33, 290),
    "joined": ("torch.cat([x, y], 1) * 2.0", 33, 70),
}


@pytest.mark.parametrize("name", HALVES)
def test_halves_in_runs_and_rests_are_right(name: str) -> None:
    expression, rows, columns = HALVES[name]
    given = ", ".join([f"torch.randn({rows}, {columns}).half()"] * 2)
    built = build(function("x, y", expression, given), FUSED)
    assert built.program.kernels
    assert complaints(built) == []
    x, y = (value.clone() for value in built.inputs)
    x[1, 3], x[2, 2], y[3, -1] = float("nan"), float("inf"), 65504.0
    assert complaints(built, [x, y]) == []


def test_a_sweep_that_reads_halves_again_has_them_converted() -> None:
    expression, rows, columns = HALVES["layer norm"]
    given = ", ".join([f"torch.randn({rows}, {columns}).half()"] * 2)
    source = build(function("x, y", expression, given), FUSED).program.kernels[0].source
    assert source.count("widen_halves(x_row") == 1


def test_names_that_look_like_a_place_in_another_tensor_hide_nothing() -> None:
    arguments = ", ".join(["t", "t_row", *(f"t_{n}" for n in range(12))])
    inputs = ", ".join(["torch.randn(5, 8)"] * 14)
    joined = f"F.normalize(torch.cat([{arguments}], 1), dim=1)"
    assert complaints(build(function(arguments, joined, inputs), FUSED)) == []


def test_calls_between_which_the_library_stands_are_not_fused() -> None:
    body = """    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x):
        y = torch.relu(x)
        return self.linear(y) * y"""
    built = build(reference(body, "torch.randn(4, 8)"), FUSED)
    assert [kernel.nodes for kernel in built.program.kernels] == [("relu",), ("mul",)]
    assert complaints(built) == []


def test_each_call_outside_the_loops_has_a_reason() -> None:
    graph = build(function("x", "torch.cumsum(torch.relu(x), 1)", "torch.randn(4, 8)"), ()).graph
    found, reasons = find_islands(graph)
    assert [island.nodes for island in found] == [("relu",)]
    assert reasons == {"cumsum": "aten.cumsum.default is left to the library"}


def test_what_each_of_many_steps_reads_twice_is_planned_at_once() -> None:
    steps = """    def forward(self, x):
        for _ in range(28):
            x = x * torch.cos(x)
        return x - x.mean(1, keepdim=True)"""
    built = build(reference(steps, "torch.rand(7, 40)"), FUSED)
    assert len(built.program.kernels) == 1
    assert complaints(built) == []


def test_a_long_chain_of_calls_is_cut_into_several_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(islands, "MOST_CALLS", 8)
    steps = """    def forward(self, x):
        for n in range(10):
            x = torch.sin(x + n)
        return x"""
    built = build(reference(steps, "torch.rand(7, 41)"), FUSED)
    assert [len(kernel.nodes) for kernel in built.program.kernels] == [8, 8, 4]
    assert complaints(built) == []


def test_shapes_that_nest_share_an_index_space() -> None:
    assert refine([(8, 36), (8, 4, 9)]) == (8, 4, 9)
    assert refine([(8, 1, 36), (2, 4, 36)]) == (2, 4, 36)
    with pytest.raises(Refused, match="don't nest"):
        refine([(4, 6), (6, 4)])


def test_atoms_are_dealt_out_to_dimensions_in_order() -> None:
    assert partition((8, 36), (0, 1, 2), (8, 4, 9)) == ((0,), (1, 2))
    assert partition((8, 1, 4, 9), (0, 1, 2), (8, 4, 9)) == ((0,), (), (1,), (2,))
    assert partition((4, 72), (0, 1, 2), (8, 4, 9)) is None


def test_broadcasting_is_aligned_at_the_last_dimension() -> None:
    assert fits(((1,),), ((0,), (1,)))
    assert fits(((0,), ()), ((0,), (1,)))
    assert not fits(((0,),), ((0,), (1,)))


@pytest.mark.parametrize(
    ("number", "kind", "text"),
    [(0.5, "float", "0.5f"), (2, "float", "2.0f"), (1e-12, "double", "1e-12"),
     (3, "int64_t", "INT64_C(3)"),
     (float("-inf"), "float", "-INFINITY"), (True, "bool", "true")],
)  # fmt: skip
def test_literals_carry_their_type(number: float, kind: str, text: str) -> None:
    assert literal(number, kind) == text  # type: ignore[arg-type]


def test_options_default_to_the_fast_and_exact_ones() -> None:
    assert Options() == Options(exp="inline", accumulate="float", streaming=False, prefetch=True)


@pytest.mark.parametrize(
    "expression",
    [
        "torch.argmax(x, 1)",
        "torch.argmin(x, -1, keepdim=True)",
        "torch.argmax(x, 0)",
        "torch.argmax(x)",
        "torch.max(x, 1)",
        "torch.min(x, 0, keepdim=True)",
    ],
)
def test_the_place_of_an_extreme_is_its_first_and_that_of_the_first_nan(expression: str) -> None:
    built = build(function("x", expression, "torch.randn(7, 33)"), FUSED)
    assert not built.program.library_calls
    x = torch.randn(7, 33)
    x[1, 4] = x[1, 9] = float("nan")
    x[2], x[3, 5], x[4] = -float("inf"), float("inf"), 1.0
    assert complaints(built) == []
    assert complaints(built, [x]) == []


@pytest.mark.parametrize(
    ("expression", "inputs"),
    [
        ("torch.argmax(torch.tanh(x * 2), 1)", "torch.randn(3, 8, 100)"),
        ("torch.argmax(x, 1)", "torch.randint(0, 5, (7, 33))"),
        ("torch.argmax(x, 1)", "torch.randn(9, 50).bfloat16()"),
        ("torch.max(x, 1)", "torch.randn(3, 1)"),
    ],
)
def test_places_of_extremes_fuse_with_what_is_computed_before(expression: str, inputs: str) -> None:
    built = build(function("x", expression, inputs), FUSED)
    assert len(built.program.kernels) == 1
    assert complaints(built) == []


def test_the_place_of_the_extreme_of_one_long_row_is_left_to_the_library() -> None:
    _, refused = find_islands(build(function("x", "x.argmax()", "torch.randn(300000)"), ()).graph)
    assert refused == {"argmax": "the place of the extreme of one long row"}
