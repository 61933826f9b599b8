"""Memory that the judge owns and runners map: sets of inputs, which are sealed, and output buffers.

What is in the buffers is the one thing that a runner is believed; so it is poisoned before a call.
"""

from collections.abc import Sequence
from typing import Any

import torch

from tools.runner.device_memory import DeviceBundle, cuda_driver
from tools.runner.handover import Place
from tools.runner.memory import Bundle, Layout, lay_out
from tools.runner.values import Encoded, encode

# All ones is NaN in every floating type; the second pattern is an ordinary number in all of them.
POISONS = (0xFF, 0x5A)
# Conversions to bfloat16, and GPUs, make a NaN of all ones; a run of this is a row of numbers so
# odd that no result holds it.
MARK, MARKED_BYTES = 0xA5, 8
# How many such runs a floating output gets.
SPARSE_POISON = 32
CPU = torch.device("cpu")


def shared_memory(
    name: str, layouts: Sequence[Layout], sealed: bool, device: torch.device
) -> Bundle | DeviceBundle:
    """Memory that the judge owns and a runner maps, where the tensors are."""
    if device.type == "cpu":
        return Bundle(name, layouts, sealed)
    return DeviceBundle(layouts, cuda_driver())


class InputSets:
    """Several sets of arguments of forward, in sealed shared memory that every lane may map.

    Args:
        sets: the arguments, all of the same shapes.
        private: lanes map them copy-on-write, for what may write to its inputs.
        written: places of those that the op writes to, which come back with its outputs.
    """

    def __init__(
        self, sets: Sequence[tuple[Any, ...]], private: bool, written: Sequence[int] = ()
    ) -> None:
        self.private = private
        self.written = tuple(written)
        self.bundles: list[Bundle | DeviceBundle] = []
        self.arguments: list[Encoded] = []
        for values in sets:
            tensors: list[torch.Tensor] = []
            self.arguments.append(encode(values, tensors))
            device = tensors[0].device if tensors else CPU
            bundle = shared_memory("inputs", lay_out(tensors), True, device)
            bundle.fill(tensors)
            self.bundles.append(bundle)

    def rewrite(self, index: int, values: tuple[Any, ...]) -> bool:
        """Put other values into a set's buffers.

        False where arguments that are no tensors differ, so that the set must be bound anew.
        """
        tensors: list[torch.Tensor] = []
        arguments = encode(values, tensors)
        self.bundles[index].fill(tensors)
        same = bool(arguments == self.arguments[index])
        self.arguments[index] = arguments
        return same

    def redraw(self, index: int, values: tuple[Any, ...]) -> None:
        """Put other tensors into a set's buffers, unless what is no tensor differs too."""
        if encode(values, []) == self.arguments[index]:
            self.rewrite(index, values)

    def holds(self, index: int, values: tuple[Any, ...]) -> bool:
        """Whether a set's buffers still hold these values, bit for bit."""
        tensors: list[torch.Tensor] = []
        encode(values, tensors)
        pairs = zip(self.bundles[index].tensors, tensors, strict=True)
        return all(same_bits(place, value) for place, value in pairs)

    def close(self) -> None:
        """Free the memory."""
        for bundle in self.bundles:
            bundle.close()


class Buffers:
    """Output buffers for the results of several calls, side by side in one memory file.

    Args:
        like: the outputs of one call, whose shapes and dtypes the buffers take; None where it
            returns None.
        groups: how many calls.
        device: where they are.

    Attributes:
        absent: the places of these None.
    """

    def __init__(self, like: Sequence[Place], groups: int, device: torch.device = CPU) -> None:
        self.groups = groups
        self.absent = tuple(place for place, one in enumerate(like) if one is None)
        layouts = lay_out([one for one in like if one is not None] * groups, dense=True)
        self.bundle = shared_memory("outputs", layouts, False, device)
        self._bytes = self.bundle.flat()
        places: dict[int, list[torch.Tensor]] = {}
        for layout in self.bundle.layouts:
            if layout.span and layout.torch_dtype.is_floating_point:
                size = layout.torch_dtype.itemsize
                run = min(layout.span, max(1, MARKED_BYTES // size))
                starts = torch.linspace(
                    0, layout.span - run, min(SPARSE_POISON, layout.span), dtype=torch.float64
                ).long()
                rows = layout.offset + starts[:, None] * size + torch.arange(run * size)
                places.setdefault(run * size, []).append(rows)
        self._sparse = [torch.cat(rows).to(device) for rows in places.values()]

    def of(self, group: int) -> tuple[torch.Tensor, ...]:
        """The judge's view of one call's outputs."""
        size = len(self.bundle.tensors) // self.groups
        return self.bundle.tensors[group * size : (group + 1) * size]

    def poison(self, pattern: int) -> None:
        """Overwrite everything, so that no earlier call's output passes for this one's."""
        self._bytes.fill_(POISONS[pattern % len(POISONS)])

    def poison_sparsely(self) -> None:
        """Overwrite a few short runs of every floating output, from end to end."""
        for rows in self._sparse:
            self._bytes[rows] = MARK

    def poison_left(self) -> bool:
        """Whether a run of these is still there as a whole."""
        return any(bool((self._bytes[rows] == MARK).all(dim=1).any()) for rows in self._sparse)

    def close(self) -> None:
        """Free the memory."""
        self._sparse.clear()
        self._bytes = torch.empty(0, dtype=torch.uint8)
        self.bundle.close()


def same_bits(place: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether two tensors of one shape and dtype hold the same bits, NaN or not."""
    kinds = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    if value.is_complex():
        place, value = torch.view_as_real(place), torch.view_as_real(value)
    kind = kinds[value.element_size()]
    return torch.equal(place.view(kind), value.detach().view(kind))
