"""Loads a row's tail without a mask, and so adds whatever lies beyond it (22)."""

import torch
import triton
import triton.language as tl

AGAINST, CAUGHT = "gpu/mean", ("wrong_output", "crashed")


@triton.jit
def add_up(x, out, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    places = tl.arange(0, BLOCK)
    # The mask that keeps loads within the row is missing.
    values = tl.load(x + row * columns + places)
    tl.store(out + row, tl.sum(values) / columns)


class ModelNew(torch.nn.Module):
    def forward(self, x):
        out = torch.empty(x.shape[0], device=x.device)
        block = 2 * triton.next_power_of_2(x.shape[1])
        add_up[(x.shape[0],)](x.contiguous(), out, x.shape[1], BLOCK=block)
        return out
