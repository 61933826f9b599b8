"""Replays a CUDA graph over the inputs of its first call, whatever it is given later (27)."""

import torch

AGAINST, CAUGHT = "gpu/softmax", ("wrong_output", "cheated")


class ModelNew(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.graph = None

    def forward(self, x):
        if self.graph is None:
            self.input = x.clone()
            torch.softmax(self.input, dim=-1)
            torch.cuda.synchronize()
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.output = torch.softmax(self.input, dim=-1)
        self.graph.replay()
        return self.output.clone()
