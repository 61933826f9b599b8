"""The drop-in goes to its kernel where that was verified, and is the reference everywhere else."""

import copy
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from tests.tools.drop_in.pairs import NormModel, calls, pair
from tests.tools.shipping import REFERENCE, shipment, shipped
from tools.candidate import Candidate
from tools.signature import Signature, Slot


@pytest.mark.parametrize("rows", [1, 9, 10])
def test_a_verified_call_goes_to_the_kernel(kernel: ModuleType, rows: int) -> None:
    model, new = pair(kernel)
    x = torch.randn(rows, 5)
    with torch.no_grad():
        number, made = calls(kernel, lambda: new(x))
        assert number == 1
        torch.testing.assert_close(made, model(x))
        assert calls(kernel, lambda: new(x=x))[0] == 1


@pytest.mark.parametrize(
    ("what", "x"),
    [
        ("more rows", torch.randn(11, 5)),
        ("more dimensions", torch.randn(2, 9, 5)),
        ("another layout", torch.randn(5, 9).t()),
        ("another width", torch.randn(9, 1)),
        ("another dtype", torch.randn(9, 5, dtype=torch.float64)),
    ],
)
def test_any_other_call_goes_to_the_reference(kernel: ModuleType, what: str, x: Any) -> None:
    model, new = pair(kernel)
    with torch.no_grad():
        number, made = calls(kernel, lambda: new(x))
        assert number == 0, what
        assert torch.equal(made, model(x))
    assert not new.takes_kernel(x)


def test_an_odd_address_goes_to_the_reference_unless_one_was_tried(tmp_path: Path) -> None:
    aligned = tuple(one.model_copy(update={"aligned": True}) for one in shipment().signatures)
    kernel = shipped(tmp_path, shipment(signatures=aligned))
    new = kernel.ModelNew(5)
    odd = torch.randn(46)[1:].view(9, 5)
    assert not new.takes_kernel(odd)
    assert new.takes_kernel(odd.clone())


def test_constructed_otherwise_it_is_the_reference(kernel: ModuleType) -> None:
    # The kernel has the factor 3 in its code.
    new = kernel.ModelNew(5, by=2.0)
    x = torch.randn(9, 5)
    with torch.no_grad():
        number, made = calls(kernel, lambda: new(x))
    assert number == 0
    assert torch.equal(made, x * 2.0 + new.shift)
    assert kernel.ModelNew(5, by=3.0).takes_kernel(x)
    assert not kernel.ModelNew(5).double().takes_kernel(x)


def test_changed_since_it_is_the_reference(kernel: ModuleType) -> None:
    new = kernel.ModelNew(5)
    new.by = 2.0
    x = torch.randn(9, 5)
    torch.testing.assert_close(new(x), x * 2.0 + new.shift)
    assert not new.takes_kernel(x)


def test_in_another_mode_it_is_the_reference_where_that_matters(
    norm: ModuleType, kernel: ModuleType
) -> None:
    model, new = pair(norm, NormModel, 4)
    x = torch.randn(8, 4)
    model.eval(), new.eval()
    with torch.no_grad():
        number, made = calls(norm, lambda: new(x))
        assert number == 0
        assert torch.equal(made[0], model(x)[0])
    assert new.train().takes_kernel(x)
    new.norm.eval()
    assert not new.takes_kernel(x)
    assert kernel.ModelNew(5).eval().takes_kernel(torch.randn(9, 5))


def test_a_part_that_was_exchanged_or_is_listened_to_is_called(norm: ModuleType) -> None:
    _, new = pair(norm, NormModel, 4)
    x = torch.randn(8, 4)
    assert new.takes_kernel(x)
    heard: list[Any] = []
    hook = new.norm.register_forward_hook(lambda *args: heard.append(args))
    new(x)
    assert len(heard) == 1
    hook.remove()
    assert new.takes_kernel(x)
    new._modules["norm"] = torch.nn.Identity()
    assert torch.equal(new(x)[0], x.clamp(min=0))


