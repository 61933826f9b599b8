"""Is an output right? By element, against a float64 oracle; the reference's error is the yardstick.

An element passes if |y - y64| <= max(yardstick * e_ref, epsilons * eps * scale), in half precision
max(yardstick * e_ref, epsilons * eps(float32) * scale, 2 eps * scale): halves are rounded once,
from sums in float32, or as often as the reference does it, which `e_ref` shows. `scale` is the
larger of |y64| and the root mean square of the group that the element lies in (a row, or as many
trailing dimensions as make 64 elements), so that sums that cancel are not held to the size of what
is left. `e_ref` is the reference's own worst error within the group, or its typical relative error
on this task's ordinary inputs (`Accuracy`) times `scale`: a reference that was lucky once does not
condemn an honest kernel. No fraction of the elements may miss.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from tools.task import Tolerance

GROUP = 64
# What is looked at in one go: on a GPU what keeps it busy; on the CPU what a core's cache holds,
# and less than torch spreads over threads. These would wait for each other after every operation,
# a hundred times as long as it takes where a compiler is at work beside them.
CHUNK_ELEMENTS, DEVICE_CHUNK_ELEMENTS = 1 << 14, 1 << 26
# Of the groups' worst errors; of too few to have a tail, the worst one.
TYPICAL, FEW = 0.95, 20
# What is left in float64 where all that was added cancels.
VANISHING = 2.0**-40
EXACT = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
# Unit roundoff of the arithmetic that a precision policy admits for a float32 op: TF32 keeps 10
# bits, bfloat16 7.
ADMITTED = {"strict": 0.0, "tf32": 2.0**-11, "half": 2.0**-8}
# Reference and oracle are the same computation in float64, so the reference shows no error of its
# own there.
FLOAT64_ALLOWANCE = 64.0
# What has a larger unit in the last place is half precision, or less.
HALF = 2.0**-16


@dataclass(frozen=True)
class Expected:
    """One output's truth: float64, or the exact values of integers, as (groups, elements).

    `reference` is kept only where it decides: for integers, and where it is not finite. `error` is
    the reference's worst error in each group, `size` the root mean square of each group.
    """

    truth: torch.Tensor
    reference: torch.Tensor | None
    error: torch.Tensor
    size: torch.Tensor
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """What it takes of the memory."""
        kept = (self.truth, self.reference, self.error, self.size)
        return sum(tensor.nbytes for tensor in kept if tensor is not None)


@dataclass(frozen=True)
class Match:
    """How an output compares. `worst` is the largest error over what was allowed there."""

    worst: float
    wrong: int
    total: int
    detail: str

    @property
    def passed(self) -> bool:
        """Whether every element passes."""
        return self.wrong == 0


@dataclass(frozen=True)
class Undecided:
    """Which elements, as (groups, elements), may be any number from `low` to `high`."""

    where: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor


def expect(truth: torch.Tensor, reference: torch.Tensor) -> Expected:
    """Reduce a reference's output and its float64 truth to what comparisons need."""
    groups = _grouped(reference)
    exact = reference.dtype in EXACT
    true_groups = _grouped(truth) if exact else _real(_grouped(truth)).to(torch.float64)
    count = groups.shape[0]
    error = torch.zeros(count, 1, dtype=torch.float64, device=reference.device)
    size = torch.zeros_like(error)
    finite = True
    if not exact:
        for rows in _chunks(groups):
            got = _real(groups[rows]).to(torch.float64)
            want = true_groups[rows]
            usable = got.isfinite() & want.isfinite()
            finite = finite and bool(usable.all())
            miss = torch.where(usable, (got - want).abs(), 0.0)
            error[rows] = miss.amax(dim=1, keepdim=True)
            square = torch.where(usable, want, 0.0).square().mean(dim=1, keepdim=True)
            size[rows] = square.sqrt()
    kept = groups.clone() if exact or not finite else None
    return Expected(true_groups, kept, error, size, reference.dtype)


