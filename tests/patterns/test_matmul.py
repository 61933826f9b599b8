"""Matrix products of every kind in own kernels and through oneDNN, against float64."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knowledge.pattern import Refusal, Step, load_pattern
from knowledge.program import Program
from tests.patterns.workshop import SITUATION, Built, build, complaints, function, reference

OWN = (Step(pattern="matmul"),)
ONEDNN = (Step(pattern="matmul", parameters={"engine": "onednn"}),)
FAST = settings(max_examples=6, suppress_health_check=list(HealthCheck))
LINEAR = """    def __init__(self):
        super().__init__()
        self.linear = nn.Linear({k}, {n})
        self.norm = nn.LayerNorm({n})

    def forward(self, x):
        return {expression}"""

# name: (arguments, expression, inputs, calls the kernel computes)
PRODUCTS = {
    "batched": ("a, b", "torch.bmm(a, b)", "torch.randn(3, 25, 40), torch.randn(3, 40, 70)", 1),
    "both turned": ("a, b", "a.mT @ b.mT", "torch.randn(3, 40, 25), torch.randn(3, 70, 40)", 3),
    "broadcast": (
        "a, b", "a @ b.transpose(-1, -2)", "torch.randn(2, 1, 14, 25), torch.randn(3, 17, 25)", 2,
    ),
    "batch against one": ("a, b", "a @ b", "torch.randn(4, 9, 31), torch.randn(31, 50)", 1),
    "one against batch": ("a, b", "a @ b", "torch.randn(19, 31), torch.randn(4, 31, 50)", 1),
    "matrix and vector": ("a, b", "torch.mv(a, b)", "torch.randn(40, 50), torch.randn(50)", 1),
    "vector and matrix": ("a, b", "a @ b", "torch.randn(50), torch.randn(50, 3000)", 1),
    "vector and batch": ("a, b", "a @ b", "torch.randn(50), torch.randn(4, 50, 30)", 1),
    "dot": ("a, b", "torch.dot(a, b)", "torch.randn(50000), torch.randn(50000)", 1),
    "addmm": (
        "a, b, c", "torch.addmm(c, a, b, beta=0.5, alpha=2.0)",
        "torch.randn(40, 50), torch.randn(50, 60), torch.randn(60)", 1,
    ),
    "addmm of a column": (
        "a, b, c", "torch.addmm(c, a, b, alpha=-1)",
        "torch.randn(40, 50), torch.randn(50, 60), torch.randn(40, 1)", 1,
    ),
    "baddbmm": (
        "a, b, c", "torch.baddbmm(c, a, b)",
        "torch.randn(2, 20, 50), torch.randn(2, 50, 60), torch.randn(2, 20, 60)", 1,
    ),
    "einsum of heads": (
        "a, b", "torch.einsum('bhqd,bhkd->bhqk', a, b)",
        "torch.randn(2, 3, 24, 8), torch.randn(2, 3, 37, 8)", 1,
    ),
    "einsum of two depths": (
        "a, b", "torch.einsum('ikl,jkl->ji', a, b)",
        "torch.randn(20, 4, 9), torch.randn(30, 4, 9)", 1,
    ),
    "long and thin": ("a, b", "a.T @ b", "torch.randn(70000, 20), torch.randn(70000, 12)", 2),
    "long and thinner": ("a, b", "a.T @ b", "torch.randn(30000, 40), torch.randn(30000, 5)", 2),
    "its own transpose": ("a", "a @ a.T", "torch.randn(100, 50)", 2),
    "its transpose first": ("a", "a.mT @ a", "torch.randn(2, 50, 70)", 2),
    "lower result": (
        "a, b", "torch.tril(a @ b, 3)", "torch.randn(210, 90), torch.randn(90, 330)", 2,
    ),
    "lower operands": (
        "a, b", "torch.tril(torch.tril(a) @ torch.tril(b))",
        "torch.randn(300, 300), torch.randn(300, 300)", 4,
    ),
    "upper operands": (
        "a, b", "torch.triu(a, 3) @ torch.tril(b, -2).T",
        "torch.randn(300, 300), torch.randn(300, 300)", 4,
    ),
    "diagonal first": ("d, b", "torch.diag(d) @ b", "torch.randn(40), torch.randn(40, 70)", 2),
    "diagonal last": ("b, d", "b @ torch.diag(d)", "torch.randn(70, 40), torch.randn(40)", 2),
    "operands with gaps": (
        "a, b", "a @ b", "torch.randn(90, 60)[:, ::2], torch.randn(50, 30).t()", 1,
    ),
}  # fmt: skip


def built(name: str) -> Built:
    arguments, expression, inputs, _ = PRODUCTS[name]
    return build(function(arguments, expression, inputs), OWN)


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_is_right_and_takes_its_views_along(name: str) -> None:
    made = built(name)
    assert complaints(made) == []
    assert [len(kernel.nodes) for kernel in made.program.kernels] == [PRODUCTS[name][-1]]
    assert not made.program.library_calls


def product(expression: str) -> Built:
    """A kernel that all sizes share, as none of its inputs' dimensions is fixed."""
    inputs = "torch.randn(100, 110), torch.randn(110, 120)"
    return build(function("a, b", expression, inputs), OWN)


