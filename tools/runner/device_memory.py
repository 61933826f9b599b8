"""Tensors in a GPU's memory that two processes share: what `memory` is on the CPU, on a device.

The judge allocates through the driver's virtual memory interface and exports a file descriptor,
which travels over the channel as any other does. Unlike the older handles of CUDA IPC, that works
between users, and between namespaces of processes and of IPC, which runners have of their own.
"""

import ctypes
import functools
import os
import time
import weakref
from collections.abc import Sequence
from typing import Any, Protocol

import torch

from tools.runner.memory import Access, Layout, collapse, total_bytes

PINNED, FILE_DESCRIPTOR, ON_DEVICE = 1, 1, 1
READ, READ_WRITE = 1, 3


# Seconds to wait, one after the other, for memory that another process is giving back.
FREED_AFTER_S = (0.0, 0.5, 1.0, 2.0, 4.0)


class DriverError(RuntimeError):
    """The CUDA driver refused a call; the message names both."""


class Location(ctypes.Structure):
    """`CUmemLocation`."""

    _fields_ = [("type", ctypes.c_int), ("id", ctypes.c_int)]


class AllocationFlags(ctypes.Structure):
    """The struct within `CUmemAllocationProp`."""

    _fields_ = [
        ("compression", ctypes.c_ubyte), ("gpu_direct", ctypes.c_ubyte),
        ("usage", ctypes.c_ushort), ("reserved", ctypes.c_ubyte * 4),
    ]  # fmt: skip


class AllocationProperties(ctypes.Structure):
    """`CUmemAllocationProp`."""

    _fields_ = [
        ("type", ctypes.c_int), ("handle_types", ctypes.c_int), ("location", Location),
        ("windows", ctypes.c_void_p), ("flags", AllocationFlags),
    ]  # fmt: skip


class AccessDescription(ctypes.Structure):
    """`CUmemAccessDesc`."""

    _fields_ = [("location", Location), ("flags", ctypes.c_int)]


def allocation_on(device: int) -> AllocationProperties:
    """Plain memory of a device, to be exported as a file descriptor."""
    return AllocationProperties(PINNED, FILE_DESCRIPTOR, Location(ON_DEVICE, device))


