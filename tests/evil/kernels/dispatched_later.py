"""Returns a wrapper subclass without memory, which works when it is dispatched on (7)."""

import torch
from torch.utils import _pytree as pytree

AGAINST, CAUGHT = "softmax", ("contract_broken", "plain torch.Tensor")


class Wrapper(torch.Tensor):
    @staticmethod
    def __new__(cls, x):
        return torch.Tensor._make_wrapper_subclass(cls, x.shape, dtype=x.dtype)

    def __init__(self, x):
        self.x = x

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        made = pytree.tree_map_only(cls, lambda wrapper: wrapper.x.softmax(dim=-1), args)
        return function(*made, **(kwargs or {}))


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return Wrapper(x)
