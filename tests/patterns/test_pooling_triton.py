"""Poolings printed as Triton: interpreted against float64, with what follows them."""

import pytest

from tests.patterns.triton_workshop import complaints
from tests.patterns.workshop import function

pytest.importorskip("triton")

NAME = "pooling"
POOLS = (
    ("F.max_pool2d(x, 3, 2, 1)", "torch.randn(2, 3, 9, 10)"),
    ("F.max_pool2d(x, (3, 2), (1, 3), (1, 0), (2, 3))", "torch.randn(2, 2, 9, 10)"),
    ("F.max_pool2d(x, 3, 2, 1, ceil_mode=True)", "torch.randn(2, 3, 8, 9)"),
    ("F.max_pool2d(x, 7, 1, 3)", "torch.randn(1, 2, 9, 11)"),
    ("F.max_pool3d(x, (2, 5, 4), 1, (1, 2, 2))", "torch.randn(2, 2, 4, 5, 6)"),
    ("F.max_pool1d(x, 64, 50)", "torch.randn(5, 200)"),
    ("F.max_pool1d(x, 3, 2, 1)", "torch.randn(2, 3, 30)"),
    ("F.max_pool2d(x, 2, return_indices=True)[0]", "torch.randn(2, 3, 8, 8)"),
    ("F.avg_pool2d(x, 3, 2, 1)", "torch.randn(2, 3, 9, 10)"),
    ("F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)", "torch.randn(2, 3, 9, 10)"),
    ("F.avg_pool2d(x, 3, 2, 1, ceil_mode=True)", "torch.randn(2, 3, 8, 10)"),
    ("F.avg_pool2d(x, (2, 3), divisor_override=5)", "torch.randn(2, 3, 8, 9)"),
    ("F.avg_pool2d(x, (4, 20), (4, 20))", "torch.randn(2, 3, 8, 60)"),
    ("F.avg_pool3d(x, 3, 2, 1, True, False)", "torch.randn(2, 2, 6, 7, 8)"),
    ("F.adaptive_avg_pool2d(x, (3, 5))", "torch.randn(2, 3, 8, 12)"),
    ("F.adaptive_avg_pool2d(x, (2, 3))", "torch.randn(2, 3, 5, 50)"),
    ("F.adaptive_avg_pool3d(x, (2, 1, 3))", "torch.randn(2, 2, 5, 6, 7)"),
    ("F.adaptive_max_pool1d(x, 7)", "torch.randn(2, 3, 50)"),
    ("F.max_pool2d(x, 3, 2, 1)", "torch.randn(2, 3, 9, 10).double()"),
    ("F.avg_pool2d(x, 3, 2, 1)", "torch.randn(2, 3, 9, 10).half()"),
    ("F.max_pool2d(x, 2)", "torch.tensor([[[[1.0, float('nan'), -float('inf'), 0.0]] * 4]])"),
    ("torch.relu(F.max_pool2d(x, 2) * x.mean((2, 3), keepdim=True))", "torch.randn(2, 3, 6, 8)"),
    ("F.silu(F.avg_pool1d(x, 2)) + x[:, :1, ::2]", "torch.randn(2, 3, 8)"),
)


def test_windows_of_every_kind_equal_float64() -> None:
    sources = {f"{call} of {x}": function("x", call, x) for call, x in POOLS}
    assert complaints(sources, NAME) == {}
