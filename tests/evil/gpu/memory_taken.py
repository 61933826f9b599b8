"""Takes all of the device's memory, so that nobody else can be timed (38, 49)."""

import torch

AGAINST, CAUGHT = "gpu/softmax", ("crashed", "judge_error", "timed_out")


class ModelNew(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.held = []

    def forward(self, x):
        while True:
            self.held.append(torch.empty(1 << 30, dtype=torch.uint8, device=x.device))
