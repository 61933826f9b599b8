"""Returns a tensor subclass that computes only when somebody looks (7)."""

import torch

AGAINST, CAUGHT = "rows", ("contract_broken", "plain torch.Tensor")


class Lazy(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        return super().__torch_function__(function, types, args, kwargs or {})


class ModelNew(torch.nn.Module):
    def __init__(self, features):
        super().__init__()
        self.linear = torch.nn.Linear(features, features)

    def forward(self, x):
        return torch.softmax(self.linear(x), -1).as_subclass(Lazy)
