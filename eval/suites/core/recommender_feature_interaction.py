"""Every pair of a recommender's feature vectors is compared once, beside the dense part."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, fields: int) -> None:
        super().__init__()
        rows, columns = torch.tril_indices(fields + 1, fields + 1, offset=-1)
        self.register_buffer("rows", rows)
        self.register_buffer("columns", columns)

    def forward(self, dense: torch.Tensor, sparse: torch.Tensor) -> torch.Tensor:
        vectors = torch.cat([dense[:, None, :], sparse], dim=1)
        products = torch.bmm(vectors, vectors.transpose(1, 2))
        return torch.cat([dense, products[:, self.rows, self.columns]], dim=1)


BATCH, FIELDS, WIDTH = 4096, 26, 64


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(BATCH, WIDTH), torch.randn(BATCH, FIELDS, WIDTH)]


def get_init_inputs() -> list[int]:
    return [FIELDS]
