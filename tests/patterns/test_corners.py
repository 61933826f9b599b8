"""Where torch's arithmetic is not what one would guess: a loop does the same, or is refused."""

import pytest
import torch

from knowledge.pattern import Refusal, Step, load_pattern
from tests.patterns.workshop import SITUATION, build, complaints, function, reference
from tools.trace import Untraceable

SMALL = "torch.tensor([0, 1, 100, 200, 255], dtype=torch.uint8)"
OTHER = "torch.tensor([255, 2, 200, 100, 255], dtype=torch.uint8)"
LARGE = "torch.tensor([7, -3, 16777217, 0, 33554433])"
ROWS = "torch.arange(40.).reshape(8, 5) - 17"
EDGES = "torch.tensor([0.0, -0.0, 5.0, -5.0, float('inf'), float('-inf'), float('nan')])"
OTHERS = "torch.tensor([-0.0, 2.0, 0.0, float('inf'), 2.0, float('-inf'), 1.0])"
SOME = "torch.arange(8) % 3 == 0"

# Arguments, expression, inputs.
CASES = {
    "rows counted in masked rows too": (
        "x, m", "torch.where(m, x.sum(-1), 0.).sum() / torch.ones_like(x).sum()", f"{ROWS}, {SOME}",
    ),
    "masked rows written over all columns": (
        "x, m", "torch.where(m, x.sum(-1), 0.)[:, None].expand_as(x)", f"{ROWS}, {SOME}",
    ),
    "bytes wrap between two calls": ("a, b", "(a - b).float()", f"{SMALL}, {OTHER}"),
    "bytes wrap before a magnitude": ("a, b", "(a - b).abs() + 1", f"{SMALL}, {OTHER}"),
    "bytes wrap before a quotient": ("a, b", "(a + b) // 2", f"{SMALL}, {OTHER}"),
    "a conversion wraps": ("x", "(x * 3).to(torch.uint8).float()", LARGE),
    "a generator of random numbers wraps": ("x", "(x.int() * 1103515245 + 12345) % 7", LARGE),
    "the same bits": ("x", "(x.view(torch.int32) & 0x7FFFFFFF).view(torch.float32)", ROWS),
    "groups of one channel": ("x", "F.group_norm(x, 5)", ROWS),
    "equal numbers of two types": ("m", "(m * 1, m * 1.0)", SOME),
    "the largest of bools, by column": ("x", "(x > 50).amax(0)", ROWS),
    "the largest of bools, by row": ("x", "(x > 3).amax(1)", ROWS),
    "the smallest of bools": ("x", "(x > -50).min()", ROWS),
    "a sum in another type": ("x", "(x * 0.1).sum(-1, dtype=torch.float64)", ROWS),
    "a sum of what is truncated": ("x", "(x * 0.1).sum(-1, dtype=torch.int64)", ROWS),
    "a softmax in another type": ("x", "F.softmax(x * 0.1, -1, dtype=torch.float64)", ROWS),
    "a norm in another type": (
        "x", "torch.linalg.vector_norm(x * 0.1, dim=-1, dtype=torch.float64)", ROWS,
    ),
    "a power of whole numbers": ("x", "(x % 11) ** 9", LARGE),
    "a float power of whole numbers": ("x", "x ** 3.0", LARGE),
    "what is left of whole numbers": ("x", "torch.fmod(x, 2)", LARGE),
    "a product of whole numbers": (
        "x, y", "x @ y", "torch.tensor([[4097, 4097]]), torch.tensor([4097, 4096])",
    ),
    "whole numbers filled with a float": ("x", "x.masked_fill(x > 9, 0.0)", LARGE),
    "whole numbers rounded": ("x", "torch.ceil(x) + torch.floor(x)", LARGE),
    "whole numbers clamped twice": ("x", "x.clamp(min=0).clamp(min=1)", LARGE),
    "whole numbers divided by others": ("x, y", "(x // y, x % y)", f"{LARGE}, {LARGE} * 2 + 1"),
    "a fraction that became whole": ("x", "x * torch.tensor(2.7).int()", ROWS),
    "filled with a fraction": ("x", "x * torch.full_like(x, 2.7, dtype=torch.int64)", ROWS),
    "quotients rounded down": ("x, y", "x // y", f"{EDGES}, {OTHERS}"),
    "by a number": ("x", "x // -2.0", EDGES),
    "the magnitude of a negative zero": ("x", "1 / x.abs()", EDGES),
    "means without NaN": ("x", "torch.nanmean(x.reshape(1, -1), -1)", EDGES),
    "a loss that keeps infinities": (
        "x, y", "F.hinge_embedding_loss(x, y, reduction='none')",
        "torch.tensor([float('inf'), float('inf'), 2.0, -3.0]), torch.tensor([1., -1., 1., -1.])",
    ),
    "a variance of too few": ("x", "torch.var(x, 1, correction=7)", ROWS),
    "the sign of a zero": ("x", "torch.copysign(torch.relu(x), -0.0)", EDGES),
    "memory counted through": ("x", "torch.relu(x.t()).as_strided((6,), (2,))", ROWS),
    "an endless power": ("x", "x ** float('inf')", EDGES),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:var")
@pytest.mark.parametrize("name", CASES)
def test_it_is_what_torch_gives(name: str) -> None:
    built = build(function(*CASES[name]))
    with torch.no_grad():
        expected, given = built.model(*built.inputs), built.candidate()(*built.inputs)
    wide = isinstance(expected, torch.Tensor) and expected.dtype == torch.float64
    near = {"rtol": 1e-12, "atol": 1e-12} if wide else {}
    torch.testing.assert_close(given, expected, equal_nan=True, **near)


# The patterns that are applied, arguments, expression, inputs.
KERNELS = {
    "a triangle of fewer matrices than there are products": (
        "matmul", "w, x", "torch.tril(w) @ x", "torch.randn(4, 40, 40), torch.randn(3, 4, 40, 20)",
    ),
    "a triangle that is summed too": (
        "matmul", "q, k, v",
        "(lambda s: (s @ v) / (1 + s.square().sum(-1, keepdim=True)))(torch.tril(q @ k.mT))",
        "*(torch.randn(2, 3, 40, 24) for _ in range(3))",
    ),
    "a diagonal with a bias": (
        "matmul", "x, d, b", "F.linear(x, torch.diag(d), b)",
        "torch.randn(64, 48), torch.randn(48), torch.randn(48)",
    ),
    "a diagonal that is added to": (
        "matmul", "c, d, b", "torch.addmm(c, torch.diag(d), b)",
        "torch.randn(48, 64), torch.randn(48), torch.randn(48, 64)",
    ),
    "columns of two letters": (
        "matmul", "x, w", "torch.relu(torch.einsum('bnd,dhk->bnhk', x, w))",
        "torch.randn(16, 256, 48), torch.randn(48, 16, 64)",
    ),
    "a window of thousands": (
        "pooling", "x", "F.avg_pool1d(x, 8192)", "torch.randn(2, 2, 16384)",
    ),
    "a window with nothing in it": (
        "pooling", "x", "F.max_pool2d(x, 2, 1, 1, 2).clamp(min=-9)", "torch.randn(1, 1, 1, 8)",
    ),
    "a scan of what another scan is followed by": (
        "scan", "x", "torch.cumsum(x * torch.cumprod(1 - x, -1), -1)", "torch.rand(64, 128) / 9",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_takes_it_or_leaves_it(name: str) -> None:
    pattern, *source = KERNELS[name]
    answer = load_pattern(pattern).propose(build(function(*source), ()).program, SITUATION)
    steps = () if isinstance(answer, Refusal) else (Step(pattern=pattern),)
    assert complaints(build(function(*source), steps)) == []


TWO_NORMS = reference(
    """    def __init__(self):
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(6, 8, 3, padding=1), nn.Conv2d(6, 8, 1)
        self.one, self.other = nn.BatchNorm2d(8), nn.BatchNorm2d(8)

    def forward(self, x):
        return F.relu(self.one(self.wide(x)) + self.other(self.narrow(x)))""",
    "torch.randn(5, 6, 12, 11)",
)
NORM_OF_NORM = reference(
    """    def __init__(self):
        super().__init__()
        self.one, self.other = nn.BatchNorm2d(6), nn.BatchNorm2d(6)

    def forward(self, x):
        y = self.other(torch.relu(self.one(x)))
        return y.var((0, 2, 3)) + y.mean((0, 2, 3))""",
    "torch.randn(5, 6, 12, 11)",
)


@pytest.mark.parametrize("source", [TWO_NORMS, NORM_OF_NORM], ids=["that meet", "of a norm"])
def test_two_norms_in_training(source: str) -> None:
    built = build(source, (Step(pattern="column_statistics"), Step(pattern="row_loop")))
    assert complaints(built) == []
    assert len(built.program.kernels) >= 2


@pytest.mark.parametrize(
    ("expression", "traced", "other"),
    [("x.mean(1)", (1, 4096, 8), (2, 4096, 8)), ("x.sum((0, 2))", (4096, 8, 1), (4096, 8, 3))],
)
def test_what_was_one_element_is_one_or_is_refused(
    expression: str, traced: tuple[int, ...], other: tuple[int, ...]
) -> None:
    built = build(
        function("x", expression, f"torch.randn{traced}"), (Step(pattern="column_statistics"),)
    )
    assert complaints(built) == []
    with pytest.raises(ValueError, match="should be 1"):
        built.candidate()(torch.randn(other))


def test_a_bias_of_another_length_is_refused_in_a_sentence() -> None:
    source = function(
        "x, w, b", "F.conv2d(x, w, b)",
        "torch.randn(2, 3, 9, 9), torch.randn(8, 3, 3, 3), torch.randn(8)",
    )  # fmt: skip
    candidate = build(source, (Step(pattern="convolution"),)).candidate()
    with pytest.raises(ValueError, match="a bias of 8 elements"):
        candidate(torch.randn(2, 3, 9, 9), torch.randn(8, 3, 3, 3), torch.randn(5))


def test_scores_that_a_mask_multiplies_are_no_attention_of_ours() -> None:
    source = function(
        "q, k, v, m",
        "(q @ k.transpose(-1, -2)).masked_fill(m, float('-inf')).softmax(-1) @ v",
        "*(torch.randn(1, 2, 4, 8) for _ in range(3)), torch.eye(4, dtype=torch.bool)"
        ".expand(3, 1, 4, 4).clone()",
    )
    answer = load_pattern("attention").propose(build(source, ()).program, SITUATION)
    assert isinstance(answer, Refusal)
    assert "more scores" in answer.reason


def test_a_type_that_no_pattern_knows_is_said_to_be_one() -> None:
    source = function("x", "x.to(torch.float8_e4m3fn).float()", "torch.randn(8)")
    with pytest.raises(Untraceable, match="float8_e4m3fn"):
        build(source, ())
