"""Rows too short for vectors: side by side in tiles, or pair by pair, against float64."""

import pytest
import torch

from knowledge.freedom import freedom
from tests.patterns.workshop import FUSED, Built, build, complaints, function, load, reference

NORM = "F.layer_norm(x, ({0},), w, b)"
# Arguments, expression, and inputs for n rows, or thereabouts.
TILES = {
    "two columns": ("x", "torch.softmax(x, -1)", "torch.randn({n}, 2)"),
    "three columns": ("x", "torch.log_softmax(x, -1)", "torch.randn({n}, 3)"),
    "five columns": ("x", "torch.softmax(x, -1)", "torch.randn({n}, 5)"),
    "eight columns": (
        "x, w, b", NORM.format(8), "torch.randn({n}, 8), torch.randn(8), torch.randn(8)",
    ),
    "ten classes": ("x", "torch.log_softmax(x, -1)", "torch.randn({n}, 10)"),
    "sixteen columns": (
        "x, w, b", NORM.format(16), "torch.randn({n}, 16), torch.randn(16), torch.randn(16)",
    ),
    "as many as there may be": ("x", "torch.softmax(x, -1)", "torch.randn({n}, 32)"),
    "the place of the largest": ("x", "x.argmax(-1)", "torch.randn({n}, 9).round()"),
    "the least and its place": ("x", "x.min(-1)", "torch.randn({n}, 6).round()"),
    "a loss": (
        "x, t", "F.cross_entropy(x, t)", "torch.randn({n}, 10), torch.randint(0, 10, ({n},))",
    ),
    "heads and a mask": (
        "x, s, m", "torch.softmax(x * s + m, -1)",
        "torch.randn({n}, 5, 20, 12), torch.rand(5, 1, 1), torch.randn({n}, 1, 20, 12)",
    ),
    "a number for each row": (
        "x, y", "((x - y[:, None]) ** 2).sum(-1).sqrt() * y",
        "torch.randn({n}, 7), torch.randn({n})",
    ),
    "several results": (
        "x", "(torch.softmax(x, -1), x.exp().sum(-1), x * 2)", "torch.randn({n}, 12)",
    ),
    "two dimensions": (
        "x, w", "F.layer_norm(x, (4, 5)) * w", "torch.randn({n}, 4, 5), torch.randn(4, 1)",
    ),
    "halves": ("x", "torch.softmax(x, -1)", "torch.randn({n}, 12).half()"),
    "brain floats": ("x", "F.layer_norm(x, (12,))", "torch.randn({n}, 12).bfloat16()"),
    "doubles": ("x", "torch.softmax(x, -1)", "torch.randn({n}, 12).double()"),
    "a mask of bools": (
        "x, m", "torch.softmax(x.masked_fill(m, -1e9), -1)",
        "torch.randn({n}, 12), torch.rand({n}, 12) > 0.4",
    ),
    "quotients of whole numbers": (
        "x, y", "(x // y).sum(-1)",
        "torch.randint(-90, 90, ({n}, 6)), torch.randint(1, 9, ({n}, 6))",
    ),
    "a part of each row": (
        "x", "torch.softmax(x[:, 2:12] * 2, -1)", "torch.randn({n}, 90)",
    ),
    "rows by an index": (
        "w, i", "F.layer_norm(F.embedding(i, w), (12,))",
        "torch.randn(50, 12), torch.randint(0, 50, ({n},))",
    ),
}  # fmt: skip
TURNED = """\
    def forward(self, x, c, s):
        a, b = {parts}
        return {joined}"""
PAIRS = "torch.randn({n}, 5, 3, 64), torch.randn(5, 1, 32), torch.randn(5, 1, 32)"
JOINED = "torch.stack((a * c - b * s, a * s + b * c), -1).flatten(-2)"
EVERY_OTHER = "x[..., 0::2], x[..., 1::2]"
TURNS = {
    "rotary pairs": (TURNED.format(parts=EVERY_OTHER, joined=JOINED), PAIRS),
    "rotary pairs of a view": (
        TURNED.format(parts="x.view(*x.shape[:-1], 32, 2).unbind(-1)", joined=JOINED), PAIRS,
    ),
    "rotary pairs of halves": (
        TURNED.format(parts=EVERY_OTHER, joined=JOINED),
        "torch.randn({n}, 5, 3, 64).half(), torch.randn(5, 1, 32).half(), "
        "torch.randn(5, 1, 32).half()",
    ),
    "a quarter turn": (
        TURNED.format(
            parts=EVERY_OTHER, joined="x * c + torch.stack((-b, a), -1).flatten(-2) * s"
        ),
        "torch.randn({n}, 3, 7, 64), torch.randn(7, 64), torch.randn(7, 64)",
    ),
    "rotary pairs and a norm": (
        TURNED.format(parts=EVERY_OTHER, joined=f"F.rms_norm({JOINED}, (64,))"), PAIRS,
    ),
    "corners of boxes": (
        """\
    def forward(self, boxes):
        x, y, w, h = boxes.unbind(-1)
        return torch.stack((x - w / 2, y - h / 2, x + w / 2, y + h / 2), -1)""",
        "torch.rand({n}, 20, 4)",
    ),
    "colours": (
        "    def forward(self, x, w, b):\n        return torch.sigmoid(x * w + b)",
        "torch.randn({n}, 20, 3), torch.randn(3), torch.randn(3)",
    ),
    "sums of pairs": (
        "    def forward(self, x, w):\n        return ((x * w) ** 2).sum()",
        "torch.randn({n}, 300, 2), torch.randn(2)",
    ),
    "pairs by an index": (
        "    def forward(self, w, i):\n        return torch.relu(F.embedding(i, w)) * 2",
        "torch.randn(50, 2), torch.randint(0, 50, ({n}, 30))",
    ),
}  # fmt: skip
SIZES = (1, 5, 65, 131)


