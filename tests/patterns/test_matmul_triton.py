"""Matrix products in Triton: in the interpreter against float64, compiled for three generations."""

import pytest
import torch

from knowledge.emit import emit
from knowledge.pattern import Refusal, load_pattern
from knowledge.program import Kernel, Program
from tests.patterns import without_gpu
from tests.patterns.without_gpu import Parameters, multiplies, spilling
from tests.patterns.workshop import SITUATION, build, function, load
from tools.backends.triton.interpret import Candidate, Interpreted, interpret

pytest.importorskip("triton")

PATTERN = load_pattern("matmul")
LINEAR = function(
    "x, w, b", "F.linear(x, w, b)", "torch.randn(9, 33), torch.randn(20, 33), torch.randn(20)"
)
CASES = {
    "gelu_residual": ("x, w, b", "F.gelu(F.linear(x, w, b)) * 2 + x",
                      "torch.randn(70, 90), torch.randn(90, 90), torch.randn(90)"),
    "both_transposed": ("a, b", "a.t() @ b.t()", "torch.randn(33, 70), torch.randn(20, 33)"),
    "strided": ("a, b", "torch.relu(a @ b)",
                "torch.randn(20, 66)[:, ::2], torch.randn(80, 40)[:66:2, 3:20]"),
    "rows_of_a_batch": ("x, w, s", "torch.tanh(F.linear(x, w)) * s[:, None, None]",
                        "torch.randn(3, 5, 40), torch.randn(18, 40), torch.randn(3)"),
    "broadcast_batches": ("a, b", "torch.sigmoid(torch.matmul(a, b))",
                          "torch.randn(2, 1, 17, 9), torch.randn(3, 9, 21)"),
    "transposed_batch": ("a, b", "torch.bmm(a, b.transpose(1, 2))",
                         "torch.randn(4, 18, 20), torch.randn(4, 33, 20)"),
    "baddbmm": ("c, a, b", "torch.baddbmm(c, a, b, beta=0.5, alpha=2).relu()",
                "torch.randn(3, 18, 20), torch.randn(3, 18, 9), torch.randn(3, 9, 20)"),
    "addmm_of_a_column": ("c, a, b", "torch.addmm(c, a, b, beta=3)",
                          "torch.randn(18, 1), torch.randn(18, 9), torch.randn(9, 20)"),
    "einsum": ("a, b", "torch.einsum('bik,bjk->bij', a, b)",
               "torch.randn(3, 18, 9), torch.randn(3, 20, 9)"),
    "several_outputs": ("a, b", "(lambda y: (y, y.relu(), y * 2))(a @ b)",
                        "torch.randn(18, 9), torch.randn(9, 20)"),
    "halves": ("a, b, c", "torch.relu(a @ b + c)",
               "torch.randn(70, 40).half(), torch.randn(40, 70).half(), torch.randn(70).half()"),
    "softmax": ("a, b", "torch.softmax(a @ b * 0.3, -1)",
                "torch.randn(70, 40), torch.randn(40, 90)"),
    "layer_norm": ("x, w, b, g", "F.layer_norm(F.linear(x, w, b), (100,), g) + 1",
                   "torch.randn(3, 7, 40), torch.randn(100, 40), *torch.randn(2, 100)"),
    "rms_norm": ("x, w",
                 "(lambda y: y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6))(x @ w)",
                 "torch.randn(21, 40), torch.randn(40, 30)"),
    "sum_of_long_rows": ("x, w, b", "F.linear(x, w, b).sum(-1) * 2",
                         "torch.randn(21, 40), torch.randn(600, 40), torch.randn(600)"),
    "sum_of_exponentials": ("x, w",
                            "(lambda y: (y - y.amax(1, keepdim=True)).exp().sum(1).log())(x @ w)",
                            "torch.randn(21, 10), torch.randn(10, 600)"),
    "max_of_long_rows": ("x, w", "(x @ w).amax(-1)", "torch.randn(21, 10), torch.randn(10, 600)"),
    "long_rows_in_two_passes": ("x, w", "torch.softmax(F.gelu(x @ w), -1)",
                                "torch.randn(5, 10), torch.randn(10, 600)"),
    "vector_times_matrix": ("x, w, b", "F.linear(x, w, b).tanh()",
                            "torch.randn(1, 700), torch.randn(37, 700), torch.randn(37)"),
    "matrix_times_vector": ("a, v", "torch.mv(a, v).exp()", "torch.randn(37, 80), torch.randn(80)"),
    "matrix_times_column": ("c, a, v", "torch.addmm(c, a, v)",
                            "torch.randn(1), torch.randn(37, 80), torch.randn(80, 1)"),
    "addmv": ("c, a, v", "torch.addmv(c, a, v)",
              "torch.randn(37), torch.randn(37, 9), torch.randn(9)"),
    "dot": ("a, b", "torch.dot(a, b)", "torch.randn(5000), torch.randn(5000)"),
    "rows_of_one": ("x, w", "F.linear(x, w)", "torch.randn(4, 1, 50), torch.randn(3, 50)"),
    "lower_result": ("a, b", "torch.tril(a @ b, -1) + 1",
                     "torch.randn(150, 20), torch.randn(20, 150)"),
    "upper_operand": ("a, b", "torch.tril(a) @ torch.triu(b, 2)",
                      "torch.randn(40, 40), torch.randn(40, 40)"),
    "infinity": ("a, b", "torch.tril(a) @ b",
                 "torch.randn(20, 20), torch.randn(20, 20).index_fill(0, torch.tensor([19]), "
                 "float('inf'))"),
}  # fmt: skip
SPLIT = {
    "split_depth": ("x, w, b", "F.gelu(F.linear(x, w, b))",
                    "torch.randn(3, 2100), torch.randn(33, 2100), torch.randn(33)"),
    "split_rows": ("x, w", "torch.softmax(x @ w, -1)",
                   "torch.randn(3, 2100), torch.randn(2100, 33)"),
    "split_vector": ("v, a", "v @ a", "torch.randn(2, 1, 1100), torch.randn(2, 1100, 40)"),
}  # fmt: skip
# One for each form of a kernel, at sizes of real use; and the precisions of float32.
_GELU = function(
    "x, w, b", "F.gelu(F.linear(x, w, b))",
    "torch.randn(1024, 1024), torch.randn(2048, 1024), torch.randn(2048)",
)  # fmt: skip
_RELU = function(
    "a, b, c", "(a @ b + c).relu()",
    "*torch.randn(2, 2048, 2048).bfloat16(), torch.randn(2048).bfloat16()",
)  # fmt: skip
COMPILED: dict[str, tuple[str, Parameters]] = {
    "tf32x3": (_GELU, {}),
    "bf16x3": (_GELU, {"precision": "bf16x3"}),
    "bf16": (_RELU, {}),
    "irregular": (function("a, b", "torch.tril(a @ b)", "*torch.randn(2, 1001, 1001).half()"), {}),
    "layer_norm": (function("x, w, g", "F.layer_norm(F.linear(x, w), (256,), g)",
                            "torch.randn(4096, 512), torch.randn(256, 512), torch.randn(256)"), {}),
    "softmax": (function("x, w", "torch.softmax(x @ w, -1)",
                         "torch.randn(4096, 512).half(), torch.randn(512, 248).half()"), {}),
    "largest": (function("x, w", "(x @ w).relu().amax(1)",
                         "torch.randn(1024, 512), torch.randn(512, 4096)"), {}),
    "split": (function("x, w", "F.linear(x, w).relu()",
                       "torch.randn(16, 8192).half(), torch.randn(1024, 8192).half()"), {}),
    "vector": (function("v, a", "v @ a.t()", "torch.randn(1, 4096), torch.randn(4096, 4096)"), {}),
}  # fmt: skip


