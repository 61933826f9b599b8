import os
from pathlib import Path

import pytest
import torch

from tools.runner.memory import Bundle, Layout, Mapping, lay_out


def test_strides_and_values_survive_the_way_through_shared_memory():
    given = [
        torch.randn(6, 4).t(),
        torch.arange(10)[::3],
        torch.randn(3, 1).expand(3, 5),
        torch.tensor(7, dtype=torch.int8),
        torch.empty(0, 4),
        torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.randn(5).bfloat16(),
    ]
    bundle = Bundle("test", lay_out(given), sealed=True)
    bundle.fill(given)
    layouts = [Layout.from_json(layout.to_json()) for layout in bundle.layouts]
    mapping = Mapping(bundle.descriptor, layouts, "read")
    for one, other in zip(given, mapping.tensors, strict=True):
        assert other.stride() == one.stride()
        assert other.dtype == one.dtype
        assert torch.equal(one, other)
    mapping.close()
    bundle.close()


def test_a_sealed_bundle_cannot_be_mapped_for_writing():
    bundle = Bundle("test", lay_out([torch.zeros(8)]), sealed=True)
    with pytest.raises(OSError, match="cannot map"):
        Mapping(bundle.descriptor, bundle.layouts, "write")
    with pytest.raises(OSError, match="not permitted"):
        os.write(bundle.descriptor, b"x")
    bundle.tensors[0].fill_(3)
    seen = Mapping(bundle.descriptor, bundle.layouts, "read")
    assert seen.tensors[0].tolist() == [3] * 8
    seen.close()
    bundle.close()


def test_writes_to_a_private_mapping_stay_private_and_can_be_taken_back():
    bundle = Bundle("test", lay_out([torch.zeros(8)]), sealed=True)
    mapping = Mapping(bundle.descriptor, bundle.layouts, "private")
    mapping.tensors[0].fill_(5)
    assert bundle.tensors[0].tolist() == [0] * 8
    mapping.restore()
    assert mapping.tensors[0].tolist() == [0] * 8
    mapping.close()
    bundle.close()


def test_a_tensor_that_begins_past_a_page_keeps_its_place():
    memory = torch.arange(100.0)
    given = memory.as_strided((3, 4), (8, 2), 5)
    bundle = Bundle("test", lay_out([given, torch.ones(3)]), sealed=True)
    bundle.fill([given, torch.ones(3)])
    assert [layout.offset for layout in bundle.layouts] == [5 * 4, 4096]
    mapping = Mapping(bundle.descriptor, bundle.layouts, "read")
    assert mapping.tensors[0].data_ptr() % 4096 == 20
    assert mapping.tensors[0].stride() == (8, 2)
    assert torch.equal(mapping.tensors[0], given)
    mapping.close()
    bundle.close()


def test_a_retired_mapping_lives_as_long_as_somebody_holds_a_tensor_of_it():
    bundle = Bundle("held", lay_out([torch.zeros(8), torch.zeros(4)]), sealed=True)
    bundle.fill([torch.arange(8.0), torch.ones(4)])
    before = maps_of("held")
    mapping = Mapping(bundle.descriptor, bundle.layouts, "read")
    held = mapping.tensors[0][2:4]
    mapping.retire()
    assert maps_of("held") == before + 1
    assert held.tolist() == [2.0, 3.0]
    del held
    assert maps_of("held") == before
    bundle.close()


def maps_of(name: str) -> int:
    return Path("/proc/self/maps").read_text().count(f"memfd:{name} ")
