"""How results get from forward into the judge's buffers.

The judge runs these same lines, on tensors of its own, to know what they cost.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree


def leaves_of(returned: Any) -> list[Any]:
    """What forward returned, as a flat list."""
    return [returned] if type(returned) is torch.Tensor else pytree.tree_leaves(returned)


def fit(leaves: list[Any], places: Sequence[torch.Tensor]) -> bool:
    """Whether these are as many tensors, of the same shapes and dtypes, as there are buffers.

    And of the same kind of device: a result left on the CPU is none for whoever computes on a GPU.
    """
    return len(leaves) == len(places) and all(
        isinstance(leaf, torch.Tensor)
        and leaf.shape == place.shape
        and leaf.dtype == place.dtype
        and leaf.device.type == place.device.type
        for leaf, place in zip(leaves, places, strict=True)
    )


def copy_all(leaves: list[Any], places: Sequence[torch.Tensor]) -> None:
    """Copy what fits."""
    with torch.no_grad():
        for leaf, place in zip(leaves, places, strict=True):
            _copy_into(place, leaf)


def _copy_into(place: torch.Tensor, leaf: torch.Tensor) -> None:
    """Copy on this thread alone where the memory is dense.

    torch would use all cores, and waiting for one that is busy elsewhere would look like work that
    was put off until now.
    """
    if (
        type(leaf) is torch.Tensor
        and place.device.type == "cpu"
        and leaf.is_contiguous()
        and not (leaf.is_conj() or leaf.is_neg())
    ):
        ctypes.memmove(place.data_ptr(), leaf.data_ptr(), place.nbytes)
    else:
        place.copy_(leaf)
