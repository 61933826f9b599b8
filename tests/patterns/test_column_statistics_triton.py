"""Column statistics printed as Triton: interpreted against float64, buffers too."""

import pytest

from tests.patterns.triton_workshop import complaints
from tests.patterns.workshop import function, reference

pytest.importorskip("triton")

NAME = "column_statistics"
REDUCTIONS = (
    ("x.var((0, 2), correction=0)", "torch.randn(5, 3, 70) * 3 + 100"),
    ("torch.var_mean(x, (0, 2, 3), keepdim=True)", "torch.randn(3, 4, 5, 30)"),
    ("torch.std(x, (0, 2))", "torch.randn(300, 3, 7) - 1000"),
    ("x.mean(0)", "torch.randn(5000, 70)"),
    ("torch.std_mean(x, (0,))", "torch.randn(4500, 3).double() + 50"),
    ("x.var((0, 2))", "torch.tensor([[[1.0, 2.0]], [[float('inf'), 3.0]]]).repeat(1, 3, 1)"),
    ("x.var((0, 2))", "torch.randn(1, 3, 1).repeat(1, 1, 1)"),
)


def norm(module: str, expression: str, inputs: str) -> str:
    """A batch norm in training, and what follows."""
    body = f"""    def __init__(self):
        super().__init__()
        self.norm = nn.{module}

    def forward(self, x):
        return {expression}"""
    return reference(body, inputs)


NORMS = {
    "planes": norm("BatchNorm2d(5)", "torch.relu(self.norm(x)) + x", "torch.randn(3, 5, 9, 11)"),
    "plain": norm("BatchNorm2d(4, affine=False)", "self.norm(x)", "torch.randn(3, 4, 6, 5) + 40"),
    "columns": norm("BatchNorm1d(70)", "F.gelu(self.norm(x))", "torch.randn(90, 70)"),
    "untracked": norm(
        "BatchNorm3d(3, track_running_stats=False)", "self.norm(x)", "torch.randn(2, 3, 4, 5, 6)"
    ),
    "momentum": norm("BatchNorm2d(3, momentum=0.3)", "self.norm(x)", "torch.randn(4, 3, 8, 8)"),
}


def test_statistics_and_norms_equal_float64() -> None:
    sources = {f"{call} of {x}": function("x", call, x) for call, x in REDUCTIONS[:-1]}
    assert complaints({**sources, **NORMS}, NAME) == {}
