"""How results get from forward into the judge's buffers.

The judge runs these same lines, on tensors of its own, to know what they cost.
"""

import ctypes
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

# What is owed for each result of forward: a buffer, or None where it has to return None.
Place = torch.Tensor | None


def leaves_of(returned: Any) -> list[Any]:
    """What forward returned, as a flat list."""
    return [returned] if type(returned) is torch.Tensor else pytree.tree_leaves(returned)


def absent_from(returned: Any) -> tuple[int, ...]:
    """The places at which forward returned None."""
    return tuple(place for place, leaf in enumerate(leaves_of(returned)) if leaf is None)


def spread(tensors: Iterable[torch.Tensor], absent: Sequence[int]) -> list[Place]:
    """These with None put in at its places, which are in rising order."""
    places: list[Place] = list(tensors)
    for place in absent:
        places.insert(place, None)
    return places


def fit(leaves: list[Any], places: Sequence[Place]) -> bool:
    """Whether these are what is owed: a tensor of the shape and dtype for each buffer, else None.

    And of the same kind of device: a result left on the CPU is none for whoever computes on a GPU.
    """
    return len(leaves) == len(places) and all(
        leaf is None
        if place is None
        else isinstance(leaf, torch.Tensor)
        and leaf.shape == place.shape
        and leaf.dtype == place.dtype
        and leaf.device.type == place.device.type
        for leaf, place in zip(leaves, places, strict=True)
    )


class Owed:
    """What is owed of one call.

    Most ops return one plain tensor. What copying that takes to know is found out beforehand, since
    it counts beside an op of a few microseconds.

    Args:
        places: where the results go.
    """

    def __init__(self, places: Sequence[Place]) -> None:
        self.places = tuple(places)
        only = self.places[0] if len(self.places) == 1 else None
        self._plain = only is not None and only.is_cpu
        if only is not None and self._plain:
            self._shape, self._dtype = only.shape, only.dtype
            self._address, self._nbytes = only.data_ptr(), only.nbytes

    def take(self, returned: Any, written: Sequence[torch.Tensor] = ()) -> bool:
        """Copy out what forward returned, and the inputs that it has written to.

        False, and nothing is copied, where that is not what is owed.
        """
        if (
            self._plain
            and not written
            and type(returned) is torch.Tensor
            and returned.shape == self._shape
            and returned.dtype is self._dtype
            and returned.is_cpu
            and _is_dense(returned)
        ):
            ctypes.memmove(self._address, returned.data_ptr(), self._nbytes)
            return True
        leaves = [*leaves_of(returned), *written]
        if not fit(leaves, self.places):
            return False
        copy_all(leaves, self.places)
        return True


def where(leaf: torch.Tensor) -> list[Any]:
    """Where a result lies in this process, for a judge that reads it out while that is stopped."""
    return [leaf.data_ptr(), list(leaf.stride()), leaf.is_conj(), leaf.is_neg()]


def copy_all(leaves: list[Any], places: Sequence[Place]) -> None:
    """Copy what fits."""
    with torch.no_grad():
        for leaf, place in zip(leaves, places, strict=True):
            if place is not None:
                _copy_into(place, leaf)


def _copy_into(place: torch.Tensor, leaf: torch.Tensor) -> None:
    """Copy on this thread alone where the memory is dense.

    torch would use all cores, and waiting for one that is busy elsewhere would look like work that
    was put off until now.
    """
    if type(leaf) is torch.Tensor and place.device.type == "cpu" and _is_dense(leaf):
        ctypes.memmove(place.data_ptr(), leaf.data_ptr(), place.nbytes)
    else:
        place.copy_(leaf)


def _is_dense(leaf: torch.Tensor) -> bool:
    """Whether its bytes, as they lie in memory, are its elements in their order."""
    return leaf.is_contiguous() and not (leaf.is_conj() or leaf.is_neg())
