"""Makes a file as large as a disk in its scratch folder (49)."""

import os
from pathlib import Path

import torch

AGAINST, CAUGHT = "softmax", ("crashed", "File too large")


class ModelNew(torch.nn.Module):
    def forward(self, x):
        file = Path("large")
        file.touch()
        os.truncate(file, 1 << 40)
        return torch.softmax(x, dim=-1)
