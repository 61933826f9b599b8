"""For which calls a kernel was verified, as the drop-in's table says it."""

from collections.abc import Iterable
from typing import Any, Literal, Protocol

from pydantic import Field

from knowledge.device import Device
from knowledge.opgraph import Frozen, TensorSpec
from tools.verdict import CaseResult

# The judge's names for inputs that lie in memory otherwise.
NOT_CONTIGUOUS, ODD_ADDRESS = "not contiguous", "at an odd address"


class Slot(Frozen):
    """One tensor: a name stands for a size that may vary; strides only where no others will do."""

    dtype: str
    sizes: tuple[int | str, ...]
    strides: tuple[int, ...] | None = None


class Signature(Frozen):
    """Calls that a kernel was verified for.

    `sizes` bounds the sizes that have a name, both ends included. `layout` is `any` where other
    strides were tried, else `contiguous`, unless the slots have strides of their own. `aligned`:
    nothing was tried at an address that no allocator gives. `outputs` are known where every size
    is. `kernel` numbers the sources that are handed over together, `built` the ways to construct.
    """

    device: str = Field(description="cpu, or cuda with its architecture: cuda:sm_90")
    inputs: tuple[Slot, ...]
    sizes: dict[str, tuple[int, int]] = Field({})
    outputs: tuple[Slot, ...] = ()
    layout: Literal["any", "contiguous"] = "contiguous"
    aligned: bool = True
    kernel: int = 0
    built: int = 0

    def literal(self) -> str:
        """A line of the table, as Python text."""
        told: dict[str, Any] = {
            "kernel": self.kernel,
            "device": self.device,
            "inputs": _told(self.inputs),
            "layout": self.layout,
            "aligned": self.aligned,
        }
        if self.built:
            told["built"] = self.built
        if self.sizes:
            told["sizes"] = self.sizes
        if self.outputs:
            told["outputs"] = _told(self.outputs)
        lines = [f"        {key!r}: {value!r}," for key, value in told.items()]
        return "\n".join(["    {", *lines, "    },"]).replace("'", '"')

    def __str__(self) -> str:
        slots = (f"{slot.dtype} [{', '.join(map(str, slot.sizes))}]" for slot in self.inputs)
        bounds = (f"{name} from {low} to {high}" for name, (low, high) in self.sizes.items())
        return "; ".join([f"{self.device}: {', '.join(slots)}", *bounds])


def _told(slots: Iterable[Slot]) -> tuple[tuple[Any, ...], ...]:
    return tuple(
        (slot.dtype, slot.sizes) if slot.strides is None else (slot.dtype, slot.sizes, slot.strides)
        for slot in slots
    )


class Tensors(Protocol):
    """What goes in and what comes out: a reference's facts, or a workload of it."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """In forward's order."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """In the order in which they are returned."""


def signatures_of(
    facts: Tensors, cases: Iterable[CaseResult], device: Device, kernel: int = 0
) -> tuple[Signature, ...]:
    """What its cases say a kernel was verified for, the widest first.

    The shapes of the task, and every size that the judge tried beside them: one that it passed with
    1, 6 and 7 rows is taken to be right for 1 to 7.

    Args:
        facts: the reference's shapes.
        cases: those of the confirmation, which tell what was tried.
        device: where.
        kernel: which of the sources that are handed over together.
    """
    passed = [case for case in cases if case.passed]
    names = {case.name for case in passed}
    dense = all(spec.contiguous for spec in facts.inputs)
    layout: Literal["any", "contiguous"] = "contiguous"
    if NOT_CONTIGUOUS in names or not dense:
        layout = "any"
    keep_strides = not dense and NOT_CONTIGUOUS not in names
    slots = tuple(_slot(spec, keep_strides) for spec in facts.inputs)
    place = f"cuda:{device.architecture}" if device.kind == "cuda" else device.kind
    exact = Signature(
        device=place,
        inputs=slots,
        outputs=tuple(_slot(spec) for spec in facts.outputs),
        layout=layout,
        aligned=ODD_ADDRESS not in names,
        kernel=kernel,
    )
    if keep_strides:
        return (exact,)
    return (*_wider(exact, passed), exact)


def _slot(spec: TensorSpec, keep_strides: bool = False) -> Slot:
    return Slot(dtype=spec.dtype, sizes=spec.shape, strides=spec.strides if keep_strides else None)


def _wider(exact: Signature, passed: list[CaseResult]) -> list[Signature]:
    """For each set of dimensions that were varied together, the sizes that they may have."""
    tried: dict[frozenset[tuple[int, int]], set[int]] = {}
    for case in passed:
        if len(case.shapes) != len(exact.inputs):
            continue
        changed = {
            (number, dim): (slot.sizes[dim], size)
            for number, (slot, shape) in enumerate(zip(exact.inputs, case.shapes, strict=True))
            if len(slot.sizes) == len(shape)
            for dim, size in enumerate(shape)
            if slot.sizes[dim] != size
        }
        # All of one size before, and of one size then: that is one dimension of the op's.
        if len(set(changed.values())) == 1:
            (before, then), *_ = changed.values()
            assert isinstance(before, int)
            tried.setdefault(frozenset(changed), {before}).add(then)
    return [_varied(exact, places, sizes) for places, sizes in tried.items()]


def _varied(exact: Signature, places: frozenset[tuple[int, int]], sizes: set[int]) -> Signature:
    slots = tuple(
        slot.model_copy(
            update={
                "sizes": tuple(
                    "n" if (number, dim) in places else size for dim, size in enumerate(slot.sizes)
                )
            }
        )
        for number, slot in enumerate(exact.inputs)
    )
    bounds = {"n": (min(sizes), max(sizes))}
    return exact.model_copy(update={"inputs": slots, "sizes": bounds, "outputs": ()})
