"""Memory shared by descriptor, over a stand-in driver whose device is a memory file.

What a driver's calls look like is held against NVIDIA's own bindings, where they are installed.
"""

import ctypes
import gc
import mmap
import os

import pytest
import torch

from tools.runner.device_memory import (
    READ,
    AccessDescription,
    DeviceBundle,
    DeviceMapping,
    Location,
    allocation_on,
    rounded,
)
from tools.runner.memory import lay_out

GRANULARITY = 2 << 20


class Files:
    """A driver whose allocations are memory files; counts what is mapped."""

    def __init__(self):
        self.mapped = {}

    def granularity(self):
        return GRANULARITY

    def create(self, size):
        handle = os.memfd_create("allocation")
        os.ftruncate(handle, size)
        return handle

    def export(self, handle):
        return os.dup(handle)

    def find(self, descriptor):
        return os.dup(descriptor)

    def map(self, handle, size, writable):
        view = mmap.mmap(handle, size)
        address = ctypes.addressof(ctypes.c_char.from_buffer(view))
        self.mapped[address] = view
        return address

    def unmap(self, address, size):
        assert len(self.mapped.pop(address)) == size

    def release(self, handle):
        os.close(handle)

    def tensor(self, address, nbytes, owner):
        block = (ctypes.c_ubyte * nbytes).from_address(address)
        block.owner = owner
        return torch.frombuffer(block, dtype=torch.uint8)


@pytest.fixture
def driver():
    files = Files()
    yield files
    gc.collect()
    assert not files.mapped, "something is still mapped"


def test_what_the_judge_writes_the_runner_reads(driver):
    given = [torch.randn(3, 5).T, torch.arange(7), torch.empty(0, 4)]
    bundle = DeviceBundle(lay_out(given), driver)
    bundle.fill(given)
    mapping = DeviceMapping(bundle.descriptor, bundle.layouts, "read", driver)
    assert all(map(torch.equal, mapping.tensors, given))
    assert mapping.tensors[0].stride() == given[0].stride()
    bundle.tensors[1].fill_(5)
    assert mapping.tensors[1].tolist() == [5] * 7
    assert mapping.contains(mapping.tensors[1].data_ptr())
    mapping.close()
    bundle.close()


def test_a_private_mapping_keeps_its_writes_and_is_brought_back(driver):
    bundle = DeviceBundle(lay_out([torch.zeros(4)]), driver)
    bundle.fill([torch.arange(4.0)])
    mapping = DeviceMapping(bundle.descriptor, bundle.layouts, "private", driver)
    mapping.restore()
    mapping.tensors[0].add_(1)
    assert bundle.tensors[0].tolist() == [0, 1, 2, 3]
    assert mapping.contains(mapping.tensors[0].data_ptr())
    mapping.restore()
    assert mapping.tensors[0].tolist() == [0, 1, 2, 3]
    mapping.close()
    bundle.close()


def test_memory_that_a_kernel_still_holds_stays_mapped_until_it_lets_go(driver):
    bundle = DeviceBundle(lay_out([torch.zeros(4)]), driver)
    bundle.fill([torch.ones(4)])
    mapping = DeviceMapping(bundle.descriptor, bundle.layouts, "read", driver)
    (held,) = mapping.tensors
    mapping.retire()
    bundle.close()
    gc.collect()
    assert held.tolist() == [1, 1, 1, 1]
    assert len(driver.mapped) == 1


def test_all_of_it_can_be_poisoned(driver):
    bundle = DeviceBundle(lay_out([torch.zeros(3, dtype=torch.bfloat16)]), driver)
    bundle.flat().fill_(0xFF)
    assert bundle.nbytes == GRANULARITY
    assert bundle.tensors[0].isnan().all()
    bundle.close()


def test_sizes_are_whole_multiples_and_never_nothing():
    assert [rounded(n, 4) for n in (0, 1, 4, 5)] == [4, 4, 4, 8]


def test_the_driver_is_given_the_structs_that_its_own_header_declares():
    driver = pytest.importorskip("cuda.bindings.driver", reason="cuda-python is not installed")
    theirs = driver.CUmemAllocationProp()
    theirs.type = driver.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
    kinds = driver.CUmemAllocationHandleType
    theirs.requestedHandleTypes = kinds.CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR
    theirs.location.type = driver.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
    theirs.location.id = 3
    ours = allocation_on(3)
    assert bytes(ours) == ctypes.string_at(int(theirs.getPtr()), ctypes.sizeof(ours))
    access = driver.CUmemAccessDesc()
    access.location.type = driver.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
    access.location.id = 3
    access.flags = driver.CUmemAccess_flags.CU_MEM_ACCESS_FLAGS_PROT_READ
    mine = AccessDescription(Location(1, 3), READ)
    assert bytes(mine) == ctypes.string_at(int(access.getPtr()), ctypes.sizeof(mine))