@FAST
@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 700), st.booleans())
def test_any_size_and_stride_is_right(rows: int, columns: int, depth: int, gaps: bool) -> None:
    a, b = torch.randn(rows, depth), torch.randn(depth, columns)
    if gaps:
        a, b = torch.randn(rows, 2 * depth)[:, ::2], torch.randn(columns, depth).t()
    assert complaints(product("a @ b"), [a, b]) == []


@FAST
@given(st.integers(1, 40), st.integers(1, 3000))
def test_a_thin_product_is_right_for_any_number_of_lines(lines: int, depth: int) -> None:
    source = function("a, b", "F.linear(a, b)", "torch.randn(4, 64), torch.randn(90, 64)")
    made = build(source, OWN)
    assert "add_products" in made.program.kernels[0].source
    assert complaints(made, [torch.randn(lines, depth), torch.randn(33, depth)]) == []


@FAST
@given(st.integers(1, 5), st.integers(1, 60), st.integers(1, 60), st.integers(1, 60))
def test_any_batch_is_right(batch: int, rows: int, columns: int, depth: int) -> None:
    inputs = [torch.randn(batch, rows, depth), torch.randn(batch, depth, columns)]
    assert complaints(built("batched"), inputs) == []


@pytest.mark.parametrize(
    ("expression", "n"),
    [
        ("torch.softmax(F.gelu(self.linear(x)), -1)", 70),
        ("self.norm(torch.relu(self.linear(x)))", 130),
        ("self.linear(x).sum(-1, keepdim=True)", 70),
        ("(lambda z: (z, torch.tanh(z)))(self.linear(x))", 70),
        ("torch.sigmoid(self.linear(x)) * 2", 3),
    ],
)
@pytest.mark.parametrize("lead", ["5", "100", "4, 30", "9000"])
def test_what_reads_a_row_is_fused(expression: str, n: int, lead: str) -> None:
    # 9000 rows do not stay in cache: they are finished block by block.
    source = reference(LINEAR.format(k=50, n=n, expression=expression), f"torch.randn({lead}, 50)")
    made = build(source, OWN)
    assert len(made.program.kernels) == 1
    assert not made.program.library_calls
    assert complaints(made) == []


@pytest.mark.parametrize("rows", [1, 7, 33])
def test_another_batch_than_the_traced_one_is_right(rows: int) -> None:
    body = LINEAR.format(k=50, n=70, expression="torch.softmax(self.linear(x), -1)")
    made = build(reference(body, "torch.randn(100, 50)"), OWN)
    assert complaints(made, [torch.randn(rows, 50)]) == []


@pytest.mark.parametrize("rows", [64, 9000])
def test_a_reduction_over_whole_matrices_is_fused(rows: int) -> None:
    source = function(
        "a, b", "torch.relu(a @ b).mean((1, 2))",
        f"torch.randn({rows // 8}, 8, 30), torch.randn({rows // 8}, 30, 90)",
    )  # fmt: skip
    made = build(source, OWN)
    assert not made.program.library_calls
    assert complaints(made) == []


