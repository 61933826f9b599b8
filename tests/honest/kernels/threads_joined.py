"""Uses threads of its own, and waits for them."""

from concurrent.futures import ThreadPoolExecutor

import torch

AGAINST = "softmax"


class ModelNew(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.pool = ThreadPoolExecutor(2)

    def forward(self, x):
        return torch.cat(list(self.pool.map(lambda part: part.softmax(dim=-1), x.chunk(2))))