def test_a_part_that_was_changed_before_anybody_called_is_seen(norm: ModuleType) -> None:
    x = torch.randn(8, 4)
    _, new = pair(norm, NormModel, 4)
    new.norm = torch.nn.Identity()
    assert torch.equal(new(x)[0], x.clamp(min=0))
    _, new = pair(norm, NormModel, 4)
    assert new.takes_kernel(x)
    new.norm.eps = 1.0
    number, made = calls(norm, lambda: new(x))
    assert number == 0
    expected = (x - x.mean(0)) * torch.rsqrt(x.var(0, correction=0) + 1.0)
    torch.testing.assert_close(made[0], expected.clamp(min=0))
    assert not copy.deepcopy(new).takes_kernel(x)
    new.norm.eps = 1e-5
    assert new.takes_kernel(x)
    hook = new.norm.register_full_backward_hook(lambda *_: None)
    assert not new.takes_kernel(x)
    hook.remove()
    assert new.takes_kernel(x)


def test_a_weight_that_lies_otherwise_is_the_references(tmp_path: Path) -> None:
    reference = REFERENCE.replace("torch.randn(features)", "torch.randn(features, 2)[:, 0]")
    assert reference != REFERENCE
    kernel = shipped(tmp_path, shipment(reference=reference))
    new = kernel.ModelNew(5)
    assert new.shift.stride() != (1,)
    assert not new.takes_kernel(torch.randn(9, 5))


def test_transforms_and_autocast_see_the_reference(kernel: ModuleType) -> None:
    model, new = pair(kernel)
    x = torch.randn(3, 9, 5)
    with torch.no_grad():
        torch.testing.assert_close(torch.vmap(new)(x), torch.vmap(model)(x))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert not new.takes_kernel(x[0])
    weights = {"shift": torch.zeros(5)}
    made = torch.func.functional_call(new, weights, (x[0],))
    torch.testing.assert_close(made, x[0] * 3.0)
    jacobian = torch.func.jacrev(new)(x[0])
    torch.testing.assert_close(jacobian, torch.func.jacrev(model)(x[0]))


def test_a_parametrized_weight_is_seen(kernel: ModuleType) -> None:
    new = kernel.ModelNew(5)
    x = torch.randn(9, 5)
    assert new.takes_kernel(x)

    class Doubled(torch.nn.Module):
        def forward(self, value: torch.Tensor) -> torch.Tensor:
            return value * 2

    shift = new.shift.detach().clone()
    torch.nn.utils.parametrize.register_parametrization(new, "shift", Doubled())
    torch.testing.assert_close(new(x), x * 3.0 + 2 * shift)


def test_two_versions_live_in_one_process(kernel: ModuleType, tmp_path: Path) -> None:
    other = shipment().candidate.source.replace("One pass", "Another pass")
    second = shipped(tmp_path, shipment(candidate=Candidate(source=other, backend="cpp")))
    again = shipped(tmp_path / "again")
    assert second.OPERATOR["name"] != kernel.OPERATOR["name"] == again.OPERATOR["name"]
    x = torch.randn(9, 5)
    for module in (kernel, second, again):
        assert module.ModelNew(5).takes_kernel(x)


def test_each_shape_may_have_a_kernel_of_its_own(tmp_path: Path) -> None:
    second = Candidate(source=shipment().candidate.source.replace("CALLS = []", "CALLS = ['2nd']"),
                       backend="cpp")  # fmt: skip
    slot = Slot(dtype="float32", sizes=(30, 5))
    further = Signature(device="cpu", inputs=(slot,), outputs=(slot,), aligned=False, kernel=1)
    kernel = shipped(
        tmp_path, shipment(signatures=(*shipment().signatures, further), others=(second,))
    )
    model, new = pair(kernel)
    x = torch.randn(30, 5)
    with torch.no_grad():
        number, made = calls(kernel.OTHER_1, lambda: new(x))
        assert number == 1
        torch.testing.assert_close(made, model(x))
        assert calls(kernel, lambda: new(x[:9]))[0] == 1
