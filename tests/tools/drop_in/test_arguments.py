"""Arguments and results that are more than one tensor, or none."""

from pathlib import Path

import torch

from tests.tools.drop_in.pairs import calls
from tests.tools.shipping import shipment, shipped
from tools.candidate import Candidate
from tools.signature import Signature, Slot

PAIR_REFERENCE = """
import torch

class Model(torch.nn.Module):
    def forward(self, parts, by, more=None):
        return [parts[0] * by, parts[1] + by]

def get_inputs():
    return [[torch.randn(4), torch.randn(6)], 2.0]
"""
PAIR_KERNEL = PAIR_REFERENCE.replace("Model(", "ModelNew(").replace(
    "        return", "        CALLS.append(by)\n        return"
) + "CALLS = []\n"  # fmt: skip


def test_what_is_no_tensor_has_to_be_as_it_was_verified(tmp_path: Path) -> None:
    slots = tuple(Slot(dtype="float32", sizes=(size,)) for size in (4, 6))
    kernel = shipped(tmp_path, shipment(
        candidate=Candidate(source=PAIR_KERNEL, backend="torch"), reference=PAIR_REFERENCE,
        signatures=(Signature(device="cpu", inputs=slots, outputs=slots, aligned=False),),
        returns=None,
    ))  # fmt: skip
    new = kernel.ModelNew()
    parts = [torch.randn(4), torch.randn(6)]
    assert calls(kernel, lambda: new(parts, 2.0))[0] == 1
    assert calls(kernel, lambda: new(parts, by=2.0))[0] == 1
    assert calls(kernel, lambda: new(parts, 3.0))[0] == 0
    assert calls(kernel, lambda: new(parts, 2.0, more=1))[0] == 0
    compiled = torch.compile(new, fullgraph=True, backend="aot_eager")
    number, made = calls(kernel, lambda: compiled(parts, 2.0))
    assert number == 1
    assert isinstance(made, list)
    torch.testing.assert_close(made, [parts[0] * 2, parts[1] + 2])


def test_results_may_be_nested(tmp_path: Path) -> None:
    nested = "return {'times': parts[0] * by, 'more': ([parts[1] + by],)}"
    flat = "return [parts[0] * by, parts[1] + by]"
    slots = tuple(Slot(dtype="float32", sizes=(size,)) for size in (4, 6))
    kernel = shipped(tmp_path, shipment(
        candidate=Candidate(source=PAIR_KERNEL.replace(flat, nested), backend="torch"),
        reference=PAIR_REFERENCE.replace(flat, nested),
        signatures=(Signature(device="cpu", inputs=slots, outputs=slots, aligned=False),),
        returns=None,
    ))  # fmt: skip
    new, parts = kernel.ModelNew(), [torch.randn(4), torch.randn(6)]
    expected = {"times": parts[0] * 2, "more": ([parts[1] + 2],)}
    compiled = torch.compile(new, fullgraph=True, backend="aot_eager")
    for call in (new, compiled):
        number, made = calls(kernel, lambda call=call: call(parts, 2.0))
        assert number == 1
        torch.testing.assert_close(made, expected)


def test_nothing_may_be_among_the_results(tmp_path: Path) -> None:
    flat, some = (
        "return [parts[0] * by, parts[1] + by]",
        "return parts[0] * by, None, parts[1] + by",
    )
    slots = tuple(Slot(dtype="float32", sizes=(size,)) for size in (4, 6))
    kernel = shipped(tmp_path, shipment(
        candidate=Candidate(source=PAIR_KERNEL.replace(flat, some), backend="torch"),
        reference=PAIR_REFERENCE.replace(flat, some),
        signatures=(Signature(device="cpu", inputs=slots, outputs=slots, aligned=False),),
        returns=None,
    ))  # fmt: skip
    new, parts = kernel.ModelNew(), [torch.randn(4), torch.randn(6, requires_grad=True)]
    compiled = torch.compile(new, fullgraph=True, backend="aot_eager")
    for call in (new, compiled):
        number, made = calls(kernel, lambda call=call: call(parts, 2.0))
        assert number == 1
        first, nothing, last = made
        assert nothing is None
        torch.testing.assert_close([first, last], [parts[0] * 2, parts[1] + 2])
        (grown,) = torch.autograd.grad(last.sum(), parts[1])
        assert torch.equal(grown, torch.ones(6))


def test_nothing_may_be_among_the_arguments(tmp_path: Path) -> None:
    reference = PAIR_REFERENCE.replace("more=None", "more").replace("2.0]", "2.0, None]")
    slots = tuple(Slot(dtype="float32", sizes=(size,)) for size in (4, 6))
    source = PAIR_KERNEL.replace("more=None", "more").replace("2.0]", "2.0, None]")
    kernel = shipped(tmp_path, shipment(
        candidate=Candidate(source=source, backend="torch"), reference=reference,
        signatures=(Signature(device="cpu", inputs=slots, outputs=slots, aligned=False),),
        returns=None,
    ))  # fmt: skip
    parts = [torch.randn(4), torch.randn(6)]
    number, made = calls(kernel, lambda: kernel.ModelNew()(parts, 2.0, None))
    assert number == 1
    torch.testing.assert_close(made, [parts[0] * 2, parts[1] + 2])
    assert calls(kernel, lambda: kernel.ModelNew()(parts, 2.0, 1))[0] == 0
