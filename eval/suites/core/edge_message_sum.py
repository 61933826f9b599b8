"""One round of messages on a graph: both ends of an edge make a message, each node sums its own."""

import torch
from torch import nn


class Model(nn.Module):
    def forward(
        self, nodes: torch.Tensor, sources: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        messages = torch.relu(nodes[sources] + nodes[targets])
        summed = torch.zeros_like(nodes).index_add(0, targets, messages)
        return nodes + summed


NODES, EDGES, WIDTH = 20000, 90000, 64


def get_inputs() -> list[torch.Tensor]:
    ends = torch.randint(0, NODES, (2, EDGES))
    return [torch.randn(NODES, WIDTH), ends[0].clone(), ends[1].clone()]


def get_init_inputs() -> list[object]:
    return []
