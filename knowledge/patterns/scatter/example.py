"""What the pattern is timed on: messages along the edges of a graph, summed where they arrive."""

import torch
from torch import nn

NODES, EDGES, WIDTH = 20000, 100000, 48


class Model(nn.Module):
    """A weighted sum over each node's incoming edges."""

    def forward(
        self, features: torch.Tensor, weights: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """Features are (edges, width), one weight an edge."""
        start = torch.zeros(NODES, WIDTH)
        return start.index_add(0, targets, features * weights[:, None])


def get_inputs() -> list[torch.Tensor]:
    """19 MB of messages, and where they go."""
    return [torch.randn(EDGES, WIDTH), torch.rand(EDGES), torch.randint(0, NODES, (EDGES,))]


def get_init_inputs() -> list[int]:
    """Nothing to construct it with."""
    return []
