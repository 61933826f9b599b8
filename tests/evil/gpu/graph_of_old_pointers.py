"""Replays a graph for each address, whose output is a buffer of the graph's own (16, 27)."""

import torch

AGAINST, CAUGHT = "gpu/softmax", ("cheated", "wrong_output", "crashed", "contract_broken")


class ModelNew(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.graphs = {}

    def forward(self, x):
        key = x.data_ptr()
        if key not in self.graphs:
            torch.softmax(x, dim=-1)
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                made = torch.softmax(x, dim=-1)
            self.graphs[key] = graph, made
        graph, made = self.graphs[key]
        graph.replay()
        return made
