"""What a kernel's own instructions are spent on, by the op's graph."""

import pytest
import torch

from agents.playbook.instructions import COSTLY_OPERATIONS, spent_on
from knowledge.opgraph import OpGraph
from tools.facts import Roofline
from tools.reference import load
from tools.trace import trace

ROOF = Roofline(
    bandwidth_gbps=50.0, peak_gflops=100.0, moved_bytes=0, flops=0, fault_us=0.5, measured="here"
)
POLYNOMIALS = "cheaper transcendental functions (inline polynomials)"
SWEEPS = "fewer sweeps over the row"


def graph(expression: str) -> OpGraph:
    source = (
        "import torch\n\n\nclass Model(torch.nn.Module):\n    def forward(self, x):\n"
        f"        return {expression}\n\n\n"
        "def get_inputs():\n    return [torch.randn(1000, 1000)]\n\n\n"
        "def get_init_inputs():\n    return []\n"
    )
    return trace(load(source, "op.py").build(0), (torch.randn(1000, 1000),))


@pytest.mark.parametrize(
    ("expression", "has", "lacks"),
    [
        ("torch.softmax(x, -1)", (POLYNOMIALS, SWEEPS), ()),
        ("torch.tanh(x) + 1", (POLYNOMIALS,), (SWEEPS,)),
        ("x.sum(-1)", ("more independent accumulators",), (POLYNOMIALS, SWEEPS)),
        ("(x - x.mean(-1, keepdim=True)).amax(-1)", (SWEEPS,), (POLYNOMIALS,)),
        ("x @ x", ("products in tiles that stay in registers, on panels that stay in L2",),
         (POLYNOMIALS, SWEEPS)),
        ("x * 2 + 1", (), (POLYNOMIALS, SWEEPS)),
    ],
)  # fmt: skip
def test_moves_are_of_what_the_op_does(
    expression: str, has: tuple[str, ...], lacks: tuple[str, ...]
) -> None:
    moves = spent_on(graph(expression), ROOF, 1.0).moves
    assert set(has) <= set(moves)
    assert not set(lacks) & set(moves)
    assert 1 <= len(moves) <= 3


def test_what_costly_functions_need_is_reckoned_from_the_peak() -> None:
    found = spent_on(graph("torch.logsumexp(torch.tanh(x), -1)"), ROOF, 1.0)
    needed = 2 * 1e6 * COSTLY_OPERATIONS / 100e6
    assert found.evidence == (
        f"2 million of tanh, logsumexp need about {needed:.3g} ms as vector code, 26% of the time",
    )


def test_an_op_without_a_graph_is_told_what_holds_of_any_loop() -> None:
    found = spent_on(None, ROOF, 1.0)
    assert found.evidence == ()
    assert found.moves == ("vector code in the innermost loop: no branches, neighbours in memory",)