@pytest.mark.parametrize("name", ["lower operands", "upper operands", "diagonal first", "dot"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_multiplied_by_zeros_too(name: str, value: float) -> None:
    made = built(name)
    for position in range(2):
        inputs = [tensor.clone() for tensor in made.inputs]
        inputs[position].view(-1)[-5] = value
        assert complaints(made, inputs) == []


@pytest.mark.parametrize("name", ["long and thin", "long and thinner", "dot"])
def test_the_number_of_threads_does_not_change_a_bit(name: str) -> None:
    made, threads = built(name), torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(made.candidate()(*made.inputs))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(results[0], one) for one in results)


@pytest.mark.parametrize(
    ("arguments", "expression", "inputs"),
    [
        ("a, b", "a @ b", "torch.randn(20, 30), torch.randn(30, 40)"),
        ("a, b", "torch.relu(a @ b.t())", "torch.randn(20, 30), torch.randn(40, 30)"),
        ("a, b, c", "F.linear(a, b, c)",
         "torch.randn(2, 9, 30), torch.randn(40, 30), torch.randn(40)"),
        ("a, b, c", "torch.addmm(c, a, b)",
         "torch.randn(9, 30), torch.randn(30, 40), torch.randn(40)"),
    ],
)  # fmt: skip
def test_onednn_multiplies_what_it_is_given(arguments: str, expression: str, inputs: str) -> None:
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this build of torch is without oneDNN")
    made = build(function(arguments, expression, inputs), ONEDNN)
    assert "torch.ops.mkldnn._linear_pointwise.default(" in made.source
    assert ".t.default" not in made.source or "b.t()" not in expression
    assert complaints(made) == []


@pytest.mark.parametrize(
    ("tunable", "value"), [("block_rows", 192), ("block_depth", 128), ("block_columns", 256)]
)
def test_blocks_of_any_size_keep_the_result(tunable: str, value: int) -> None:
    step = Step(pattern="matmul", parameters={tunable: value})
    source = function("a, b", "a @ b", "torch.randn(500, 300), torch.randn(300, 600)")
    assert complaints(build(source, (step,))) == []


@pytest.mark.parametrize(
    ("arguments", "expression", "inputs", "words"),
    [
        ("a, b", "a @ b", "torch.ones(9, 9).int(), torch.ones(9, 9).int()", "int32"),
        ("a", "torch.relu(a)", "torch.randn(9, 9)", "no matrix product"),
        ("a, b", "torch.einsum('ij,kj->ik', a, b[:1])", "torch.randn(9, 1), torch.randn(9, 9)",
         "broadcast"),
        ("a, b", "torch.einsum('ibk,bkj->bij', a, b)", "torch.randn(9, 2, 4), torch.randn(2, 4, 3)",
         "transposed in memory"),
        ("a, b", "a @ b", "torch.randn(0, 9), torch.randn(9, 9)", "empty"),
    ],
)  # fmt: skip
def test_what_it_cannot_do_is_refused(
    arguments: str, expression: str, inputs: str, words: str
) -> None:
    program = build(function(arguments, expression, inputs), ()).program
    answer = load_pattern("matmul").propose(program, SITUATION)
    assert isinstance(answer, Refusal)
    assert words in answer.reason


def small(expression: str, *shapes: tuple[int, ...]) -> Built:
    """A batch of small products, in the kernel that is made for those."""
    arguments = ", ".join("abc"[: len(shapes)])
    inputs = ", ".join(f"torch.randn({shape})" for shape in shapes)
    made = build(function(arguments, expression, inputs), OWN)
    assert "multiply_small(" in made.program.kernels[0].source
    return made


# Of each size: what fills vectors and what does not, fewer columns than a vector has, one alone.
@pytest.mark.parametrize("rows", [1, 11, 27, 48])
@pytest.mark.parametrize("columns", [1, 7, 16, 27, 40])
@pytest.mark.parametrize("turned", ["a @ b", "a @ b.mT", "a.mT @ b", "a.mT @ b.mT"])
def test_a_batch_of_small_products_is_right(rows: int, columns: int, turned: str) -> None:
    left = (20, 33, rows) if "a.mT" in turned else (20, rows, 33)
    right = (20, columns, 33) if "b.mT" in turned else (20, 33, columns)
    assert complaints(small(turned, left, right)) == []


@FAST
@given(st.integers(1, 40), st.integers(1, 70), st.integers(1, 70), st.integers(1, 300))
def test_other_small_batches_than_the_traced_one_are_right(
    batch: int, rows: int, columns: int, depth: int
) -> None:
    inputs = [torch.randn(batch, rows, depth), torch.randn(batch, columns, depth)]
    assert complaints(small("a @ b.mT", (20, 27, 64), (20, 27, 64)), inputs) == []


@pytest.mark.parametrize(
    ("expression", "shapes", "calls"),
    [
        ("torch.softmax(a @ b, -1)", [(64, 32, 32), (64, 32, 32)], 2),
        ("torch.relu(a @ a.mT)", [(64, 27, 64)], 3),
        ("torch.baddbmm(c, a, b, beta=0.5)", [(64, 9, 32), (64, 32, 9), (64, 9, 9)], 1),
        ("torch.tril(a @ b)", [(64, 32, 32), (64, 32, 32)], 2),
        ("(lambda y: (y, y.sum((1, 2))))(a @ b)", [(64, 8, 32), (64, 32, 8)], 2),
        ("a @ b", [(8, 1, 9, 30), (1, 8, 30, 20)], 1),
    ],
)
def test_what_follows_a_small_product_is_fused(
    expression: str, shapes: list[tuple[int, ...]], calls: int
) -> None:
    made = small(expression, *shapes)
    assert [len(kernel.nodes) for kernel in made.program.kernels] == [calls]
    assert complaints(made) == []


# Blocks of whole rows that stay in cache, and more than do; small products; halves, read wide.
@pytest.mark.parametrize("inputs", [
    "torch.randn(90, 50), torch.randn(50, 10)",
    "torch.randn(90000, 20), torch.randn(20, 24)",
    "torch.randn(40, 19, 30), torch.randn(40, 30, 19)",
    "torch.randn(90, 50).bfloat16(), torch.randn(50, 20).bfloat16()",
])  # fmt: skip
@pytest.mark.parametrize("expression", [
    "torch.log_softmax(a @ b, -1)",
    "(a @ b).argmax(-1)",
    "(lambda y: (y, (y - y.mean(-1, keepdim=True)).square().sum(-1)))(a @ b)",
])  # fmt: skip
def test_short_rows_that_follow_lie_side_by_side(expression: str, inputs: str) -> None:
    made = build(function("a, b", expression, inputs), OWN)
    (kernel,) = made.program.kernels
    assert "into_lanes(" in kernel.source
    assert complaints(made) == []


def test_products_of_a_few_numbers_stay_with_the_library() -> None:
    inputs = "torch.randn(4096, 4, 4), torch.randn(4096, 4, 4)"
    program = build(function("a, b", "torch.tanh(a @ b)", inputs), OWN).program
    assert program.kernels[0].efficiency < 0.02


def test_operands_that_do_not_go_together_are_told_so() -> None:
    candidate = product("a @ b").candidate()
    with pytest.raises(ValueError, match="do not go together"):
        candidate(torch.randn(4, 5), torch.randn(6, 7))


def test_proposals_begin_with_the_defaults_and_differ_in_one_tunable() -> None:
    pattern = load_pattern("matmul")
    program = product("a @ b").program.changed(kernels=(), steps=())
    proposals = pattern.propose(program, SITUATION)
    assert isinstance(proposals, list)
    first = proposals[0].step.parameters
    assert first["engine"] == "own"
    for proposal in proposals:
        differing = [name for name in first if proposal.step.parameters[name] != first[name]]
        assert len(differing) == (proposal is not proposals[0])
        assert pattern.apply(program, proposal.step).steps


def test_only_the_named_products_are_taken() -> None:
    source = function("a, b", "(a @ b) @ b", "torch.randn(30, 40), torch.randn(40, 40)")
    step = Step(pattern="matmul", parameters={"only": "matmul_1"})
    made = build(source, (step,))
    assert [kernel.nodes for kernel in made.program.kernels] == [("matmul_1",)]
    assert complaints(made) == []


def test_a_view_that_others_read_stays() -> None:
    source = function(
        "a, b", "(lambda t: (t @ b, t + 1))(a.t())", "torch.randn(9, 30), torch.randn(9, 40)"
    )
    made = build(source, OWN)
    assert [kernel.nodes for kernel in made.program.kernels] == [("matmul",)]
    assert complaints(made) == []


def test_unknown_tunable_is_an_error() -> None:
    program = product("a @ b").program
    with pytest.raises(ValueError, match="unknown tunables"):
        load_pattern("matmul").apply(program, Step(pattern="matmul", parameters={"engine": "gpu"}))


# One for each way through the kernel: blocks, panels of both directions, thin ones, a fused row.
TYPED = {
    "blocks": ("a, b", "a @ b", [(70, 300), (300, 90)], 1),
    "turned": ("a, b", "a.T @ b.T", [(130, 61), (77, 130)], 3),
    "thin along": ("a, b", "a @ b.T", [(3, 700), (90, 700)], 2),
    "thin across": ("a, b", "a @ b", [(3, 700), (700, 90)], 1),
    "batched sum": (
        "c, a, b", "torch.baddbmm(c, a, b, beta=0.3, alpha=1.7)",
        [(3, 30, 20), (3, 30, 50), (3, 50, 20)], 1,
    ),
    "small": ("a, b", "a.mT @ b.mT", [(20, 40, 27), (20, 18, 40)], 3),
    "small and kept": ("a, b", "(lambda y: (y, y.exp()))(a @ b)", [(20, 9, 40), (20, 40, 9)], 2),
    "fused": ("a, b", "torch.softmax(a @ b, -1)", [(70, 40), (40, 90)], 2),
    "kept and fused": ("a, b", "(lambda y: (y, F.gelu(y)))(a @ b)", [(70, 40), (40, 90)], 2),
    "its own transpose": ("a", "a @ a.T", [(90, 40)], 2),
    "triangle": ("a, b", "torch.tril(a) @ b", [(90, 90), (90, 40)], 2),
    "diagonal": ("a, b", "torch.diag(a) @ b", [(90,), (90, 40)], 2),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
@pytest.mark.parametrize("name", TYPED)
def test_other_types_are_as_right_as_the_reference(name: str, dtype: str) -> None:
    arguments, expression, shapes, calls = TYPED[name]
    inputs = ", ".join(f"torch.randn({shape}).to(torch.{dtype})" for shape in shapes)
    built = build(function(arguments, expression, inputs), OWN)
    assert sum(len(kernel.nodes) for kernel in built.program.kernels) == calls
    assert complaints(built) == []
    if name == "blocks":
        given = [tensor.clone() for tensor in built.inputs]
        given[0][3, 5], given[1][7, 2] = float("inf"), float("nan")
        assert complaints(built, given) == []


def test_large_halves_are_finished_block_by_block() -> None:
    inputs = "torch.randn(1500, 40).bfloat16(), torch.randn(40, 1000).bfloat16()"
    built = build(function("a, b", "(lambda y: (y, torch.relu(y)))(a @ b)", inputs), OWN)
    assert complaints(built) == []


def test_operands_of_two_types_are_left_alone() -> None:
    inputs = "torch.randn(8, 8), torch.randn(8, 8)"
    built = build(function("a, b", "F.linear(a, b)", inputs), ())
    nodes = [
        node.model_copy(update={"result": node.spec.model_copy(update={"dtype": "bfloat16"})})
        if node.kind == "call" else node
        for node in built.graph.nodes
    ]  # fmt: skip
    graph = built.graph.model_copy(update={"nodes": tuple(nodes)})
    answer = load_pattern("matmul").propose(Program.of(graph, built.source), SITUATION)
    assert isinstance(answer, Refusal)
    assert "bfloat16 and float32" in answer.reason
