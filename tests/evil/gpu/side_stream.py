"""Launches its work on a stream that nobody waits for or times (30)."""

import torch

AGAINST, CAUGHT = "gpu/heavy", ("wrong_output", "timer_mismatch", "cheated")


class ModelNew(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.side = torch.cuda.Stream()

    def forward(self, x, y):
        self.side.wait_stream(torch.cuda.current_stream())
        made = torch.empty_like(x)
        with torch.cuda.stream(self.side):
            for _ in range(4):
                x = torch.tanh(x @ y)
            made.copy_(x)
        return made
