"""Reading another process's memory, by process_vm_readv(2). No torch here."""

import ctypes
import os
from dataclasses import dataclass

# Of one call: IOV_MAX of Linux, and less than its MAX_RW_COUNT.
MOST_PIECES, MOST_BYTES = 1024, 1 << 30

_libc = ctypes.CDLL(None, use_errno=True)
_libc.process_vm_readv.restype = ctypes.c_ssize_t
_libc.process_vm_readv.argtypes = [
    ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong,
]  # fmt: skip


class Unreadable(Exception):
    """Nothing of the kind is in that process, or it is not for this one to see."""


@dataclass(frozen=True)
class Witness:
    """Bytes that a runner says it has, before any untrusted code is in it.

    Args:
        address: where.
        held: the bytes, as hexadecimal digits.
    """

    address: int
    held: str

    def seen_in(self, process: int) -> bool:
        """Whether this process may read that one's memory."""
        there = ctypes.create_string_buffer(len(self.held) // 2)
        ours = (ctypes.c_uint64 * 2)(ctypes.addressof(there), len(there))
        theirs = (ctypes.c_uint64 * 2)(self.address, len(there))
        try:
            fetch(process, ctypes.addressof(ours), ctypes.addressof(theirs), 1, len(there))
        except Unreadable:
            return False
        return there.raw.hex() == self.held


def fetch(process: int, ours: int, theirs: int, count: int, nbytes: int) -> None:
    """Copy pieces of another process's memory into some of this one's.

    Args:
        process: whose.
        ours: address of `count` of C's `struct iovec`: where the pieces go.
        theirs: address of as many: where they are.
        count: no more than `MOST_PIECES`.
        nbytes: of all of them, no more than `MOST_BYTES`.

    Raises:
        Unreadable: not all of it could be read.
    """
    done = _libc.process_vm_readv(process, ours, count, theirs, count, 0)
    if done < 0:
        raise Unreadable(f"its memory can't be read: {os.strerror(ctypes.get_errno())}")
    if done != nbytes:
        raise Unreadable("its memory ends before what should be in it")
