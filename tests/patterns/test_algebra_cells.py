"""Single steps of recurrent nets: exact, and gates in loops of their own."""

import pytest

from knowledge.pattern import Step
from tests.patterns.test_algebra import check, rewritten
from tests.patterns.workshop import build, complaints, reference

STEPS = (Step(pattern="algebra"), Step(pattern="row_loop"))
BODY = """    def __init__(self):
        super().__init__()
        self.cell = nn.{cell}({features}, 24, bias={bias})

    def forward(self, x, h):
        return {expression}"""


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("cell", "expression"),
    [
        ("GRUCell", "self.cell(x, h)"),
        ("LSTMCell", "self.cell(x, (h, h * 2))"),
        ("LSTMCell", "self.cell(x, (h, h * 2))[0]"),
        ("GRUCell", "self.cell(h[:, :16], self.cell(x, h))"),
    ],
)
def test_a_cell_is_exact_and_all_but_its_products_are_fused(
    cell: str, expression: str, bias: bool
) -> None:
    body = BODY.format(cell=cell, features=16, bias=bias, expression=expression)
    source = reference(body, "torch.randn(5, 16), torch.randn(5, 24)")
    if expression != "self.cell(x, (h, h * 2))":
        check(source, "step is two linear layers and its gates")
    built = build(source, STEPS)
    left = {call.target.split(".")[1] for call in built.program.library_calls}
    assert left <= {"linear", "slice"}
    assert complaints(built) == []


@pytest.mark.parametrize(("cell", "gates"), [("GRUCell", 6), ("LSTMCell", 4)])
def test_gates_are_read_as_they_lie_in_wide_rows(cell: str, gates: int) -> None:
    expression = "self.cell(x, h)" if cell == "GRUCell" else "self.cell(x, (h, h * 2))[0]"
    body = BODY.format(cell=cell, features=16, bias=True, expression=expression)
    built = build(reference(body, "torch.randn(9000, 16), torch.randn(9000, 24)"), STEPS)
    kernels = built.program.kernels
    assert sum("slice" in name for kernel in kernels for name in kernel.spaced) == gates
    assert complaints(built) == []


def test_a_long_loop_that_is_no_net_keeps_its_cells() -> None:
    body = """    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(4, 4)

    def forward(self, x):
        h = x[0]
        for step in range(25):
            h = self.cell(x[step], h.sin())
        return h"""
    done, unfit, *_ = rewritten(reference(body, "torch.randn(25, 3, 4)"))
    assert not any("GRU" in one for one in done)
    assert any("too large a graph" in why for why in unfit)
