"""Batch norms in evaluation mode: fused into what is before and after them, or the library's."""

import pytest
import torch

from knowledge.emit import emit
from knowledge.pattern import Step, load_pattern
from knowledge.program import Program
from tests.patterns.workshop import FUSED, Built, build, complaints, reference

BODY = """\
    def __init__(self):
        super().__init__()
        self.first = {first}
        self.norm = {norm}
        for given in (self.norm.running_mean, self.norm.bias):
            if given is not None:
                nn.init.normal_(given)
        for given in (self.norm.running_var, self.norm.weight):
            if given is not None:
                nn.init.uniform_(given, 0.5, 2)
        self.{mode}(){half}

    def forward(self, x):
        return {expression}"""
ACTIVATED = "F.selu(self.norm(self.first(x)))"


def norm(
    first: str, layer: str, inputs: str, expression: str = ACTIVATED, mode: str = "eval",
    half: str = "",
) -> str:  # fmt: skip
    """A reference in which a norm follows a layer."""
    body = BODY.format(first=first, norm=layer, mode=mode, half=half, expression=expression)
    return reference(body, inputs)


LINEAR = ("nn.Linear(40, 24)", "nn.BatchNorm1d(24)", "torch.randn(30, 40)")
IMAGES = "torch.randn(3, 8, 9, 10)"

# name: (pattern, source, calls in its first kernel)
FUSIONS = {
    "linear": ("matmul", norm(*LINEAR), 7),
    "linear in a row": (
        "matmul",
        norm(*LINEAR, expression="torch.softmax(self.norm(self.first(x)), -1) + 1"), 8,
    ),
    "linear and no activation": ("matmul", norm(*LINEAR, expression="self.norm(self.first(x))"), 6),
    "convolution": (
        "convolution", norm("nn.Conv2d(8, 12, 3)", "nn.BatchNorm2d(12, eps=0.1)", IMAGES), 12,
    ),
    "transposed": (
        "transposed_convolution",
        norm("nn.ConvTranspose2d(8, 12, 3, 2)", "nn.BatchNorm2d(12)", IMAGES), 12,
    ),
    "alone with its activation": (
        "row_loop", norm("nn.Identity()", "nn.BatchNorm2d(8)", IMAGES), 11,
    ),
    "without weights": (
        "row_loop", norm("nn.Identity()", "nn.BatchNorm2d(8, affine=False)", IMAGES), 7,
    ),
    "one line a sample": (
        "row_loop", norm("nn.Identity()", "nn.BatchNorm1d(40)", "torch.randn(30, 40)"), 6,
    ),
    "after a library's convolution": (
        "row_loop",
        norm("nn.Conv1d(8, 12, 3)", "nn.BatchNorm1d(12)", "torch.randn(3, 8, 50)"), 11,
    ),
    "in three dimensions": (
        "row_loop",
        norm("nn.Conv3d(4, 6, 3)", "nn.BatchNorm3d(6)", "torch.randn(2, 4, 6, 7, 8)"), 11,
    ),
    "of doubles": (
        "row_loop",
        norm("nn.Identity()", "nn.BatchNorm2d(8)", f"{IMAGES}.double()", half=".double()"), 11,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FUSIONS)
def test_a_fixed_norm_is_fused(name: str) -> None:
    pattern, source, calls = FUSIONS[name]
    built = build(source, (Step(pattern=pattern),))
    largest = max(built.program.kernels, key=lambda kernel: len(kernel.nodes))
    assert not any("batch_norm" in node.target for node in built.program.graph.calls)
    assert complaints(built) == []
    assert len(largest.nodes) == calls


@pytest.mark.parametrize("dtype", ["half", "bfloat16"])
@pytest.mark.parametrize("layer", ["nn.BatchNorm2d(8)", "nn.BatchNorm2d(8, affine=False)"])
def test_a_norm_of_halves_is_computed_in_float_as_the_library_does(dtype: str, layer: str) -> None:
    source = norm(
        "nn.Identity()", layer, f"(torch.randn(3, 8, 40, 50) * 4 + 3).{dtype}()",
        "torch.relu(self.norm(x))", half=f".{dtype}()",
    )  # fmt: skip
    built = build(source, FUSED)
    assert len(built.program.kernels) == 1
    with torch.no_grad():
        ours, eager = built.candidate()(*built.inputs), built.model(*built.inputs)
        exact = built.model.double()(built.inputs[0].double())
    wrong = [(one.double() - exact).abs().max().item() for one in (ours, eager)]
    assert wrong[0] <= 1.01 * wrong[1]


@pytest.mark.parametrize(
    ("layer", "expression", "mode"),
    [
        ("nn.BatchNorm2d(8)", "torch.relu(self.norm(x))", "train"),
        ("nn.BatchNorm2d(8)", "self.norm(x)", "eval"),
        ("nn.BatchNorm2d(8)", "self.norm(x).cumsum(-1)", "eval"),
    ],
)
def test_a_norm_in_training_or_beside_no_loop_stays_the_librarys(
    layer: str, expression: str, mode: str
) -> None:
    source = norm("nn.Identity()", layer, IMAGES, expression, mode)
    built = build(source, ())
    program: Program = built.program
    if mode == "train":
        program = load_pattern("row_loop").apply(program, FUSED[0])
    else:
        with pytest.raises(ValueError, match="nothing to fuse"):
            load_pattern("row_loop").apply(program, FUSED[0])
    assert sum("batch_norm" in node.target for node in program.library_calls) == 1
    made = Built(built.model, built.inputs, program.graph, program, emit(program))
    assert complaints(made) == []


def test_what_reads_a_norm_that_is_written_out_is_taken_all_the_same() -> None:
    body = """\
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(40, 24), nn.BatchNorm1d(24), nn.Linear(24, 70)
        self.d = nn.BatchNorm1d(70)
        self.eval()

    def forward(self, x):
        return F.gelu(self.d(self.c(self.b(self.a(x)))))"""
    built = build(reference(body, "torch.randn(30, 40)"), (Step(pattern="matmul"),))
    assert len(built.program.kernels) == 2
    assert complaints(built) == []
