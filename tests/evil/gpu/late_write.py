"""Returns at once, and has another stream write the answer once a clock has stopped (30, 39)."""

import torch

AGAINST, CAUGHT = "gpu/softmax", ("wrong_output", "timer_mismatch", "cheated")


class ModelNew(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.side = torch.cuda.Stream()

    def forward(self, x):
        made = torch.empty_like(x)
        self.side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.side):
            torch.cuda._sleep(20_000_000)
            made.copy_(torch.softmax(x, dim=-1))
        return made
