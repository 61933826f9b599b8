"""Attention's scores in other spellings: rewritten exactly, and then in attention's one kernel."""

import pytest

from knowledge.pattern import Step
from tests.patterns.test_algebra import check, rewritten
from tests.patterns.workshop import build, complaints, function, reference

STEPS = (Step(pattern="algebra"), Step(pattern="attention"))
SCORES = "q @ k.transpose(-2, -1)"
INF = "float('-inf')"
HEADS_FIRST = ", ".join(["torch.randn(2, 3, 40, 8)"] * 3)
ROWS_FIRST = ", ".join(["torch.randn(2, 40, 3, 8)"] * 3)
BIASES = "torch.randn(1, 3, 40, 40), torch.randn(40, 40)"
WINDOW = "torch.randn(1, 3, 40, 40), torch.randn(2, 1, 40, 40)"
HIDDEN = "torch.ones(40, 40).triu(1), (torch.arange(40) > 30).float().expand(2, 1, 1, 40)"
EINSUM = "torch.einsum('{}', {})"


def einsums(scores: str, values: str, first: str = "q, k", second: str = "a, v") -> str:
    """Attention by two equations, each with its operands."""
    made = EINSUM.format(scores, first)
    return f"(lambda a: {EINSUM.format(values, second)})(torch.softmax({made} * 0.3, -1))"


RETURNED = (
    f"(lambda a: (a, {EINSUM.format('bhij,bhjd->bhid', 'a, v')}))"
    f"(torch.softmax({EINSUM.format('bhid,bhjd->bhij', 'q, k')}, -1))"
)
CASES = {
    "rows first": (
        "q, k, v", einsums("bqhd,bkhd->bhqk", "bhqk,bkhd->bqhd"), ROWS_FIRST, "an einsum",
    ),
    "heads first": (
        "q, k, v", einsums("bhid,bhjd->bhij", "bhij,bhjd->bhid"), HEADS_FIRST, "an einsum",
    ),
    "operands turned": (
        "q, k, v", einsums("bkhd,bqhd->bhqk", "bkhd,bhqk->bqhd", "k, q", "v, a"),
        ROWS_FIRST, "an einsum",
    ),
    "one head": (
        "q, k, v", einsums("bid,bjd->bij", "bij,bjd->bid"),
        ", ".join(["torch.randn(3, 40, 8)"] * 3), "an einsum",
    ),
    "two fills": (
        "q, k, v, m, n",
        f"torch.softmax(({SCORES}).masked_fill(m > 0, {INF}).masked_fill(n > 0, {INF}), -1) @ v",
        f"{HEADS_FIRST}, {HIDDEN}", "two masks that fill",
    ),
    "two masks": (
        "q, k, v, m, n", f"torch.softmax(n + ({SCORES} * 0.3 + m), -1) @ v",
        f"{HEADS_FIRST}, {BIASES}", "two masks that are added",
    ),
    "temperature": (
        "q, k, v, s", f"torch.softmax({SCORES} * s.exp(), -1) @ v",
        f"{HEADS_FIRST}, torch.randn(3, 1, 1)", "a temperature",
    ),
    "divided": (
        "q, k, v, s, m", f"torch.softmax(({SCORES}) / s + m, -1) @ v",
        f"{HEADS_FIRST}, torch.rand(()) + 1, torch.randn(40, 40)", "a temperature",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_other_spellings_of_scores_are_exact_and_one_kernel(name: str) -> None:
    arguments, expression, inputs, words = CASES[name]
    source = function(arguments, expression, inputs)
    check(source, words)
    built = build(source, STEPS)
    assert [kernel.note[:9] for kernel in built.program.kernels] == ["attention"]
    left = {call.target.split(".")[1] for call in built.program.library_calls}
    assert not left & {"matmul", "einsum", "softmax", "clone", "masked_fill"}
    assert complaints(built) == []


def test_heads_that_are_joined_after_an_einsum_are_as_the_reference_has_them() -> None:
    body = f"""    def forward(self, q, k, v):
        made = {einsums("bqhd,bkhd->bhqk", "bhqk,bkhd->bqhd")}
        return made.reshape(2, 40, 24) + 1"""
    source = reference(body, ROWS_FIRST)
    check(source, "an einsum")
    assert complaints(build(source, STEPS)) == []
    assert complaints(build(source, STEPS[:1])) == []


@pytest.mark.parametrize(
    ("arguments", "expression", "inputs"),
    [
        ("q, k, v", EINSUM.format("bqhd,bkhd->bhqk", "q, k"), ROWS_FIRST),
        ("q, k, v", RETURNED, HEADS_FIRST),
        ("q, k, v, m", f"torch.softmax(({SCORES} + m) + m, -1) * 2",
         f"{HEADS_FIRST}, torch.randn(40, 40)"),
        ("q, k, v, m, n", f"torch.softmax(n + ({SCORES} * 0.3 + m), -1) @ v",
         f"{HEADS_FIRST}, {WINDOW}"),
        ("q, k, v, s", f"torch.softmax({SCORES} * s, -1) @ v",
         f"{HEADS_FIRST}, torch.randn(40, 1)"),
        ("q, k, v, m, n",
         f"torch.softmax(({SCORES}).masked_fill(m > 0, {INF}).masked_fill(n > 0, -9.0), -1) @ v",
         f"{HEADS_FIRST}, {HIDDEN}"),
    ],
)  # fmt: skip
def test_what_does_not_become_attention_stays(arguments: str, expression: str, inputs: str) -> None:
    assert rewritten(function(arguments, expression, inputs))[0] == []
