import pytest
import torch

from tools.runner.accelerator import set_precision


@pytest.fixture(autouse=True)
def _restored():
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(products)
    torch.backends.cudnn.allow_tf32 = convolutions


@pytest.mark.parametrize(
    ("precision", "products", "tf32"),
    [("strict", "highest", False), ("tf32", "high", True), ("half", "medium", True)],
)
def test_products_and_convolutions_are_under_one_policy(precision, products, tf32):
    set_precision(precision)
    assert torch.get_float32_matmul_precision() == products
    assert torch.backends.cudnn.allow_tf32 is tf32
