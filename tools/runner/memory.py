"""Tensors in shared memory: a bundle is one memory file that holds several, laid out as declared.

The judge makes a bundle, keeps it writable for itself and seals it, so that a runner can map it
only for reading; or maps it copy-on-write, where the op under test is one that changes its inputs.
Nothing travels but bytes.
"""

import ctypes
import fcntl
import mmap
import os
import weakref
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

ALIGNMENT = 4096
# Elements; a multiple of every vector's width, so that what was aligned stays so.
MOST_SHIFT = 64
# The kernel's numbers; Python 3.11's fcntl does not name the last one.
F_SEAL_FUTURE_WRITE = 0x0010
MADV_DONTNEED = 4

Access = Literal["read", "write", "private"]

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
MAP_FAILED = ctypes.c_void_p(-1).value


@dataclass(frozen=True)
class Layout:
    """One tensor's place in a bundle: `span` elements from byte `offset`, through `strides`."""

    shape: tuple[int, ...]
    dtype: str
    strides: tuple[int, ...]
    offset: int
    span: int

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as torch's object."""
        found: torch.dtype = getattr(torch, self.dtype)
        return found

    @property
    def nbytes(self) -> int:
        """Bytes of storage."""
        return self.span * self.torch_dtype.itemsize

    def to_json(self) -> dict[str, Any]:
        """As a message carries it."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Layout":
        """Back from a message."""
        return cls(
            tuple(data["shape"]),
            data["dtype"],
            tuple(data["strides"]),
            data["offset"],
            data["span"],
        )


def lay_out(tensors: Sequence[torch.Tensor], dense: bool = False) -> tuple[Layout, ...]:
    """Places for tensors like these, each on pages of its own; `dense` makes all of them row-major.

    A tensor that begins some elements into its storage begins as far from its page's border.
    """
    layouts = []
    page = 0
    for tensor in tensors:
        strides = tuple(int(s) for s in tensor.stride())
        shift = int(tensor.storage_offset()) % MOST_SHIFT
        if dense:
            strides = tuple(torch.empty(tensor.shape, device="meta").stride())
            shift = 0
        span = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, strides, strict=True))
        span = span if tensor.numel() else 0
        offset = page + shift * tensor.element_size()
        layout = Layout(
            tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), strides, offset, span
        )
        layouts.append(layout)
        page = _pages(layout.offset + layout.nbytes)
    return tuple(layouts)


def total_bytes(layouts: Sequence[Layout]) -> int:
    """Size of a memory file that holds these."""
    return max((_pages(x.offset + x.nbytes) for x in layouts), default=0) or 1


def _pages(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


class Mapping:
    """A bundle mapped into this process. `tensors` stay valid until `close`.

    Args:
        descriptor: the memory file; it may be closed afterwards.
        layouts: what lies in it.
        access: `read`, `write` (shared with everyone) or `private` (writes stay in this process).
    """

    def __init__(self, descriptor: int, layouts: Sequence[Layout], access: Access) -> None:
        self.size = total_bytes(layouts)
        protection = mmap.PROT_READ if access == "read" else mmap.PROT_READ | mmap.PROT_WRITE
        sharing = mmap.MAP_PRIVATE if access == "private" else mmap.MAP_SHARED
        address = _libc.mmap(None, self.size, protection, sharing, descriptor, 0)
        if address == MAP_FAILED:
            number = ctypes.get_errno()
            raise OSError(number, f"cannot map {self.size} bytes: {os.strerror(number)}")
        self.address = int(address)
        self.access = access
        self._blocks: list[Any] = []
        self.tensors = tuple(self._tensor(layout) for layout in layouts)

    def _tensor(self, layout: Layout) -> torch.Tensor:
        if layout.span == 0:
            return torch.empty(layout.shape, dtype=layout.torch_dtype)
        block = (ctypes.c_char * layout.nbytes).from_address(self.address + layout.offset)
        self._blocks.append(block)
        flat = torch.frombuffer(block, dtype=layout.torch_dtype, count=layout.span)
        return flat.as_strided(layout.shape, layout.strides)

    def contains(self, address: int) -> bool:
        """Whether an address lies in this mapping."""
        return self.address <= address < self.address + self.size

    def restore(self) -> None:
        """Drop this process's own writes to a private mapping."""
        if self.access == "private":
            _libc.madvise(self.address, self.size, MADV_DONTNEED)

    def retire(self) -> None:
        """Unmap as soon as no tensor over this memory is left: others may hold some."""
        left = len(self._blocks)

        def one_less(address: int, size: int) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                _libc.munmap(address, size)

        for block in self._blocks:
            weakref.finalize(block, one_less, self.address, self.size).atexit = False
        if not self._blocks:
            _libc.munmap(self.address, self.size)
        self.tensors, self._blocks, self.address = (), [], 0

    def close(self) -> None:
        """Unmap; the tensors must not be used afterwards."""
        self._blocks.clear()
        if self.address:
            self.tensors = ()
            _libc.munmap(self.address, self.size)
            self.address = 0


class Bundle:
    """A memory file that the judge owns, mapped writable here.

    Args:
        name: what /proc shows; carries no meaning.
        layouts: what lies in it.
        sealed: nobody who gets the descriptor can ever map it for writing.
    """

    def __init__(self, name: str, layouts: Sequence[Layout], sealed: bool) -> None:
        self.layouts = tuple(layouts)
        self.descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.descriptor, total_bytes(layouts))
        self.mapping = Mapping(self.descriptor, layouts, "write")
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
        if sealed:
            seals |= F_SEAL_FUTURE_WRITE
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, seals | fcntl.F_SEAL_SEAL)

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """Views of the memory, in the order of the layouts."""
        return self.mapping.tensors

    def flat(self) -> torch.Tensor:
        """All of it as bytes."""
        block = (ctypes.c_char * self.nbytes).from_address(self.mapping.address)
        return torch.frombuffer(block, dtype=torch.uint8)

    @property
    def nbytes(self) -> int:
        """Size of the memory file."""
        return self.mapping.size

    def fill(self, values: Sequence[torch.Tensor]) -> None:
        """Copy values in; each has the shape of its place."""
        for place, value in zip(self.tensors, values, strict=True):
            collapse(place, place).copy_(collapse(value, place))

    def close(self) -> None:
        """Unmap and close; twice is fine."""
        self.mapping.close()
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def collapse(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A view in which every dimension that `like` repeats is kept once.

    torch refuses to write through a stride of 0.
    """
    for dim, stride in enumerate(like.stride()):
        if stride == 0 and tensor.shape[dim] > 1:
            tensor = tensor.narrow(dim, 0, 1)
    return tensor
