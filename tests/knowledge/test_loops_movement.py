"""Operands read elsewhere: by an index, shifted, mirrored or piece by piece, against float64."""

import random

import pytest
import torch

from knowledge.loops.islands import find_islands
from tests.patterns.workshop import FUSED, Built, build, complaints, function, reference

# Each makes one loop; the seams lie along the row, between rows, or in lanes.
CASES = {
    "side by side along the row": (
        "x, y", "torch.cat([x, y * 2, x], 1) + 1", "torch.randn(5, 33), torch.randn(5, 20)",
    ),
    "side by side between rows": (
        "x, y", "torch.relu(torch.cat([x, y.exp()], 1))",
        "torch.randn(2, 5, 7, 3), torch.randn(2, 4, 7, 3)",
    ),
    "softmax over pieces, in lanes": (
        "x, y", "torch.softmax(torch.cat([x, y], 1), 1)",
        "torch.randn(3, 9, 34), torch.randn(3, 2, 34)",
    ),
    "softmax over pieces": (
        "x, y", "torch.softmax(torch.cat([x.exp(), y.tanh()], -1), -1)",
        "torch.randn(9, 34), torch.randn(9, 3)",
    ),
    "a run in pieces": (
        "x, y", "torch.cat([x, y.abs()]) + 1", "torch.randn(20000), torch.randn(9000)",
    ),
    "a heat equation": (
        "u, d",
        "u + 0.1 * d * (torch.roll(u, 1, 0) + torch.roll(u, -1, 0) + torch.roll(u, 1, 1) + "
        "torch.roll(u, -1, 1) - 4 * u)",
        "torch.randn(12, 43), torch.randn(12, 43)",
    ),
    "rotary positions": (
        "x, c, s", "x * c + torch.cat([-x[..., 8:], x[..., :8]], -1) * s",
        "torch.randn(2, 3, 5, 16), torch.randn(5, 16), torch.randn(5, 16)",
    ),
    "padding": (
        "x", "F.pad(x, (2, 3, 1, 2), value=1.5) * 2", "torch.randn(2, 5, 6, 33)",
    ),
    "reflection": ("x", "F.pad(x, (2, 3, 1, 2), mode='reflect') * 2", "torch.randn(2, 5, 6, 33)"),
    "replication": ("x", "F.pad(x, (2, 3), mode='replicate') * 2", "torch.randn(2, 5, 33)"),
    "triangles": (
        "x", "torch.tril(x * 2, -1) + torch.triu(x, 2)", "torch.randn(3, 20, 33)",
    ),
    "mirrored and stacked": (
        "x, y", "torch.stack([torch.flip(x, [1]), y], -1) * 2",
        "torch.randn(5, 33), torch.randn(5, 33)",
    ),
    "gates and differences": (
        "x, y", "F.glu(x, 1)[:, 1:] - y[:, :-1]", "torch.randn(9, 34), torch.randn(9, 17)",
    ),
    "every other": (
        "x, y", "torch.cat([x[:, ::2] * 2, y], 1) + 1", "torch.randn(9, 35), torch.randn(9, 5)",
    ),
    "parts replaced": (
        "x, y", "torch.slice_scatter(x, y, 1, 3, 8) * 2 + x.repeat(1, 2)[:, 4:38]",
        "torch.randn(9, 34), torch.randn(9, 5)",
    ),
}  # fmt: skip
LOOKUPS = {
    "token, segment and position": (
        "w, s, p, i, j",
        "F.layer_norm(F.embedding(i, w) + F.embedding(j, s) + "
        "F.embedding(torch.arange(7), p), (24,))",
        "torch.randn(50, 24), torch.randn(3, 24), torch.randn(9, 24), "
        "torch.randint(0, 50, (4, 7)), torch.randint(0, 3, (4, 7))",
    ),
    "elements along the row": (
        "x, i", "torch.gather(x, 1, i) * 2", "torch.randn(5, 33), torch.randint(0, 33, (5, 20))",
    ),
    "elements of few rows": (
        "x, i", "torch.gather(x, 0, i) * 2", "torch.randn(5, 33), torch.randint(0, 5, (4, 20))",
    ),
    "remainders": (
        "x, i", "torch.take_along_dim(x, i, 1) + 1",
        "torch.randn(5, 33), torch.randint(-40, 70, (5, 20))",
    ),
    "both ends of edges": (
        "x, i, j", "torch.relu(x[i] + x[j])",
        "torch.randn(9, 33), torch.randint(-9, 9, (20,)), torch.randint(0, 9, (20,))",
    ),
    "single elements": (
        "x, i, j", "x[i, j] * 2",
        "torch.randn(9, 33), torch.randint(-9, 9, (20,)), torch.randint(0, 33, (20,)).int()",
    ),
    "columns": (
        "x, i", "torch.relu(torch.index_select(x, 1, i))",
        "torch.randn(5, 33), torch.randint(0, 33, (20,))",
    ),
}  # fmt: skip


def lain(value: torch.Tensor, pick: random.Random) -> torch.Tensor:
    """The same values with gaps, an offset, or another order in memory."""
    how = pick.randrange(3)
    if how == 0 and value.dim() > 1:
        return value.transpose(0, -1).contiguous().transpose(0, -1)
    grown = torch.zeros((*value.shape[:-1], value.shape[-1] * 2 + 3), dtype=value.dtype)
    grown[..., 3::2] = value
    return grown[..., 3::2]


