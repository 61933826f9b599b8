"""What reads an anchor's result is done to it block by block: as right as done afterwards."""

import pytest
import torch

from knowledge.emit import emit
from knowledge.loops.epilogue import Epilogue, find_epilogue
from knowledge.program import Kernel, Program, Size, variable
from tests.patterns.workshop import Built, complaints, load, reference
from tools.trace import trace

LINEAR = """    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(12, {n})
        self.norm = nn.LayerNorm({n})
        self.scale = nn.Parameter(torch.randn({n}))

    def forward(self, x, y):
        z = self.linear(x)
        return {expression}"""

# Blocks of three units, so that the last one is not full; nothing else of a real anchor matters.
ANCHOR = """
#include <vector>

extern "C" void linear(const float* x, const float* w, const float* b, {parameters},
        int64_t units, int64_t rows, int64_t n, int64_t depth) {{
#pragma omp parallel for
    for (int64_t first = 0; first < units; first += 3) {{
        const int64_t last = first + 3 < units ? first + 3 : units;
        std::vector<float> block(3 * rows * n);
        for (int64_t i = first * rows; i < last * rows; ++i)
            for (int64_t j = 0; j < n; ++j) {{
                float sum = b[j];
                for (int64_t k = 0; k < depth; ++k) sum += x[i * depth + k] * w[j * depth + k];
                block[(i - first * rows) * n + j] = sum;
            }}
        {call}
    }}
}}
"""


def with_epilogue(source: str, dims: int) -> tuple[Built, Epilogue | None]:
    """The reference with its linear call, and what can be fused, in one kernel."""
    module = load(source)
    model, inputs = module.Model(), module.get_inputs()
    graph = trace(model, tuple(inputs))
    program = Program.of(graph, source)
    node = next(node for node in graph.calls if node.target.startswith("aten.linear"))
    x, weight, bias = node.refs
    rank = len(node.spec.shape)
    shape = tuple(f"{variable(x)}.shape[{dim}]" for dim in range(rank - 1))
    shape = (*shape, f"{variable(weight)}.shape[0]")
    found = find_epilogue(program, node.name, dims, shape)
    if found is None:
        return Built(model, inputs, graph, program, emit(program)), None
    call = found.call("block.data() - first * rows * n", "first", "last", "units")
    numbers = (" * ".join(shape[:dims]), " * ".join(shape[dims:-1]) or "1", shape[-1], "12")
    kernel = Kernel(
        name="linear", source=found.source + ANCHOR.format(parameters=found.parameters, call=call),
        signature="ppp" + found.signature + "iiii", nodes=(node.name, *found.nodes),
        reads=(x, weight, bias, *found.reads), writes=found.writes,
        sizes=(*found.sizes, *(Size(name=f"n{at}", expression=e) for at, e in enumerate(numbers))),
        checks=found.checks,
    )  # fmt: skip
    program = program.changed(kernels=(kernel,))
    return Built(model, inputs, graph, program, emit(program)), found


def linear(expression: str, n: int = 40, x: str = "7, 12", y: str = "7, 40") -> str:
    """A reference: `expression` over z = linear(x), another input y, a scale and a layer norm."""
    body = LINEAR.format(n=n, expression=expression)
    return reference(body, f"torch.randn({x}), torch.randn({y})")


@pytest.mark.parametrize(
    "expression",
    [
        "F.gelu(z)",
        "torch.relu(z) * self.scale + y",
        "torch.softmax(z, -1)",
        "self.norm(F.silu(z) + y)",
        "z.sum(-1, keepdim=True)",
        "torch.logsumexp(z * 2, dim=1)",
        "(z * torch.sigmoid(y[:, :1]), z.amax(1))",
    ],
)
def test_an_epilogue_over_rows_is_right(expression: str) -> None:
    built, found = with_epilogue(linear(expression), 1)
    assert found is not None
    assert len(built.program.library_calls) <= 1
    assert complaints(built) == []


@pytest.mark.parametrize(
    ("expression", "dims"),
    [("F.gelu(z) + y", 1), ("torch.softmax(z, -1)", 2), ("z.mean((1, 2))", 1), ("z.amax(1)", 1)],
)
def test_units_may_be_slices_of_any_rank(expression: str, dims: int) -> None:
    built, found = with_epilogue(linear(expression, x="5, 6, 12", y="5, 6, 40"), dims)
    assert found is not None
    assert complaints(built) == []


@pytest.mark.parametrize("expression", ["z.sum()", "z.mean(0)", "torch.softmax(z, 0)"])
def test_what_needs_all_units_is_left_out(expression: str) -> None:
    assert with_epilogue(linear(expression), 1)[1] is None


def test_what_comes_before_a_total_is_fused_all_the_same() -> None:
    built, found = with_epilogue(linear("torch.tanh(z).sum(0)"), 1)
    assert found is not None
    assert complaints(built) == []


def test_a_result_that_others_read_too_is_told() -> None:
    source = linear("(F.gelu(z), torch.cumsum(z, 0))")
    module = load(source)
    graph = trace(module.Model(), tuple(module.get_inputs()))
    node = next(node for node in graph.calls if node.target.startswith("aten.linear"))
    found = find_epilogue(Program.of(graph, source), node.name, 1, ("x.shape[0]", "40"))
    assert found is not None
    assert found.keeps_anchor


def test_another_batch_is_right_too() -> None:
    built, _ = with_epilogue(linear("torch.softmax(z, -1) * self.scale"), 1)
    assert complaints(built, [torch.randn(19, 12), torch.randn(7, 40)]) == []
