"""Attention in Triton: in the interpreter against float64, compiled for three generations."""

import pytest

from knowledge.emit import emit
from knowledge.pattern import Refusal, load_pattern
from knowledge.program import Program
from tests.patterns import without_gpu
from tests.patterns.attention_ways import WAYS
from tests.patterns.test_attention import FORMS
from tests.patterns.without_gpu import Parameters, multiplies, spilling
from tests.patterns.workshop import SITUATION, build, function

pytest.importorskip("triton")

PATTERN = load_pattern("attention")
SDPA = "F.scaled_dot_product_attention"


def source_of(
    name: str,
    rows: int = 70,
    keys: int = 70,
    depth: int = 8,
    width: int = 0,
    dtype: str = "float32",
) -> str:
    """A reference: one of the forms, for these sizes."""
    expression, mask = FORMS[name]
    shapes = [(2, 3, rows, depth), (2, 3, keys, depth), (2, 3, keys, width or depth)]
    inputs = ", ".join(f"torch.randn({shape}).to(torch.{dtype})" for shape in shapes)
    if mask is not None:
        inputs += ", " + mask.format(q=rows, k=keys)
    return function("q, k, v, m" if mask else "q, k, v", expression, inputs)


# The interpreter multiplies in float16, and reads bfloat16 as whole numbers.
CASES = {
    **{name: source.replace(".bfloat16()", ".half()") for name, source in WAYS.items()},
    **{name: source_of(name) for name in FORMS},
    "more_keys": source_of("causal", 33, 90, 7, 33),
    "more_rows": source_of("causal", 150, 20, 20),
    "one_query": source_of("plain", 1, 200, 65),
    "halves": source_of("causal", 70, 70, 24, dtype="float16"),
    "shared_heads": function(
        "q, k, v", f"{SDPA}(q, k, v, is_causal=True, enable_gqa=True)",
        "torch.randn(2, 6, 40, 16), torch.randn(2, 2, 40, 16), torch.randn(2, 2, 40, 16)",
    ),
    "heads_as_they_lie": function(
        "q, k, v",
        f"{SDPA}(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2)"
        ".contiguous()",
        "torch.randn(2, 40, 3, 16), torch.randn(2, 50, 3, 16), torch.randn(2, 50, 3, 16)",
    ),
    "three_dimensions": function(
        "q, k, v", "torch.bmm(torch.softmax(torch.bmm(q, k.transpose(1, 2)) * -0.1, -1), v)",
        "torch.randn(3, 40, 16), torch.randn(3, 50, 16), torch.randn(3, 50, 16)",
    ),
    "nothing_to_see": function(
        "q, k, v, m", f"{SDPA}(q, k, v, m)",
        "*torch.randn(3, 1, 2, 20, 16), torch.arange(20)[:, None] > torch.arange(20)",
    ),
    "infinity_and_nan": function(
        "q, k, v", "torch.softmax(q @ k.transpose(-2, -1), -1) @ v",
        "torch.randn(1, 2, 20, 16).index_fill(2, torch.tensor([3]), float('nan')), "
        "torch.randn(1, 2, 80, 16), "
        "torch.randn(1, 2, 80, 16).index_fill(3, torch.tensor([5]), float('inf'))",
    ),
}  # fmt: skip
_LARGE = "*torch.randn(3, 2, 8, 1024, {}).to(torch.{})"
COMPILED: dict[str, tuple[str, Parameters]] = {
    f"{dtype}_{depth}_{precision}": (
        function("q, k, v", f"{SDPA}(q, k, v, is_causal=True)", _LARGE.format(depth, dtype)),
        {"precision": precision},
    )
    for dtype, depth, precision in (
        ("float32", 64, "tf32x3"), ("float32", 64, "bf16x3"), ("float32", 128, "tf32x3"),
        ("float16", 64, "tf32x3"), ("bfloat16", 128, "tf32x3"), ("float16", 256, "tf32x3"),
    )
} | {
    "mask": (
        function("q, k, v, m", f"{SDPA}(q, k, v, m)",
                 _LARGE.format(80, "float16") + ", torch.randn(1024, 1024).half()"), {},
    ),
}  # fmt: skip


def test_every_spelling_is_one_kernel_and_as_right_as_the_reference() -> None:
    for name, source in CASES.items():
        assert len(without_gpu.in_triton("attention", source).kernels) == 1, name
    assert without_gpu.complaints("attention", CASES) == {}


def test_hidden_keys_can_be_multiplied_by_zero_where_infinity_must_spread() -> None:
    source = function(
        "q, k, v", f"{SDPA}(q, k, v, is_causal=True)",
        "*torch.randn(2, 1, 1, 80, 16), "
        "torch.randn(1, 1, 80, 16).index_fill(2, torch.tensor([79]), float('inf'))",
    )  # fmt: skip
    given = {"block_rows": 16, "block_keys": 16, "hidden": "multiply"}
    assert without_gpu.complaints("attention", {"infinity": source}, given) == {}


def test_kernels_compile_for_three_generations_without_spills_and_use_tensor_cores() -> None:
    names = ("float16_64_tf32x3", "mask")
    kernels = without_gpu.compiled("attention", {name: COMPILED[name] for name in names})
    assert spilling(kernels) == []
    assert all(multiplies(kernel) for several in kernels.values() for kernel in several)


@pytest.mark.exhaustive
def test_every_size_compiles_for_three_generations_halves_without_spills() -> None:
    kernels = without_gpu.compiled("attention", COMPILED)
    halves = {name: found for name, found in kernels.items() if not name.startswith("float32")}
    assert spilling(halves) == []
    assert all(multiplies(kernel) for several in kernels.values() for kernel in several)


def test_proposals_can_all_be_applied_and_what_is_too_wide_is_refused() -> None:
    source = source_of("call")
    program = Program.of(build(source, ()).graph, source, "triton")
    answer = PATTERN.propose(program, SITUATION)
    assert not isinstance(answer, Refusal)
    for proposal in answer:
        assert "tl.dot" in emit(PATTERN.apply(program, proposal.step))
    wide = source_of("call", 8, 8, 300)
    refusal = PATTERN.propose(Program.of(build(wide, ()).graph, wide, "triton"), SITUATION)
    assert isinstance(refusal, Refusal)
    assert "wider than 256" in refusal.reason
    with pytest.raises(ValueError, match="unknown tunables"):
        without_gpu.in_triton("attention", source, {"key_tiles": 8})