def check(built: Built, source: str, mark: str) -> None:
    """The kernel has a mark, and is right for its own rows, and for more and fewer of them."""
    (kernel,) = built.program.kernels
    assert mark in kernel.source
    assert complaints(built) == []
    if freedom(built.program)[0]:
        for size in SIZES:
            inputs = load(source.format(n=size)).get_inputs()
            assert complaints(built, inputs) == [], size


def sized(source: str) -> str:
    """A reference's text whose braces, but those for the number of rows, are its own."""
    return source.replace("{", "{{").replace("}", "}}").replace("{{n}}", "{n}")


@pytest.mark.parametrize("name", TILES)
def test_short_rows_are_reduced_side_by_side(name: str) -> None:
    source = sized(function(*TILES[name]))
    check(build(source.format(n=203), FUSED), source, "_lanes(")


@pytest.mark.parametrize("name", TURNS)
def test_pairs_take_turns(name: str) -> None:
    source = sized(reference(*TURNS[name]))
    check(build(source.format(n=203), FUSED), source, "constexpr int64_t cols1 = ")


def test_nan_and_infinity_go_through_a_tile_as_in_torch() -> None:
    rows = torch.randn(40, 16)
    rows[0, 3], rows[1, 3], rows[2, 3] = float("nan"), float("inf"), -float("inf")
    rows[3], rows[39, 15] = -float("inf"), float("nan")
    built = build(function("x", "torch.softmax(x, -1)", "torch.randn(40, 16)"), FUSED)
    assert "_lanes(" in built.program.kernels[0].source
    assert complaints(built, [rows]) == []


def test_the_first_of_equals_and_the_first_nan_are_the_place_of_the_largest() -> None:
    rows = torch.zeros(70, 9)
    rows[1, 4] = rows[1, 7] = 3
    rows[2, 5] = rows[2, 8] = float("nan")
    candidate = build(function("x", "x.argmax(-1)", "torch.randn(70, 9)"), FUSED).candidate()
    assert torch.equal(candidate(rows), rows.argmax(-1))


def test_a_label_out_of_range_gives_nan_in_a_tile_too() -> None:
    source = function(
        "x, t", "F.cross_entropy(x, t, reduction='none')",
        "torch.randn(70, 8), torch.randint(0, 8, (70,))",
    )  # fmt: skip
    built = build(source, FUSED)
    assert "_lanes(" in built.program.kernels[0].source
    labels = torch.zeros(70, dtype=torch.int64)
    labels[3], labels[69] = 8, -1
    made = built.candidate()(torch.randn(70, 8), labels)
    assert made.isnan().nonzero().flatten().tolist() == [3, 69]


@pytest.mark.parametrize("width", [2, 12])
def test_an_index_out_of_range_is_an_error_in_short_rows_too(width: int) -> None:
    expression = "F.embedding(i, w) * 2" if width == 2 else "F.embedding(i, w).softmax(-1)"
    inputs = f"torch.randn(50, {width}), torch.randint(0, 50, (30, 40))"
    candidate = build(function("w, i", expression, inputs), FUSED).candidate()
    index = torch.zeros(30, 40, dtype=torch.int64)
    index[29, 39] = 50
    with pytest.raises(IndexError):
        candidate(torch.randn(50, width), index)


@pytest.mark.parametrize("shape", [(1, 16), (203, 16), (64, 15), (70, 1000)])
def test_a_tile_takes_rows_of_other_lengths(shape: tuple[int, ...]) -> None:
    built = build(function("x", "torch.softmax(x, -1)", "torch.randn(203, 16)"), FUSED)
    assert complaints(built, [torch.randn(shape)]) == []


@pytest.mark.parametrize("shape", ["203, 33", "8, 16", "203, 16, 70"])
def test_other_rows_have_no_tiles(shape: str) -> None:
    expression = "torch.softmax(x, 1)"
    built = build(function("x", expression, f"torch.randn({shape})"), FUSED)
    assert "_lanes(" not in built.program.kernels[0].source
    assert complaints(built) == []


def test_a_tensor_with_gaps_is_read_into_tiles_as_it_lies() -> None:
    built = build(
        function("x", "torch.softmax(x[:, 2:12] * 2, -1)", "torch.randn(2000, 90)"), FUSED
    )
    (kernel,) = built.program.kernels
    assert kernel.spaced
    assert "into_lanes(" in kernel.source
    assert complaints(built) == []


@pytest.mark.parametrize("rows", [70001, 203])
def test_the_next_rows_of_a_large_tensor_are_asked_for_while_these_are_worked_on(rows: int) -> None:
    built = build(function("x", "torch.softmax(x, -1)", f"torch.randn({rows}, 15)"), FUSED)
    assert ("__builtin_prefetch" in built.program.kernels[0].source) == (rows == 70001)
    assert complaints(built) == []