def built_of(name: str) -> Built:
    return build(function(*{**CASES, **LOOKUPS}[name]), FUSED)


@pytest.mark.parametrize("name", {**CASES, **LOOKUPS})
def test_it_is_one_loop_and_right_however_its_inputs_lie(name: str) -> None:
    built = built_of(name)
    assert len(built.program.kernels) == 1
    # A part of an input may be a view of the library's, which costs nothing.
    assert {node.target for node in built.program.library_calls} <= {"aten.slice.Tensor"}
    assert complaints(built) == []
    pick = random.Random(name)
    assert complaints(built, [lain(value, pick) for value in built.inputs]) == []


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
@pytest.mark.parametrize(
    "name", ["side by side along the row", "a heat equation", "token, segment and position"]
)
def test_it_is_right_in_other_types(name: str, dtype: str) -> None:
    arguments, expression, inputs = {**CASES, **LOOKUPS}[name]
    given = f"*(v.to(torch.{dtype}) if v.is_floating_point() else v for v in [{inputs}])"
    built = build(function(arguments, expression, given), FUSED)
    assert len(built.program.kernels) == 1
    assert [text for text in complaints(built) if dtype == "float64" or "off by" not in text] == []


def test_whole_numbers_move_exactly() -> None:
    source = function(
        "x", "torch.roll(torch.cat([x, -x], 1), 3, 1) + 1", "torch.randint(-9, 9, (7, 11))"
    )
    built = build(source, FUSED)
    assert not built.program.library_calls
    assert complaints(built) == []


@pytest.mark.parametrize("seed", range(3))
def test_rolls_by_random_turns_are_right(seed: int) -> None:
    pick = random.Random(seed)
    shape = [pick.randrange(1, 9), pick.randrange(1, 9), pick.randrange(1, 40)]
    turns = [pick.randrange(-50, 50) for _ in shape]
    expression = f"torch.roll(x, {turns}, [0, 1, 2]) - x + torch.roll(x, {turns[2]}, 2)"
    built = build(function("x", expression, f"torch.randn({shape})"), FUSED)
    assert complaints(built) == []


@pytest.mark.parametrize("name", ["token, segment and position", "elements along the row"])
@pytest.mark.parametrize("wrong", [-1, 50, 2**40])
def test_an_index_out_of_range_is_an_index_error_and_never_read(name: str, wrong: int) -> None:
    built = built_of(name)
    inputs = [value.clone() for value in built.inputs]
    index = next(value for value in inputs if value.dtype == torch.int64)
    index[-1, -1] = wrong
    with pytest.raises(IndexError, match="out of range"):
        built.candidate()(*inputs)


def test_an_index_is_read_in_its_own_part_of_a_join_alone() -> None:
    """Before its first element and behind its last lies what would be out of range."""
    text = """    def __init__(self):
        super().__init__()
        around = torch.full((300,), 1000)
        around[100:140] = torch.arange(40) % 9
        self.register_buffer("around", around)

    def forward(self, x):
        picked = self.around[100:140]
        return torch.cat([x, x[:, picked], x[:, :70] * 2], 1)"""
    built = build(reference(text, "torch.randn(5, 80)"), FUSED)
    assert (len(built.program.kernels), len(built.program.library_calls)) == (1, 0)
    assert complaints(built) == []
    with torch.no_grad():
        candidate = built.candidate()
        candidate.around[139] = 80
        with pytest.raises(IndexError, match="out of range"):
            candidate(*built.inputs)


def test_another_batch_is_right_and_other_fixed_sizes_are_refused() -> None:
    built = built_of("token, segment and position")
    w, s, p, i, j = built.inputs
    more = [w, s, p, torch.randint(0, 50, (11, 7)), torch.randint(0, 3, (11, 7))]
    assert complaints(built, more) == []
    with pytest.raises(ValueError, match=r"traced|made for"):
        built.candidate()(w, s, p, i[:, :5], j[:, :5])
    heat = built_of("a heat equation")
    assert complaints(heat, [torch.randn(5, 43), torch.randn(5, 43)]) == []


def test_nan_and_infinity_stay_where_they_are_read() -> None:
    built = built_of("side by side along the row")
    x, y = (value.clone() for value in built.inputs)
    x[0, -1], y[1, 0], y[2, 3] = float("nan"), float("inf"), -float("inf")
    assert complaints(built, [x, y]) == []


def test_what_only_copies_is_left_to_the_library() -> None:
    graph = build(
        function("x, y", "torch.cat([x, y], 1)", "torch.ones(3, 4), torch.ones(3, 4)"), ()
    )
    islands, reasons = find_islands(graph.graph)
    assert islands == ()
    assert reasons == {"cat": "it only copies, which the library does as well"}


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("torch.roll(x, 3) * 2", "a turn of all dimensions as one"),
        ("F.pad(x, (-1, 2)) * 2", "padding that takes away, or of nothing"),
        ("torch.cat([x] * 9, 1) * 2", "9 tensors side by side"),
    ],
)
def test_what_can_not_be_read_elsewhere_is_refused_with_a_reason(expression: str, why: str) -> None:
    _, reasons = find_islands(build(function("x", expression, "torch.randn(5, 8)"), ()).graph)
    assert list(reasons.values()) == [why]