def luckless(expected: Expected, usual: float) -> Expected:
    """The same truth with errors of at least two roundings at the size of the whole output.

    What lies far below it, such as GELU's tail of 1 + erf(x), is left over from terms of that size.

    Args:
        expected: the truth.
        usual: the size of this output on ordinary inputs. A group in which everything cancels, such
            as a constant row less its mean, has no size of its own, and takes this one.
    """
    if expected.dtype in EXACT:
        return expected
    rounding = torch.finfo(expected.dtype).eps * usual_size(expected)
    error = expected.error.clamp(min=2.0 * rounding)
    size = torch.where(expected.size < VANISHING * usual, usual, expected.size)
    return replace(expected, error=error, size=size)


def strained(expected: Expected, shaken: torch.Tensor) -> Expected:
    """The same truth with errors at least as large as inputs in their last bits make them.

    Args:
        expected: the truth.
        shaken: the truth about inputs that differ in their last bits.
    """
    if expected.dtype in EXACT:
        return expected
    error, groups = expected.error.clone(), _real(_grouped(shaken))
    for rows in _chunks(groups):
        miss = (groups[rows].to(torch.float64) - expected.truth[rows]).abs()
        worst = miss.nan_to_num(0.0, 0.0).amax(dim=1, keepdim=True)
        error[rows] = error[rows].maximum(worst)
    return replace(expected, error=error)


def relative_errors(expected: Expected) -> torch.Tensor:
    """For each group, the reference's worst error over the group's size."""
    return torch.where(expected.size > 0, expected.error / expected.size, 0.0).reshape(-1)


def usual_size(expected: Expected) -> float:
    """The root mean square of an output."""
    return float(expected.size.square().mean().sqrt()) if expected.size.numel() else 0.0


def typical_error(samples: Sequence[torch.Tensor]) -> float:
    """The reference's usual worst relative error in a group; robust to one bad group."""
    pooled = torch.cat([sample.reshape(-1) for sample in samples])
    if pooled.numel() < FEW:
        return float(pooled.max())
    return float(torch.quantile(_thinned(pooled), TYPICAL))


