"""Takes the running statistics, as in evaluation, where the op is in training mode (21)."""

import torch

AGAINST, CAUGHT = "norm", ("wrong_output", "ordinary 1")


class ModelNew(torch.nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(channels)

    def forward(self, x):
        norm = self.norm
        scaled = (x - norm.running_mean) * torch.rsqrt(norm.running_var + norm.eps)
        return torch.relu(scaled * norm.weight + norm.bias)
