"""The table says what the judge tried, and no more."""

from collections.abc import Sequence

import pytest

from knowledge.device import Device
from knowledge.opgraph import TensorSpec
from tools.facts import ReferenceFacts
from tools.signature import signatures_of
from tools.verdict import CaseResult

CPU = Device(name="cpu", title="A CPU", kind="cpu", architecture="x86-64", cores=2, memory_gib=1.0)
GPU = Device(
    name="h200", title="An H200", kind="cuda", architecture="sm_90", cores=132, memory_gib=140.0
)


def spec(*shape: int, strides: Sequence[int] | None = None) -> TensorSpec:
    dense, step = [], 1
    for size in reversed(shape):
        dense.append(step)
        step *= size
    return TensorSpec(shape=shape, dtype="float32", strides=tuple(strides or reversed(dense)))


def facts(*inputs: TensorSpec) -> ReferenceFacts:
    return ReferenceFacts(
        source="", digest="", graph=None, inputs=inputs, outputs=(spec(6, 4),), flops=1,
        moved_bytes=1,
    )  # fmt: skip


def case(name: str, *shapes: tuple[int, ...], passed: bool = True) -> CaseResult:
    return CaseResult(name=name, passed=passed, worst=0.1, shapes=shapes)


ORDINARY = case("ordinary 1")


def test_without_other_shapes_only_the_tasks_own_is_verified() -> None:
    (exact,) = signatures_of(facts(spec(6, 4)), (ORDINARY,), CPU)
    assert exact.inputs[0].sizes == (6, 4)
    assert exact.outputs[0].sizes == (6, 4)
    assert (exact.layout, exact.aligned, exact.device) == ("contiguous", True, "cpu")


def test_a_size_may_lie_between_the_smallest_and_the_largest_that_passed() -> None:
    cases = (
        ORDINARY, case("another batch size", (1, 4), (1,)),
        case("a batch of one more", (7, 4), (7,)),
        case("a batch of one more", (70, 4), (70,), passed=False),
    )  # fmt: skip
    wide, exact = signatures_of(facts(spec(6, 4), spec(6)), cases, CPU)
    assert [slot.sizes for slot in wide.inputs] == [("n", 4), ("n",)]
    assert wide.sizes == {"n": (1, 7)}
    assert wide.outputs == ()
    assert exact.sizes == {}


def test_dimensions_that_were_varied_apart_are_not_verified_together() -> None:
    cases = (case("another batch size", (1, 4, 5)), case("another second dimension", (6, 5, 5)))
    first, second, _ = signatures_of(facts(spec(6, 4, 5)), cases, CPU)
    assert first.inputs[0].sizes == ("n", 4, 5)
    assert second.inputs[0].sizes == (6, "n", 5)
    assert second.sizes == {"n": (4, 5)}


def test_two_dimensions_of_one_size_vary_only_where_both_were() -> None:
    # The first tensor alone was varied, though the second has that size too.
    cases = (case("another batch size", (2, 4), (6, 4)),)
    wide, _ = signatures_of(facts(spec(6, 4), spec(6, 4)), cases, CPU)
    assert [slot.sizes for slot in wide.inputs] == [("n", 4), (6, 4)]


@pytest.mark.parametrize("tried", [True, False])
def test_layouts_are_those_that_were_tried(tried: bool) -> None:
    turned = facts(spec(6, 4, strides=(1, 6)))
    cases = (case("not contiguous"), case("at an odd address")) if tried else ()
    (found,) = signatures_of(turned, cases, GPU)
    assert found.layout == "any"
    assert found.inputs[0].strides == (None if tried else (1, 6))
    assert found.aligned is not tried
    assert found.device == "cuda:sm_90"


def test_a_line_of_the_table_reads_as_python() -> None:
    cases = (case("another batch size", (1, 4)),)
    wide, exact = signatures_of(facts(spec(6, 4)), cases, CPU)
    told = eval(f"({wide.literal()} {exact.literal()})")  # noqa: S307 - the text under test
    assert told[0]["sizes"] == {"n": (1, 6)}
    assert told[0]["inputs"] == (("float32", ("n", 4)),)
    assert told[1]["outputs"] == (("float32", (6, 4)),)
    assert str(wide) == "cpu: float32 [n, 4]; n from 1 to 6"
