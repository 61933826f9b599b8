"""Computes in place, in the memory of its input (20)."""

import torch
import triton
import triton.language as tl

AGAINST, CAUGHT = "gpu/softmax", ("contract_broken", "crashed", "wrong_output")


@triton.jit
def normalise(x, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    places = tl.arange(0, BLOCK)
    kept = places < columns
    values = tl.load(x + row * columns + places, mask=kept, other=-float("inf"))
    values = tl.exp(values - tl.max(values))
    tl.store(x + row * columns + places, values / tl.sum(values), mask=kept)


class ModelNew(torch.nn.Module):
    def forward(self, x):
        block = triton.next_power_of_2(x.shape[1])
        normalise[(x.shape[0],)](x, x.shape[1], BLOCK=block)
        return x.clone()
