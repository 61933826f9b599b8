"""Arguments that are called what a printed kernel calls something of its own."""

import pytest

from knowledge.pattern import Step
from tests.patterns.workshop import FUSED, build, complaints, function, reference

WORDS = (
    "last", "first", "units", "end", "begin", "ahead", "part", "left", "lanes", "count", "tasks",
    "in0", "in1", "block_v1_add", "wide_x", "kept_v1_exp", "vector_exp", "int64_t", "float16",
    "nan_max", "CHUNK", "LANES", "typeof", "unix", "static_cast", "NAN", "floor_divide", "strip",
    "STRIP", "aligned", "into_lanes", "tile_x",
)  # fmt: skip
ADDED = " + ".join(WORDS)
LINEAR = """\
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(40, 24)

    def forward(self, x, {arguments}):
        return {expression}"""

# What is done to x and to the sum of all arguments, and their shape.
LOOPS = {
    "flat": ("torch.exp(x) * ({0})", "7, 700"),
    "rows": ("torch.softmax(x.exp() + {0}, -1)", "7, 700"),
    "lanes": ("torch.softmax(x.exp() + {0}, 1)", "3, 20, 90"),
    "several inner groups": ("(x + ({0}) * vector_exp[:, :1, :, :1]).amax(1)", "2, 5, 6, 7"),
    "totals": ("((x + {0}) // 0.5).amax(-1).sum()", "7, 70"),
    "halves": ("torch.softmax(x + {0}, -1)", "3, 300, dtype=torch.float16"),
    "with prefetches": ("torch.softmax(x + {0}, -1)", "1025, 1024"),
    "tiles": ("torch.softmax(x.exp() + {0}, -1)", "70, 12"),
    "turns": ("torch.stack([x * 2, {0}], -1) + 1", "7, 70"),
}


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_is_right_whatever_its_arguments_are_called(name: str) -> None:
    expression, shape = LOOPS[name]
    inputs = ", ".join([f"torch.randn({shape})"] * (len(WORDS) + 1))
    built = build(function(f"x, {', '.join(WORDS)}", expression.format(ADDED), inputs), FUSED)
    assert complaints(built) == []


@pytest.mark.parametrize("expression", ["({0}) * 2", "torch.softmax({0}, -1)"])
def test_an_epilogue_is_right_whatever_its_arguments_are_called(expression: str) -> None:
    text = expression.format(f"self.linear(x) + {ADDED}")
    inputs = ", ".join(["torch.randn(30, 40)", *["torch.randn(30, 24)"] * len(WORDS)])
    body = LINEAR.format(arguments=", ".join(WORDS), expression=text)
    built = build(reference(body, inputs), (Step(pattern="matmul"),))
    assert len(built.program.kernels[0].nodes) == len(WORDS) + 2
    assert complaints(built) == []
