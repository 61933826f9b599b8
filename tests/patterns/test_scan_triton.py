"""Scans in Triton: in the interpreter against float64, compiled for three generations."""

import pytest

from knowledge.emit import emit
from knowledge.pattern import Refusal, load_pattern
from knowledge.program import Program
from tests.patterns import without_gpu
from tests.patterns.without_gpu import Parameters, spilling
from tests.patterns.workshop import SITUATION, build, function

pytest.importorskip("triton")

PATTERN = load_pattern("scan")
CALLS = {
    "sum": "torch.cumsum(x, {})", "product": "torch.cumprod(x, {})",
    "maximum": "torch.cummax(x, {})[0]", "minimum": "torch.cummin(x, {})[0]",
    "logsumexp": "torch.logcumsumexp(x, {})",
}  # fmt: skip
NOT_FINITE = "torch.tensor([[1.0, float('-inf'), 2.0, float('inf'), 3.0, float('nan'), 1.0]] * 2)"
SMALL = {"steps": 32}
CASES = {
    **{name: function("x", call.format(-1), "torch.randn(3, 70)") for name, call in CALLS.items()},
    "along_columns": function("x", CALLS["sum"].format(1), "torch.randn(2, 45, 3, 5)"),
    "largest_along_columns": function("x", CALLS["maximum"].format(0), "torch.randn(40, 9)"),
    "one_line": function("x", CALLS["sum"].format(0), "torch.randn(300)"),
    "from_the_end": function("x", "torch.cumsum(x.flip(1), 1).flip(1)", "torch.randn(5, 70)"),
    "products_from_the_end": function(
        "x", "torch.cumprod(x.flip(0), 0).flip(0)", "torch.randn(40, 7)"),
    "without_own": function(
        "x", "torch.cat([torch.zeros_like(x[:, :1]), torch.cumsum(x, 1)], 1)[:, :-1]",
        "torch.randn(5, 70)"),
    "masked": function(
        "x, m", "torch.cumsum(x * m, 1)", "torch.randn(5, 70), torch.rand(5, 70) > 0.5"),
    "halves": function("x", CALLS["sum"].format(1), "torch.randn(5, 70).half()"),
    "doubles": function("x", CALLS["product"].format(1), "torch.randn(5, 70).double()"),
    "infinities": function("x", CALLS["logsumexp"].format(1), NOT_FINITE),
    "infinite_largest": function("x", CALLS["maximum"].format(1), NOT_FINITE),
}  # fmt: skip
LONG = {
    **{name: function("x", call.format(1), "torch.randn(2, 130)") for name, call in CALLS.items()},
    "without_own": function(
        "x", "torch.cat([torch.zeros_like(x[:, :1]), torch.cumsum(x, 1)], 1)[:, :-1]",
        "torch.randn(2, 130)"),
    "from_the_end": function("x", "torch.cumsum(x.flip(0), 0).flip(0)", "torch.randn(130, 3)"),
}  # fmt: skip
COMPILED: dict[str, tuple[str, Parameters]] = {
    "rows": (function("x", CALLS["sum"].format(1), "torch.randn(1024, 4096)"), {}),
    "columns": (function("x", CALLS["maximum"].format(1), "torch.randn(16, 512, 1024)"), {}),
    "parts": (function("x", CALLS["product"].format(1), "torch.randn(8, 1000000)"), {}),
    "pairs": (function("x", CALLS["logsumexp"].format(1), "torch.randn(8, 999999).bfloat16()"), {}),
    "double": (function("x", CALLS["sum"].format(1), "torch.randn(64, 4000)"),
               {"accumulate": "double"}),
}  # fmt: skip


def test_scans_are_as_right_as_the_reference() -> None:
    assert without_gpu.complaints("scan", CASES, SMALL) == {}


def test_long_lines_in_parts_are_as_right_as_the_reference() -> None:
    assert without_gpu.complaints("scan", LONG, {"steps": 32, "parts": 4}) == {}


def test_kernels_compile_for_three_generations_without_spills() -> None:
    kernels = without_gpu.compiled("scan", {"parts": COMPILED["parts"]})
    assert spilling(kernels) == []
    assert len({kernel.function for kernel in kernels["parts"]}) == 2


@pytest.mark.exhaustive
def test_every_form_compiles_for_three_generations_without_spills() -> None:
    assert spilling(without_gpu.compiled("scan", COMPILED)) == []


def test_proposals_can_all_be_applied_and_others_are_refused() -> None:
    source = CASES["sum"]
    program = Program.of(build(source, ()).graph, source, "triton")
    answer = PATTERN.propose(program, SITUATION)
    assert not isinstance(answer, Refusal)
    for proposal in answer:
        assert "tl.cumsum" in emit(PATTERN.apply(program, proposal.step))
    ints = function("x", CALLS["sum"].format(1), "torch.arange(40).reshape(5, 8)")
    refusal = PATTERN.propose(Program.of(build(ints, ()).graph, ints, "triton"), SITUATION)
    assert isinstance(refusal, Refusal)
    assert "int64" in refusal.reason
    with pytest.raises(ValueError, match="unknown tunables"):
        without_gpu.in_triton("scan", source, {"strip": 64})
