"""What the pattern is timed on: the router of a mixture of experts."""

import torch
from torch import nn

TOKENS, EXPERTS, CHOSEN = 32768, 128, 8


class Model(nn.Module):
    """The experts of each token with their weights, which add up to one."""

    def forward(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits are (tokens, experts)."""
        weights, experts = torch.topk(torch.softmax(logits, dim=-1), CHOSEN, dim=-1)
        return weights / weights.sum(dim=-1, keepdim=True), experts


def get_inputs() -> list[torch.Tensor]:
    """16 MB of logits."""
    return [torch.randn(TOKENS, EXPERTS)]


def get_init_inputs() -> list[int]:
    """Nothing to construct it with."""
    return []