def compare(
    output: torch.Tensor,
    expected: Expected,
    typical: float,
    tolerance: Tolerance,
    precision: Literal["strict", "tf32", "half"],
    undecided: Undecided | None = None,
) -> Match:
    """Compare a dense output with the truth.

    NaN passes only where truth or reference is NaN, Inf only where one of them is that Inf.
    `undecided` says which integers the op leaves open (`undecided_among`).
    """
    groups = _grouped(output)
    if output.dtype in EXACT:
        return _compare_exact(groups, expected, undecided)
    share = _share(output.dtype, tolerance.epsilons, ADMITTED[precision])
    tiny = torch.finfo(output.dtype).tiny
    worst, wrong, place = 0.0, 0, (0, 0)
    for rows in _chunks(groups):
        got = _real(groups[rows]).to(torch.float64)
        want = expected.truth[rows]
        scale = torch.maximum(want.abs(), expected.size[rows])
        allowed = torch.maximum(
            tolerance.yardstick * torch.maximum(expected.error[rows], typical * scale),
            share * scale,
        ).clamp_(min=tiny)
        ratio = (got - want).abs_() / allowed
        odd = ~(ratio.isfinite())
        if bool(odd.any()):
            ratio = torch.where(odd, _class_ratio(got, want, expected, rows), ratio)
        top = float(ratio.max())
        if top > worst:
            flat = int(ratio.argmax())
            worst, place = top, (rows.start + flat // ratio.shape[1], flat % ratio.shape[1])
        wrong += int((ratio > 1.0).sum())
    detail = _describe(groups, expected, place, wrong) if wrong else ""
    return Match(worst, wrong, output.numel(), detail)


def _share(dtype: torch.dtype, epsilons: float, admitted: float) -> float:
    """Of the scale, what an element may be off whatever the reference's error is."""
    eps = torch.finfo(dtype).eps
    if dtype is torch.float64:
        eps *= FLOAT64_ALLOWANCE
    if eps > HALF:
        return max(epsilons * max(torch.finfo(torch.float32).eps, admitted), 2.0 * eps)
    return epsilons * max(eps, admitted)


def _class_ratio(
    got: torch.Tensor, want: torch.Tensor, expected: Expected, rows: slice
) -> torch.Tensor:
    """0 where NaN and Inf are those of the truth, or those of the reference; else infinity."""
    same = _same_class(got, want)
    if expected.reference is not None:
        ours = _real(expected.reference[rows]).to(torch.float64)
        same |= ~ours.isfinite() & _same_class(got, ours)
    return torch.where(same, 0.0, torch.inf).to(torch.float64)


def _same_class(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return (left.isnan() & right.isnan()) | (left.isinf() & (left == right))


def undecided_among(
    expected: Expected,
    shaken: Sequence[torch.Tensor],
    ordinary: Expected,
    most: float = 1.0,
) -> Undecided | None:
    """Of an output that must be equal, the elements that hang on last bits; None of another.

    Args:
        expected: the truth.
        shaken: what is as true: of inputs that differ in their last bits, of picks among equals.
        ordinary: the truth of ordinary inputs, which shows what else the output may hold.
        most: of the elements. Where more are open, none is: an answer that takes no work would do.
    """
    if expected.dtype not in EXACT or expected.reference is None or not expected.truth.numel():
        return None
    where = expected.reference != expected.truth
    for truth in shaken:
        where |= _grouped(truth) != expected.truth
    if int(where.sum()) > max(1, most * where.numel()):
        return None
    low, high = torch.cat([expected.truth.reshape(-1), ordinary.truth.reshape(-1)]).aminmax()
    return Undecided(where, low, high)


def _compare_exact(groups: torch.Tensor, expected: Expected, undecided: Undecided | None) -> Match:
    bad = groups != expected.truth
    if undecided is not None:
        bad &= ~(undecided.where & (groups >= undecided.low) & (groups <= undecided.high))
    if expected.reference is not None:
        # Where rounding decides between equals (an argmax), the reference's choice is as good as
        # the oracle's.
        bad &= groups != expected.reference
    wrong = int(bad.sum())
    if not wrong:
        return Match(0.0, 0, groups.numel(), "")
    flat = int(bad.to(torch.uint8).argmax())
    place = (flat // groups.shape[1], flat % groups.shape[1])
    return Match(float("inf"), wrong, groups.numel(), _describe(groups, expected, place, wrong))


def _describe(groups: torch.Tensor, expected: Expected, place: tuple[int, int], wrong: int) -> str:
    got, want = groups[place].item(), expected.truth[place].item()
    total = groups.numel()
    element = place[0] * groups.shape[1] + place[1]
    return (
        f"{wrong} of {total} elements are wrong; the worst is element {element} (row-major): "
        f"{got:.6g} instead of {want:.6g}"
    )


def _grouped(tensor: torch.Tensor) -> torch.Tensor:
    """(groups, elements): trailing dimensions merged until a group has a size of its own."""
    if tensor.dtype.is_complex:
        tensor = torch.view_as_real(tensor.resolve_conj())
    elements = 1
    for size in reversed(tensor.shape):
        elements *= size
        if elements >= GROUP:
            break
    return tensor.reshape(-1, elements) if tensor.numel() else tensor.reshape(0, 1)


def _real(tensor: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(tensor).flatten(1) if tensor.dtype.is_complex else tensor


def _chunks(groups: torch.Tensor) -> Iterator[slice]:
    elements = CHUNK_ELEMENTS if groups.device.type == "cpu" else DEVICE_CHUNK_ELEMENTS
    rows = max(1, elements // max(1, groups.shape[1]))
    for start in range(0, groups.shape[0], rows):
        yield slice(start, min(start + rows, groups.shape[0]))


def _thinned(values: torch.Tensor, most: int = 1 << 20) -> torch.Tensor:
    """A regular sample: torch.quantile takes no more than 16 million values."""
    return values[:: -(-values.numel() // most)]