def complaints(cases: dict[str, tuple[str, str, str]], parameters: Parameters) -> dict[str, object]:
    """What is wrong with each case's candidate."""
    sources = {name: function(*case) for name, case in cases.items()}
    return without_gpu.complaints("matmul", sources, parameters)


def in_triton(source: str, parameters: Parameters | None = None) -> Program:
    """A reference with its products in Triton kernels."""
    return without_gpu.in_triton("matmul", source, parameters)


def only_kernel(source: str) -> Kernel:
    """The one kernel of a product."""
    (kernel,) = in_triton(source).kernels
    return kernel


def test_products_and_epilogues_are_as_right_as_the_reference() -> None:
    assert complaints(CASES, {}) == {}


def test_split_depths_are_as_right_as_the_reference() -> None:
    assert complaints(SPLIT, {"split": 4, "block_depth": 64}) == {}


def test_what_follows_a_product_is_in_its_kernel() -> None:
    for name in ("gelu_residual", "softmax", "layer_norm", "rms_norm", "sum_of_exponentials"):
        program = in_triton(function(*CASES[name]))
        assert program.library_calls == (), name
        assert len(program.kernels) == 1
    left = in_triton(function(*CASES["long_rows_in_two_passes"])).library_calls
    assert [node.target for node in left] == ["aten.softmax.int"]


