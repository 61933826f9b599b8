"""Rewrites of convolutions and of what was normalised, in float64; and their limits."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knowledge.pattern import Step, load_pattern
from knowledge.patterns.algebra.pattern import CONSTANT
from knowledge.patterns.algebra.taps import conv_range, transposed_range
from tests.patterns.test_algebra import check, rewritten
from tests.patterns.workshop import SITUATION, build, complaints, function, reference

ALGEBRA = (Step(pattern="algebra"),)
FAST = settings(max_examples=4, suppress_health_check=list(HealthCheck))
MODEL = """    def __init__(self):
        super().__init__()
        self.conv = nn.{module}
        self.after = nn.{after}

    def forward(self, x):
        return {expression}"""


def model(module: str, expression: str, inputs: str, after: str = "Identity()") -> str:
    """A reference with a convolution, and perhaps another module after it."""
    body = MODEL.format(module=module, expression=expression, after=after)
    return reference(body, f"torch.randn({inputs})")


@pytest.mark.parametrize(
    ("module", "inputs"),
    [
        ("Conv2d(8, 96, 3, padding=1)", "4, 8, 40, 37"),
        ("Conv2d(8, 96, 5, stride=2, padding=1, bias=False)", "4, 8, 81, 64"),
        ("Conv2d(6, 96, (3, 7), stride=(1, 3), padding=(2, 0), dilation=(2, 1))", "4, 6, 40, 99"),
        ("Conv2d(32, 128, 1)", "4, 32, 40, 40"),
        ("ConvTranspose2d(8, 64, 3, stride=2)", "4, 8, 32, 31"),
        ("ConvTranspose2d(8, 64, 4, stride=2, padding=3, output_padding=1)", "4, 8, 40, 31"),
        ("ConvTranspose2d(8, 64, 3, padding=2, dilation=3, bias=False)", "4, 8, 40, 31"),
        ("Conv1d(16, 64, 9, padding=4)", "8, 16, 1500"),
        ("ConvTranspose1d(16, 64, 5, stride=3, padding=1)", "8, 16, 1500"),
        ("ConvTranspose3d(4, 48, 3, stride=2, padding=1)", "4, 4, 15, 14, 13"),
    ],
)
@pytest.mark.parametrize("how", ["mean", "sum"])
def test_the_sum_of_a_convolution_is_a_product_of_sums(module: str, inputs: str, how: str) -> None:
    dims = tuple(range(2, inputs.count(",") + 1))
    expression = f"torch.{how}(self.conv(x), dim={dims})"
    kind = "transposed convolution" if "Transpose" in module else "convolution"
    check(model(module, expression, inputs), f"the {how} of a {kind} is a product of sums")


@pytest.mark.parametrize(
    "expression",
    [
        "F.adaptive_avg_pool2d(self.conv(x), 1)",
        "self.conv(x).mean((2, 3), keepdim=True)",
        "self.conv(x).mean((1, 2, 3))",
        "self.conv(x).sum((0, 2, 3))",
        "self.conv(x).sum()",
        "torch.mean(self.conv(x) * 0.37, dim=(2, 3))",
    ],
)
def test_any_form_of_the_sum_is_found(expression: str) -> None:
    source = model("ConvTranspose2d(8, 64, 4, stride=2, padding=1)", expression, "4, 8, 32, 32")
    check(source, "of a transposed convolution is a product of sums")


def test_nan_and_infinity_stay_where_the_reference_has_them() -> None:
    source = model("Conv2d(8, 96, 3, stride=2)", "self.conv(x).mean((2, 3))", "4, 8, 60, 60")
    x = torch.randn(4, 8, 60, 60)
    # The last row and column are not read by any window.
    x[0, 0, 5, 5], x[1, 0, 59, 3], x[2, 7, 59, 59] = float("nan"), float("nan"), float("inf")
    assert complaints(build(source, ALGEBRA), [x]) == []


@FAST
@given(
    st.integers(1, 12), st.integers(1, 4), st.integers(1, 4), st.integers(0, 5), st.integers(1, 3)
)
def test_a_tap_meets_what_the_definition_says(
    size: int, window: int, stride: int, padding: int, dilation: int
) -> None:
    for k in range(window):
        offset = padding - k * dilation
        made = (size + 2 * padding - dilation * (window - 1) - 1) // stride + 1
        found = conv_range(size, max(made, 0), stride, offset)
        expected = [o * stride - offset for o in range(max(made, 0))]
        assert list(range(found.first, found.last, found.step)) == [
            i for i in expected if 0 <= i < size
        ]
        made = max((size - 1) * stride - 2 * padding + dilation * (window - 1) + 1, 0)
        found = transposed_range(size, made, stride, offset)
        assert list(range(found.first, found.last)) == [
            i for i in range(size) if 0 <= i * stride - offset < made
        ]


@pytest.mark.parametrize(
    ("module", "expression", "inputs", "why"),
    [
        ("Conv2d(8, 8, 3)", "self.conv(x).mean((2, 3))", "2, 8, 6, 6", "cost as much"),
        ("Conv2d(8, 96, 3, groups=2)", "self.conv(x).sum((2, 3))", "4, 8, 40, 40", "in groups"),
        ("Conv2d(8, 96, 3)", "self.conv(x).mean(2)", "4, 8, 40, 40", "not all positions"),
        ("Conv2d(8, 96, 3, padding='same')", "self.conv(x).sum()", "4, 8, 40, 40", "by name"),
        ("Conv2d(8, 96, 3)", "self.conv(x).sum((1, 2))", "8, 40, 40", "no batch dimension"),
        (
            "Conv2d(8, 96, 3)", "(lambda y: (y.mean((2, 3)), y))(self.conv(x))[0]",
            "4, 8, 40, 40", "",
        ),
        ("Conv2d(8, 96, 2, stride=3)", "F.avg_pool2d(self.conv(x), 2)", "4, 8, 40, 40", "zeros"),
        ("Conv2d(8, 96, 3, dilation=2)", "F.avg_pool2d(self.conv(x), 2)", "4, 8, 9, 9", "dilated"),
        ("Conv2d(64, 9, 5)", "F.avg_pool2d(self.conv(x), 3, 1)", "4, 64, 9, 9", "larger window"),
        ("Linear(64, 8)", "self.after(self.conv(x))", "32, 64", "spare little work"),
        ("Linear(8, 10)", "F.avg_pool1d(self.conv(x), 3)", "32, 8", "leave a rest"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_the_reason(
    module: str, expression: str, inputs: str, why: str
) -> None:
    source = model(module, expression, inputs, after="Linear(8, 64)")
    _, unfit, expected, made, _ = rewritten(source)
    if why:
        assert any(why in one for one in unfit), unfit
    torch.testing.assert_close(made, expected, rtol=1e-11, atol=1e-11)


def test_a_convolution_that_is_needed_for_something_else_stays() -> None:
    expression = "(lambda y: y - y.mean((2, 3), keepdim=True))(self.conv(x))"
    done, unfit, *_ = rewritten(model("Conv2d(8, 96, 3)", expression, "4, 8, 40, 40"))
    assert not done
    assert any("needed for something else" in one for one in unfit)


@pytest.mark.parametrize(
    ("module", "pool", "inputs"),
    [
        ("Conv2d(16, 96, 3, padding=1)", "F.avg_pool2d(self.conv(x), 2)", "4, 16, 40, 41"),
        ("Conv2d(16, 96, 3, stride=2)", "F.avg_pool2d(self.conv(x), (2, 3))", "4, 16, 81, 81"),
        ("Conv2d(16, 96, 5, bias=False)", "F.avg_pool2d(self.conv(x), 3, (2, 4))", "4, 16, 50, 50"),
        ("Conv1d(32, 96, 3, groups=4)", "F.avg_pool1d(self.conv(x), 4)", "8, 32, 4000"),
        ("Conv3d(8, 48, 3)", "F.avg_pool3d(self.conv(x), 2)", "2, 8, 18, 17, 16"),
    ],
)
def test_average_pooling_goes_into_the_window(module: str, pool: str, inputs: str) -> None:
    check(model(module, pool, inputs), "average pooling is part of the convolution's window")


@pytest.mark.parametrize("pool", ["F.avg_pool1d({}, 4)", "F.avg_pool1d({}.unsqueeze(1), 4)"])
@pytest.mark.parametrize("bias", [True, False])
def test_average_pooling_goes_into_the_rows_of_a_weight(pool: str, bias: bool) -> None:
    expression = pool.format("self.conv(x)")
    source = model(f"Linear(256, 512, bias={bias})", expression, "1024, 256")
    check(source, "average pooling is part of the linear layer's weight")


@pytest.mark.parametrize(
    ("module", "after", "inputs"),
    [
        ("Linear(32, 512)", "Linear(512, 24)", "600, 32"),
        ("Linear(32, 512, bias=False)", "Linear(512, 24)", "4, 300, 32"),
        ("Linear(32, 512)", "Linear(512, 24, bias=False)", "600, 32"),
        ("Conv2d(16, 256, 1, stride=2)", "Conv2d(256, 16, 1)", "4, 16, 40, 40"),
        ("Conv1d(16, 256, 1, bias=False)", "Conv1d(256, 16, 1, stride=2)", "4, 16, 999"),
    ],
)
def test_two_products_in_a_row_are_one(module: str, after: str, inputs: str) -> None:
    check(model(module, "self.after(self.conv(x))", inputs, after), "in a row are one")


@FAST
@given(st.integers(2, 5), st.integers(2, 7), st.sampled_from(["sum", "mean"]), st.booleans())
@pytest.mark.parametrize(
    ("norm", "dims"),
    [
        ("InstanceNorm2d(6, affine=True)", "(2, 3)"),
        ("InstanceNorm2d(6)", "(-1, -2)"),
        ("GroupNorm(6, 6)", "(2, 3)"),
        ("GroupNorm(3, 6, affine=False)", "(1, 2, 3)"),
        ("LayerNorm({size}, elementwise_affine=False)", "-1"),
    ],
)
def test_the_mean_of_what_was_normalised_is_its_bias(
    norm: str, dims: str, batch: int, size: int, how: str, keep: bool
) -> None:
    source = model(
        norm.format(size=size), f"torch.{how}(self.conv(x), dim={dims}, keepdim={keep})",
        f"{batch}, 6, 4, {size}",
    )  # fmt: skip
    check(source, "of what was normalised is its bias")


@pytest.mark.parametrize(
    ("norm", "dims", "why"),
    [
        ("LayerNorm(5)", "-1", "a weight"),
        ("GroupNorm(3, 6)", "(1, 2, 3)", "a weight"),
        ("InstanceNorm2d(6, track_running_stats=True)", "(2, 3)", "running statistics"),
        ("InstanceNorm2d(6)", "(1, 2, 3)", "exactly"),
    ],
)
def test_a_mean_that_is_not_constant_is_kept(norm: str, dims: str, why: str) -> None:
    source = model(norm, f"torch.mean(self.conv(x), dim={dims})", "3, 6, 4, 5")
    done, unfit, *_ = rewritten(source)
    assert not done
    assert any(why in one for one in unfit)


def test_a_mean_of_what_was_normalised_is_labelled_and_keeps_nan() -> None:
    source = model("InstanceNorm2d(6, affine=True)", "self.conv(x).mean((2, 3)) + 1", "3, 6, 4, 5")
    built = build(source, ALGEBRA)
    assert built.program.labels == (CONSTANT,)
    x = torch.randn(3, 6, 4, 5)
    x[0, 1, 2, 3], x[1, 2, 0, 0] = float("nan"), float("inf")
    assert complaints(built, [x]) == []


@pytest.mark.parametrize("how", ["sum", "mean"])
def test_the_sum_of_a_softmax_is_constant_and_keeps_nan(how: str) -> None:
    source = function("x", f"torch.softmax(x, 1).{how}(1)", "torch.randn(5, 7)")
    check(source, f"the {how} of a softmax is a constant")
    built = build(source, ALGEBRA)
    assert built.program.labels == (CONSTANT,)
    x = torch.randn(5, 7)
    x[0, 1], x[1, 2], x[2, 3] = float("nan"), float("inf"), -float("inf")
    x[3] = -float("inf")
    assert complaints(built, [x]) == []


def test_what_depends_on_an_input_elsewhere_is_not_called_constant() -> None:
    source = function("x", "torch.softmax(x, 1).sum(1) + x[:, 0]", "torch.randn(5, 7)")
    assert build(source, ALGEBRA).program.labels == ()


def test_the_gain_of_a_mean_is_reckoned() -> None:
    source = model("Conv2d(32, 64, 3)", "self.conv(x).mean((2, 3))", "8, 32, 64, 64")
    answer = load_pattern("algebra").propose(build(source, ()).program, SITUATION)
    assert isinstance(answer, list)
    assert answer[0].speedup > 3