def rounded(nbytes: int, granularity: int) -> int:
    """The next multiple, at least one: the driver maps nothing smaller."""
    return max(1, -(-nbytes // granularity)) * granularity


class Driver(Protocol):
    """What is asked of a device's driver. Handles and addresses are plain integers."""

    def granularity(self) -> int:
        """Sizes must be multiples of this."""

    def create(self, size: int) -> int:
        """Allocate; the handle."""

    def export(self, handle: int) -> int:
        """A file descriptor by which another process finds the allocation."""

    def find(self, descriptor: int) -> int:
        """The handle of an allocation that another process exported."""

    def map(self, handle: int, size: int, writable: bool) -> int:
        """The address at which this process sees it; what is not `writable` may be so all the same.

        Where the driver has no read-only mappings, the judge's own comparison must do.
        """

    def unmap(self, address: int, size: int) -> None:
        """Undo `map`."""

    def release(self, handle: int) -> None:
        """Give a handle back; the memory lives as long as somebody maps it."""

    def tensor(self, address: int, nbytes: int, owner: object) -> torch.Tensor:
        """These bytes as a tensor of uint8, which keeps `owner` alive."""


class CudaDriver:
    """The driver of the current device, by its C interface: cuda-python need not be installed.

    Raises:
        DriverError: there is no driver.
    """

    def __init__(self) -> None:
        torch.cuda.init()  # type: ignore[no-untyped-call]
        # The primary context becomes current with the first allocation.
        torch.zeros(1, device="cuda")
        self._device = torch.cuda.current_device()
        try:
            self._library = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise DriverError(f"the CUDA driver was not found: {error}") from error

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code:
            text = ctypes.c_char_p()
            self._library.cuGetErrorName(code, ctypes.byref(text))
            raise DriverError(f"{name}: {(text.value or b'unknown error').decode()} ({code})")

    def granularity(self) -> int:
        """As the protocol has it."""
        found = ctypes.c_size_t()
        properties = allocation_on(self._device)
        self._call(
            "cuMemGetAllocationGranularity", ctypes.byref(found), ctypes.byref(properties), 0
        )
        return found.value

    def create(self, size: int) -> int:
        """As the protocol has it."""
        handle, properties = ctypes.c_ulonglong(), allocation_on(self._device)
        arguments = (ctypes.c_size_t(size), ctypes.byref(properties), ctypes.c_ulonglong(0))
        for wait in (*FREED_AFTER_S, None):
            try:
                self._call("cuMemCreate", ctypes.byref(handle), *arguments)
                break
            except DriverError:
                if wait is None:
                    raise
                # torch keeps what it has freed, and a process that was killed gives back slowly.
                torch.cuda.empty_cache()
                time.sleep(wait)
        return handle.value

    def export(self, handle: int) -> int:
        """As the protocol has it."""
        descriptor = ctypes.c_int(-1)
        self._call(
            "cuMemExportToShareableHandle", ctypes.byref(descriptor), ctypes.c_ulonglong(handle),
            FILE_DESCRIPTOR, ctypes.c_ulonglong(0),
        )  # fmt: skip
        os.set_inheritable(descriptor.value, False)
        return descriptor.value

    def find(self, descriptor: int) -> int:
        """As the protocol has it."""
        handle = ctypes.c_ulonglong()
        self._call(
            "cuMemImportFromShareableHandle", ctypes.byref(handle), ctypes.c_void_p(descriptor),
            FILE_DESCRIPTOR,
        )  # fmt: skip
        return handle.value

    def map(self, handle: int, size: int, writable: bool) -> int:
        """As the protocol has it."""
        address, length = ctypes.c_ulonglong(), ctypes.c_size_t(size)
        zero = ctypes.c_ulonglong(0)
        self._call("cuMemAddressReserve", ctypes.byref(address), length, ctypes.c_size_t(0), zero,
                   zero)  # fmt: skip
        try:
            self._call("cuMemMap", address, length, ctypes.c_size_t(0), ctypes.c_ulonglong(handle),
                       zero)  # fmt: skip
        except DriverError:
            self._call("cuMemAddressFree", address, length)
            raise
        try:
            self._allow(address, length, READ_WRITE if writable else READ)
        except DriverError:
            self._allow(address, length, READ_WRITE)
        return address.value

    def _allow(self, address: ctypes.c_ulonglong, size: ctypes.c_size_t, flags: int) -> None:
        access = AccessDescription(Location(ON_DEVICE, self._device), flags)
        self._call("cuMemSetAccess", address, size, ctypes.byref(access), ctypes.c_size_t(1))

    def unmap(self, address: int, size: int) -> None:
        """As the protocol has it."""
        # What is still at work there would be cut off from it.
        torch.cuda.synchronize(self._device)
        place, length = ctypes.c_ulonglong(address), ctypes.c_size_t(size)
        self._call("cuMemUnmap", place, length)
        self._call("cuMemAddressFree", place, length)

    def release(self, handle: int) -> None:
        """As the protocol has it."""
        self._call("cuMemRelease", ctypes.c_ulonglong(handle))

    def tensor(self, address: int, nbytes: int, owner: object) -> torch.Tensor:
        """As the protocol has it."""
        return torch.as_tensor(_Span(address, nbytes, owner), device=f"cuda:{self._device}")


class _Span:
    """Bytes of a device in the form that torch takes without copying; torch keeps this object."""

    def __init__(self, address: int, nbytes: int, owner: object) -> None:
        self.owner = owner
        self.__cuda_array_interface__ = {
            "shape": (nbytes,), "typestr": "|u1", "data": (address, False), "version": 2,
        }  # fmt: skip


@functools.cache
def cuda_driver() -> Driver:
    """This process's driver.

    Raises:
        DriverError: there is none.
    """
    return CudaDriver()


class _Held:
    """A mapping's address: unmapped when nothing refers to it any more."""

    def __init__(self, driver: Driver, address: int, size: int) -> None:
        self.address = address
        # At exit the driver may be gone before this is.
        self.release = weakref.finalize(self, driver.unmap, address, size)
        self.release.atexit = False


class DeviceMapping:
    """A bundle of a device mapped into this process; the same to its user as `memory.Mapping`.

    A `private` mapping is a copy, since no device copies on write: `restore` brings the judge's
    values back, and must be called before they are read.
    """

    def __init__(
        self, descriptor: int, layouts: Sequence[Layout], access: Access, driver: Driver
    ) -> None:
        self.size = rounded(total_bytes(layouts), driver.granularity())
        self.access = access
        handle = driver.find(descriptor)
        try:
            self._open(driver, handle, layouts)
        finally:
            driver.release(handle)

    def _open(self, driver: Driver, handle: int, layouts: Sequence[Layout]) -> None:
        address = driver.map(handle, self.size, self.access == "write")
        held = _Held(driver, address, self.size)
        self._held: _Held | None = held
        self.address = address
        shared = tuple(view(driver, held, layout) for layout in layouts)
        self._shared = shared if self.access == "private" else ()
        self.tensors = tuple(map(_twin, shared)) if self.access == "private" else shared

    def contains(self, address: int) -> bool:
        """Whether an address lies in what forward was given."""
        if self.access != "private":
            return self.address <= address < self.address + self.size
        return any(0 <= address - t.data_ptr() < t.untyped_storage().nbytes() for t in self.tensors)

    def restore(self) -> None:
        """Bring a private copy to what the judge's memory holds."""
        for own, shared in zip(self.tensors, self._shared, strict=False):
            collapse(own, own).copy_(collapse(shared, own))

    def retire(self) -> None:
        """Unmap as soon as no tensor over this memory is left: others may hold some."""
        self.tensors, self._shared, self._held = (), (), None

    def close(self) -> None:
        """Unmap; the tensors must not be used afterwards."""
        held = self._held
        self.retire()
        if held is not None:
            held.release()


class DeviceBundle:
    """Memory of a device that the judge owns, mapped writable here; as `memory.Bundle`.

    Args:
        layouts: what lies in it.
        driver: of the device.
    """

    def __init__(self, layouts: Sequence[Layout], driver: Driver) -> None:
        self.layouts = tuple(layouts)
        self.nbytes = rounded(total_bytes(layouts), driver.granularity())
        handle = driver.create(self.nbytes)
        try:
            self.descriptor = driver.export(handle)
            address = driver.map(handle, self.nbytes, writable=True)
        finally:
            driver.release(handle)
        held = _Held(driver, address, self.nbytes)
        self._held: _Held | None = held
        self.tensors = tuple(view(driver, held, layout) for layout in layouts)
        self._flat = driver.tensor(address, self.nbytes, held)

    def flat(self) -> torch.Tensor:
        """All of it as bytes."""
        return self._flat

    def fill(self, values: Sequence[torch.Tensor]) -> None:
        """Copy values in; each has the shape of its place."""
        for place, value in zip(self.tensors, values, strict=True):
            collapse(place, place).copy_(collapse(value, place))

    def close(self) -> None:
        """Unmap and close; twice is fine."""
        held, self._held = self._held, None
        self.tensors, self._flat = (), torch.empty(0, dtype=torch.uint8)
        if held is not None:
            held.release()
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def view(driver: Driver, held: _Held, layout: Layout) -> torch.Tensor:
    """One tensor of a mapping, with a storage of its own that keeps the mapping alive."""
    if layout.span == 0:
        like = driver.tensor(held.address, 1, held)
        return torch.empty(layout.shape, dtype=layout.torch_dtype, device=like.device)
    flat = driver.tensor(held.address + layout.offset, layout.nbytes, held)
    return flat.view(layout.torch_dtype).as_strided(layout.shape, layout.strides)


def _twin(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(
        tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device
    )