def test_other_sizes_than_the_traced_ones_are_multiplied_too() -> None:
    vector = function("x, w", "F.linear(x, w)", "torch.randn(1, 700), torch.randn(37, 700)")
    text = emit(in_triton(LINEAR))
    given = [
        Candidate(candidate=text, reference=LINEAR, inputs=f"[torch.randn({rows}, 33), "
                  "torch.randn(20, 33), torch.randn(20)]") for rows in (1, 64, 130)
    ] + [
        Candidate(candidate=emit(in_triton(vector)), reference=vector,
                  inputs="[torch.randn(5, 700), torch.randn(37, 700)]")
    ]  # fmt: skip
    assert interpret(given) == [Interpreted(complaints=())] * len(given)


def checked(given: dict[str, tuple[str, Parameters]]) -> None:
    """Compiles kernels: none spills, and their products are on tensor cores."""
    kernels = without_gpu.compiled("matmul", given)
    assert spilling(kernels) == []
    for name, several in kernels.items():
        main = [kernel for kernel in several if kernel.function.endswith("_kernel")]
        assert all(multiplies(kernel) == (name != "vector") for kernel in main), name
        # Full tiles are for Hopper's and Blackwell's own instructions.
        for kernel in main if name not in ("split", "vector") else []:
            assert (kernel.tensor_core.mma > 0) == (kernel.capability == 80), kernel


def test_kernels_compile_for_three_generations_without_spills_and_use_tensor_cores() -> None:
    checked({name: COMPILED[name] for name in ("tf32x3", "softmax", "split")})


@pytest.mark.exhaustive
def test_every_form_compiles_for_three_generations_without_spills() -> None:
    checked(COMPILED)


def test_proposals_can_all_be_applied_and_reckon_with_tensor_cores() -> None:
    source = COMPILED["tf32x3"][0]
    program = Program.of(build(source, ()).graph, source, "triton")
    peaks = {"tf32": 450.0, "bf16": 900.0}
    situation = SITUATION.model_copy(
        update={"bandwidth_gbps": 3e3, "peak_gflops": 60.0, "tensor_gflops": peaks}
    )
    plain, tensor = (PATTERN.propose(program, one) for one in (SITUATION, situation))
    assert not isinstance(plain, Refusal)
    assert not isinstance(tensor, Refusal)
    assert tensor[1].step.parameters["precision"] == "bf16x3"
    assert tensor[1].speedup > 1.5 * tensor[0].speedup > 1.5 * plain[0].speedup
    assert all(PATTERN.apply(program, one.step).kernels for one in plain)


def test_what_can_not_be_multiplied_is_refused_with_the_reason() -> None:
    wide = function("a, b", "a @ b", "torch.randn(8, 8).double(), torch.randn(8, 8).double()")
    diagonal = function("d, b", "torch.diag(d) @ b", "torch.randn(8), torch.randn(8, 8)")
    for source, word in ((wide, "float64"), (diagonal, "diagonal")):
        program = Program.of(build(source, ()).graph, source, "triton")
        answer = PATTERN.propose(program, SITUATION)
        assert isinstance(answer, Refusal)
        assert word in answer.reason
    for wrong in ({"warps": 3}, {"engine": "own"}):
        with pytest.raises(ValueError, match="unknown tunables"):
            in_triton(LINEAR, wrong)


def test_operands_are_read_as_they_lie_unless_the_epilogue_reads_them_too() -> None:
    assert len(only_kernel(function(*CASES["strided"])).strided) == 2
    residual = only_kernel(function(*CASES["gelu_residual"]))
    assert [ref.ref for ref in residual.strided] == ["w"]


def test_rows_that_a_tile_can_not_hold_are_refused_where_all_sizes_are_free() -> None:
    source = function("a, b", *CASES["softmax"][1:])
    text = emit(without_gpu.in_triton("matmul", source))
    module = load(text)
    for columns in (0, 129):
        with pytest.raises(ValueError, match="rows of 1 to 128 elements"):
            module.ModelNew()(torch.randn(70, 40), torch.randn(40, columns))
