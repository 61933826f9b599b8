"""Judging on a GPU: what only a device can show. Skips itself where there is none."""

import pytest

from tools.verdict import ContractBroken, Correct, Crashed, TimedOut, WrongOutput

pytestmark = pytest.mark.gpu

TRITON = """import torch
import triton
import triton.language as tl


@triton.jit
def normalise(x, out, columns, stride, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    places = tl.arange(0, BLOCK)
    kept = places < columns
    values = tl.load(x + row * stride + places, mask=kept, other=-float("inf"))
    values = tl.exp(values - tl.max(values))
    tl.store(out + row * columns + places, values / tl.sum(values), mask=kept)


class ModelNew(torch.nn.Module):
    def forward(self, x):
        x = x.contiguous()
        out = torch.empty_like(x)
        block = triton.next_power_of_2(x.shape[1])
        normalise[(x.shape[0],)](x, out, x.shape[1], x.stride(0), BLOCK=block, num_warps=8)
        return out
"""
EAGER = """import torch
class ModelNew(torch.nn.Module):
    def forward(self, x):
        return torch.softmax(x, dim=-1)
"""


def with_body(body):
    return EAGER.replace("        return torch.softmax(x, dim=-1)\n", body)


def test_a_triton_kernel_is_judged_and_timed_by_two_clocks(judge_on_gpu):
    verdict = judge_on_gpu("gpu/softmax", TRITON)
    assert isinstance(verdict, Correct), verdict
    timing = verdict.timing
    assert timing.checked_outputs >= 1
    assert 0 < timing.device_ms < 1.5 * timing.candidate_ms


def test_the_reference_as_its_own_candidate_is_no_faster_than_itself(judge_on_gpu):
    verdict = judge_on_gpu("gpu/softmax", EAGER)
    assert isinstance(verdict, Correct), verdict
    assert not verdict.timing.faster
    assert 0.9 < verdict.timing.against_best.speedup < 1.1


def test_an_honest_side_stream_that_is_waited_for_is_right(judge_on_gpu):
    body = (
        "        side = torch.cuda.Stream()\n"
        "        side.wait_stream(torch.cuda.current_stream())\n"
        "        with torch.cuda.stream(side):\n"
        "            made = torch.softmax(x, dim=-1)\n"
        "        torch.cuda.current_stream().wait_stream(side)\n"
        "        made.record_stream(torch.cuda.current_stream())\n"
        "        return made\n"
    )
    assert isinstance(judge_on_gpu("gpu/softmax", with_body(body)), Correct)


def test_a_side_stream_that_nobody_waits_for_is_wrong(judge_on_gpu):
    body = (
        "        side = torch.cuda.Stream()\n"
        "        side.wait_stream(torch.cuda.current_stream())\n"
        "        made = torch.zeros_like(x)\n"
        "        with torch.cuda.stream(side):\n"
        "            torch.cuda._sleep(10_000_000)\n"
        "            made.copy_(torch.softmax(x, dim=-1))\n"
        "        return made\n"
    )
    assert isinstance(judge_on_gpu("gpu/softmax", with_body(body)), WrongOutput)


def test_running_out_of_memory_is_a_verdict_and_the_next_kernel_is_judged(judge_on_gpu):
    body = "        return torch.empty(1 << 50, device=x.device)\n"
    verdict = judge_on_gpu("gpu/softmax", with_body(body), False)
    assert isinstance(verdict, Crashed)
    assert "memory" in verdict.log
    assert isinstance(judge_on_gpu("gpu/softmax", EAGER, False), Correct)


def test_an_illegal_address_is_a_verdict_and_the_next_kernel_is_judged(judge_on_gpu):
    body = "        return torch.ops.aten.index(x, [torch.full((1,), 1 << 40, device=x.device)])\n"
    assert isinstance(judge_on_gpu("gpu/softmax", with_body(body), False), Crashed)
    assert isinstance(judge_on_gpu("gpu/softmax", EAGER, False), Correct)


def test_a_wedged_device_ends_in_a_deadline_and_a_fresh_runner(judge_on_gpu):
    body = (
        "        for _ in range(64):\n"
        "            torch.cuda._sleep(2_000_000_000)\n"
        "        return torch.softmax(x, dim=-1)\n"
    )
    assert isinstance(judge_on_gpu("gpu/softmax", with_body(body), False), TimedOut)
    assert isinstance(judge_on_gpu("gpu/softmax", EAGER, False), Correct)


def test_a_result_left_on_the_cpu_breaks_the_contract(judge_on_gpu):
    body = "        return torch.softmax(x, dim=-1).cpu()\n"
    verdict = judge_on_gpu("gpu/softmax", with_body(body), False)
    assert isinstance(verdict, ContractBroken)
    assert "on cpu instead of cuda" in verdict.detail
