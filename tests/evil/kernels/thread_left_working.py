"""Returns at once and has a thread fill the output a little later (31, 39)."""

import threading
import time

import torch

AGAINST, CAUGHT = "softmax", ("wrong_output",)


class ModelNew(torch.nn.Module):
    def forward(self, x):
        made = torch.empty_like(x)

        def fill():
            time.sleep(0.02)
            made.copy_(torch.softmax(x, dim=-1))

        threading.Thread(target=fill).start()
        return made
