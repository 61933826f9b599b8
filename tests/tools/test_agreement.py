"""A graph is held against its module by one measure, whichever way the tracer made it."""

import pytest
import torch

from tools.agreement import agrees, contradicts
from tools.trace import trace


class Times(torch.nn.Module):
    def __init__(self, by: float = 3.0, drift: float = 0.0) -> None:
        super().__init__()
        self.by, self.drift = by, drift
        self.register_buffer("total", torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.drift:
            self.total.mul_(1 + self.drift)
        return x * self.by


class Highest(torch.nn.Module):
    """The place of each row's largest element, but that some are said to be others."""

    def __init__(self, tipped: int = 0) -> None:
        super().__init__()
        self.tipped = tipped

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = x.argmax(1)
        return torch.cat([found[: self.tipped] + 1, found[self.tipped :]])


ROWS = torch.randn(4000, 4)


@pytest.mark.parametrize(
    ("module", "other", "alike"),
    [
        (Times(), Times(3.0), True),
        # As far apart as half precision may be.
        (Times(), Times(3.006), True),
        (Times(), Times(3.3), False),
        (Highest(), Highest(3), True),
        (Highest(), Highest(30), False),
    ],
)
def test_both_ways_of_asking_have_one_answer(
    module: torch.nn.Module, other: torch.nn.Module, alike: bool
) -> None:
    graph = trace(module, (ROWS,))
    assert agrees(graph, other, (ROWS,)) is alike
    assert contradicts(graph, module, (ROWS,), other(ROWS)) is not alike


def test_a_buffer_that_is_changed_by_a_hair_is_changed() -> None:
    graph = trace(Times(), (ROWS,))
    assert agrees(graph, Times(), (ROWS,))
    assert not agrees(graph, Times(drift=1e-6), (ROWS,))


class Grown(Times):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.register_buffer("further", x)
        return super().forward(x)


def test_a_buffer_that_forward_adds_is_left_behind() -> None:
    assert not agrees(trace(Times(), (ROWS,)), Grown(), (ROWS,))
