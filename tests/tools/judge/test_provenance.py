"""Which of torch's own operators a kernel is said to lean on."""

import pytest

from tools.judge.provenance import provenance_labels

REFERENCE = """
import torch

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(8, 8)
        self.gain = torch.nn.Parameter(torch.rand(8))

    def forward(self, x):
        return torch.softmax(self.linear(x), dim=-1) * self.gain
"""
KERNEL = """
import torch

class ModelNew(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(8, 8)
        self.gain = torch.nn.Parameter(torch.rand(8))
        self.layers = torch.nn.ModuleList([torch.nn.Linear(8, 8)])

    def forward(self, x):
        return fused({given})
"""


@pytest.mark.parametrize(
    ("given", "leans_on"),
    [
        ("x, self.linear.weight, self.linear.bias, self.gain", []),
        ("self.linear(x), self.gain", ["linear"]),
        ("self.linear.forward(x), self.gain", ["linear"]),
        ("x, self.linear, self.gain", ["linear"]),
        ("self.layers[0](x), self.gain", ["linear"]),
        ("torch.nn.functional.linear(x, self.linear.weight), self.gain", ["linear"]),
        ("x.softmax(-1), self.linear.weight", ["softmax"]),
    ],
)
def test_a_module_that_is_there_for_its_weights_is_not_leant_on(given, leans_on):
    labels = provenance_labels(KERNEL.format(given=given), REFERENCE)
    assert list(labels) == [f"calls torch's own {name}" for name in leans_on]
