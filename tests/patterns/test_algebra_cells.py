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


def test_a_long_loop_keeps_its_cells() -> None:
    body = """    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(4, 4)

    def forward(self, x):
        h = x[0]
        for step in range(9):
            h = self.cell(x[step], h)
        return h"""
    done, unfit, *_ = rewritten(reference(body, "torch.randn(9, 3, 4)"))
    assert not any("GRU" in one for one in done)
    assert any("too large a graph" in why for why in unfit)
