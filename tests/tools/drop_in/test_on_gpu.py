"""The drop-in and CUDA devices: which is the current one, and on one, where there is one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from tests.tools.drop_in.pairs import calls, pair
from tests.tools.shipping import shipment, shipped
from tools.candidate import Candidate
from tools.drop_in.modules import on_device_of

TRITON_KERNEL = """
import torch
import triton
import triton.language as tl

CALLS = []


@triton.jit
def scale(x, s, y, count, width, by, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    value = tl.load(x + at, mask=inside) * by + tl.load(s + at % width, mask=inside)
    tl.store(y + at, value, mask=inside)


class ModelNew(torch.nn.Module):
    def __init__(self, features, by=3.0):
        super().__init__()
        self.shift = torch.nn.Parameter(torch.zeros(features))

    def forward(self, x):
        CALLS.append(tuple(x.shape))
        y = torch.empty_like(x)
        scale[(triton.cdiv(x.numel(), 256),)](x, self.shift, y, x.numel(), x.shape[1], 3.0, 256)
        return y
"""


@pytest.mark.gpu
def test_on_a_gpu_it_takes_calls_of_the_verified_architecture(tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device here")
    major, minor = torch.cuda.get_device_capability()
    for device, taken in ((f"cuda:sm_{major}{minor}", 1), ("cuda:sm_10", 0)):
        table = tuple(one.model_copy(update={"device": device}) for one in shipment().signatures)
        kernel = shipped(tmp_path / str(taken), shipment(
            candidate=Candidate(source=TRITON_KERNEL, backend="triton"), signatures=table,
        ))  # fmt: skip
        model, new = (one.to("cuda") for one in pair(kernel))
        x = torch.randn(9, 5, device="cuda")
        with torch.no_grad():
            number, made = calls(kernel, lambda new=new, x=x: new(x))
        assert number == taken
        torch.testing.assert_close(made, model(x))
        compiled = torch.compile(new, fullgraph=True)
        torch.testing.assert_close(compiled(x), model(x))
        compiled(x).sum().backward()
        assert torch.equal(new.shift.grad, torch.full((5,), 9.0, device="cuda"))


class Elsewhere:
    """A tensor on the second GPU, as far as anybody asks here."""

    is_cuda = True

    def get_device(self) -> int:
        return 1


@pytest.mark.parametrize(("current", "moves"), [(0, [1]), (1, [])])
def test_a_kernel_is_launched_where_its_tensors_are(
    monkeypatch: pytest.MonkeyPatch, current: int, moves: list[int]
) -> None:
    entered: list[int] = []

    @contextmanager
    def device(number: int) -> Iterator[None]:
        entered.append(number)
        yield

    monkeypatch.setattr(torch.cuda, "current_device", lambda: current)
    monkeypatch.setattr(torch.cuda, "device", device)
    with on_device_of(Elsewhere()):  # type: ignore[arg-type]
        assert entered == moves
    with on_device_of(torch.ones(1)):
        assert entered == moves


def test_every_call_of_a_kernel_is_made_on_the_device_of_its_inputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = shipment().candidate.source.replace("CALLS = []", "CALLS, THERE = [], [None]")
    source = source.replace("CALLS.append(tuple(x.shape))", "CALLS.append(THERE[-1])")
    candidate = Candidate(source=source, backend="cpp")
    kernel = shipped(tmp_path, shipment(candidate=candidate))

    @contextmanager
    def on_device_of(tensor: torch.Tensor) -> Iterator[None]:
        kernel.THERE.append(tensor.shape)
        yield
        kernel.THERE.append(None)

    monkeypatch.setattr(kernel, "on_device_of", on_device_of)
    new, x = kernel.ModelNew(5), torch.randn(9, 5)
    compiled = torch.compile(new, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        directly, made = calls(kernel, lambda: new(x))
    through, _ = calls(kernel, lambda: compiled(x))
    with_gradients, _ = calls(kernel, lambda: new(x))
    assert (directly, through, with_gradients) == (1, 1, 1)
    assert [x.shape] * 3 == kernel.CALLS
    torch.testing.assert_close(made, x * 3.0 + new.shift)
