"""Results read out of a runner's memory while it is stopped.

A runner that copies its own results out may compute meanwhile, when the clock has stopped. One that
is stopped computes nothing; so the judge fetches them itself, from where the reply says that they
lie. That is believed no more than anything else a runner says: what is there is compared like any
result, and where nothing is, the kernel says so.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy
import torch

from tools.judge.peek import MOST_BYTES, MOST_PIECES, Unreadable, fetch

# Elements with gaps between them are read through the gaps, if that is no more than so many times
# what is wanted.
MOST_GAPS = 16
# Beyond any address of a process.
ADDRESSES = 1 << 62
ASTRAY = "a reply does not say where its results are"

Addresses = numpy.ndarray[Any, numpy.dtype[numpy.int64]]


def read_out(process: int, told: Any, places: Sequence[torch.Tensor]) -> None:
    """Copy results into buffers.

    Args:
        process: the runner, stopped.
        told: for each result what `handover.where` says.
        places: dense buffers of the results' shapes and dtypes.

    Raises:
        Unreadable: nothing of the kind is there.
    """
    if not isinstance(told, list) or len(told) != len(places):
        raise Unreadable(ASTRAY)
    for one, place in zip(told, places, strict=True):
        address, strides, conjugate, negative = _checked(one, place.dim())
        rows = Rows(tuple(place.shape), strides)
        if place.numel() == 0:
            continue
        if rows.are_dense and not (conjugate or negative):
            _fetch_rows(process, place.data_ptr(), address, rows, place.itemsize)
            continue
        read = torch.empty(rows.count * rows.reach, dtype=place.dtype)
        _fetch_rows(process, read.data_ptr(), address, rows, place.itemsize)
        found = rows.lying_in(read)
        found = found.conj() if conjugate else found
        place.copy_(-found if negative else found)


def _checked(told: Any, dimensions: int) -> tuple[int, tuple[int, ...], bool, bool]:
    match told:
        case [int(address), [*strides], bool(conjugate), bool(negative)] if (
            0 <= address < ADDRESSES
            and len(strides) == dimensions
            and all(isinstance(one, int) and 0 <= one < ADDRESSES for one in strides)
        ):
            return address, tuple(strides), conjugate, negative
    raise Unreadable(ASTRAY)


class Rows:
    """A strided tensor as it lies in memory: `count` rows, each of `reach` elements, to be read.

    Dimensions are taken in the order in which they lie there, and those that are repeated once. As
    many of the last as lie close together make a row.
    """

    def __init__(self, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
        self._shape = shape
        self._order = sorted(range(len(shape)), key=lambda dim: -strides[dim])
        self._sizes = [shape[dim] if strides[dim] else 1 for dim in self._order]
        self._steps = [strides[dim] for dim in self._order]
        self._outer = len(self._order)
        self.reach = wanted = 1
        while self._outer:
            size, step = self._sizes[self._outer - 1], self._steps[self._outer - 1]
            wanted *= size
            reach = self.reach + (size - 1) * step
            if reach > MOST_GAPS * wanted:
                break
            self.reach = reach
            self._outer -= 1
        self.count = math.prod(self._sizes[: self._outer])

    @property
    def are_dense(self) -> bool:
        """Whether what is read is the tensor row by row, with no gaps."""
        long = [k for k, dim in enumerate(self._order) if self._shape[dim] > 1]
        sizes, in_order = [self._sizes[k] for k in long], [self._order[k] for k in long]
        steps = [math.prod(sizes[k + 1 :]) for k in range(len(sizes))]
        return (
            in_order == sorted(in_order)
            and sizes == [self._shape[dim] for dim in in_order]
            and steps == [self._steps[k] for k in long]
        )

    def begins(self) -> Addresses:
        """Where each row begins, in elements from the first."""
        found = numpy.zeros(1, dtype=numpy.int64)
        for size, step in zip(self._sizes[: self._outer], self._steps, strict=False):
            found = (found[:, None] + numpy.arange(size, dtype=numpy.int64) * step).reshape(-1)
        return found

    def lying_in(self, read: torch.Tensor) -> torch.Tensor:
        """The tensor, as a view of the rows that were read one after the other."""
        outer = self._sizes[: self._outer]
        steps = [self.reach * math.prod(outer[k + 1 :]) for k in range(len(outer))]
        lying = read.as_strided(self._sizes, [*steps, *self._steps[self._outer :]])
        places = [self._order.index(dim) for dim in range(len(self._shape))]
        return lying.permute(places).expand(self._shape)


def _fetch_rows(process: int, to: int, address: int, rows: Rows, itemsize: int) -> None:
    """Copy rows to an address of this process, one after the other.

    Raises:
        Unreadable: not all of it could be read.
    """
    length = rows.reach * itemsize
    here = to + numpy.arange(rows.count, dtype=numpy.int64) * length
    there = address + rows.begins() * itemsize
    for done in range(0, length, MOST_BYTES):
        size = min(MOST_BYTES, length - done)
        at_once = min(MOST_PIECES, MOST_BYTES // size)
        for first in range(0, rows.count, at_once):
            ours, theirs = (
                _vectors(side[first : first + at_once] + done, size) for side in (here, there)
            )
            count = len(ours)
            fetch(process, ours.ctypes.data, theirs.ctypes.data, count, count * size)


def _vectors(addresses: Addresses, nbytes: int) -> "numpy.ndarray[Any, Any]":
    """As C's `struct iovec` has it."""
    found = numpy.empty((len(addresses), 2), dtype=numpy.uint64)
    found[:, 0], found[:, 1] = addresses, nbytes
    return found
