"""Counts the words and multiplies the counts with the table."""

import torch

AGAINST = "bag"


class ModelNew(torch.nn.Module):
    def __init__(self, words, features):
        super().__init__()
        self.table = torch.nn.Embedding(words, features)

    def forward(self, words):
        counts = torch.zeros(words.shape[0], self.table.num_embeddings)
        counts.scatter_add_(1, words, torch.ones(words.shape))
        return (counts @ self.table.weight) / words.shape[1]
