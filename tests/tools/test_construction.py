"""Texts of a reference that are built alike are found so, whatever else they differ in."""

import pytest

from tools.construction import ways

TEXT = """
import torch

ROWS, FEATURES = 9, 5
HALF = FEATURES // 2
SCALE: float = 0.5


def features():
    return HALF * 2


class Model(torch.nn.Module):
    def forward(self, x, scale):
        return x * scale


def get_inputs():
    x = torch.randn(ROWS, FEATURES)
    return [x, SCALE]


def get_init_inputs():
    return [features()]
"""


@pytest.mark.parametrize(
    ("old", "new", "alike"),
    [
        ("9, 5", "20, 5", True),
        ("9, 5", "9, 7", False),
        ("FEATURES // 2", "FEATURES // 1", False),
        ("HALF * 2", "HALF * 4", False),
        ("0.5", "0.25", False),
        ("[x, SCALE]", "[x, 2.0]", False),
        ("torch.randn(ROWS", "torch.rand(ROWS", True),
        ("return [features()]", "return [2 * features()]", False),
        ("x * scale", "x + scale", True),
    ],
)
def test_what_is_given_beside_tensors_tells_ways_apart(old: str, new: str, alike: bool) -> None:
    assert TEXT.count(old) == 1
    assert ways([TEXT, TEXT.replace(old, new), TEXT]) == [0, 0 if alike else 1, 0]


def test_a_reference_without_a_constructor_of_its_own_has_one_way() -> None:
    text = "def get_inputs():\n    return [1, 2]"
    assert ways([text, text]) == [0, 0]
    assert ways([]) == []
