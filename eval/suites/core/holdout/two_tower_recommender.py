"""A user's tower and an item's, each an embedding and an MLP; unit vectors, their product."""

import torch
import torch.nn.functional as F
from torch import nn


class Tower(nn.Module):
    def __init__(self, rows: int, width: int, dense: int, hidden: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(rows, width)
        self.fc1 = nn.Linear(width + dense, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, ids: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
        x = torch.cat([self.embed(ids), dense], dim=-1)
        return F.normalize(self.fc2(F.relu(self.fc1(x))), dim=-1)


class Model(nn.Module):
    def __init__(self, users: int, items: int, width: int, dense: int, hidden: int) -> None:
        super().__init__()
        self.user = Tower(users, width, dense, hidden)
        self.item = Tower(items, width, dense, hidden)
        self.log_scale = nn.Parameter(torch.tensor(2.0))

    def forward(
        self, user: torch.Tensor, about: torch.Tensor, item: torch.Tensor, of: torch.Tensor
    ) -> torch.Tensor:
        score = (self.user(user, about) * self.item(item, of)).sum(dim=-1)
        return torch.sigmoid(score * self.log_scale.exp())


USERS, ITEMS, WIDTH, DENSE, HIDDEN, BATCH = 50000, 20000, 64, 40, 256, 8192


def get_inputs() -> list[torch.Tensor]:
    about, of = torch.randn(BATCH, DENSE), torch.randn(BATCH, DENSE)
    return [torch.randint(0, USERS, (BATCH,)), about, torch.randint(0, ITEMS, (BATCH,)), of]


def get_init_inputs() -> list[int]:
    return [USERS, ITEMS, WIDTH, DENSE, HIDDEN]
