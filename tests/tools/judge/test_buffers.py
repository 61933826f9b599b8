import torch

from tools.judge.buffers import Buffers


def test_an_output_of_many_million_elements_is_poisoned_within_its_bounds():
    # In float32 the last place of these would be rounded up to one that does not exist.
    buffers = Buffers([torch.empty(1 << 25, device="meta", dtype=torch.float16)], 1)
    buffers.poison_sparsely()
    assert buffers.poison_left()
    buffers.of(0)[0].fill_(1)
    assert not buffers.poison_left()
    buffers.close()
