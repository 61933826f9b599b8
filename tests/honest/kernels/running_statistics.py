"""Batch norm by hand, in training mode, keeping the running statistics up to date."""

import torch

AGAINST = "norm"


class ModelNew(torch.nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(channels)

    def forward(self, x):
        norm = self.norm
        mean, variance = x.mean(dim=0), x.var(dim=0, correction=0)
        rows = x.shape[0]
        norm.num_batches_tracked += 1
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance * rows / (rows - 1), norm.momentum)
        scale = norm.weight / (variance + norm.eps).sqrt()
        return torch.relu((x - mean) * scale + norm.bias)
