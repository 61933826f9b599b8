"""What in a reference is decided by last bits, or is a matter of taste, and what its op means.

Which of two computed scores is the larger, and to which whole number a quotient is rounded, hangs
on last bits where they come close; `topk` and `sort` may return equal elements in any order. An
honest kernel may decide otherwise there. The reference is therefore run once more with every such
decision turned: of elements as good as equal each gives way to the next, and a step is taken from
the other side. What an op returns either way is what it means.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
# Of all that pick but these torch's documentation promises the first of several that are equal.
ORDERING = {aten.topk.default, aten.sort.default, aten.sort.stable}
REDUCING = {aten.max.dim, aten.min.dim}
PLACING = {aten.argmax.default, aten.argmin.default}
LOWEST = {aten.min.dim, aten.argmin.default}
# Operators whose result leaps where an argument passes some number.
STEPS = {
    getattr(getattr(aten, name), overload)
    for name, overloads in {
        "round": ("default", "decimals"), "floor": ("default",), "ceil": ("default",),
        "trunc": ("default",), "sign": ("default",), "gt": ("Scalar", "Tensor"),
        "ge": ("Scalar", "Tensor"), "lt": ("Scalar", "Tensor"), "le": ("Scalar", "Tensor"),
    }.items()
    for overload in overloads
}  # fmt: skip
# In roundings of the largest value of a row.
LEAP = 1024.0
WHOLE = {torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64}


class Pick(NamedTuple):
    """One call of an operator that picks: among what, along which dimension, and how many."""

    scores: torch.Tensor
    dim: int
    picked: int
    lowest: bool
    promised: bool


class Noted(TorchDispatchMode):
    """Notes what every decision is made of, in order."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.values: list[list[torch.Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if decided := _decided(func, args, kwargs or {}):
            self.values.append([tensor.clone() for tensor in decided])
        return func(*args, **(kwargs or {}))


class Turned(TorchDispatchMode):
    """Has every decision that hangs on last bits fall otherwise.

    Args:
        noted: what the same decisions are made of in the op's own precision. `yardstick` times what
            that is off by in its row is as good as nothing. Values that are off nowhere are exact.
        yardstick: the task's.
    """

    def __init__(self, noted: list[list[torch.Tensor]], yardstick: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._noted: Iterator[list[torch.Tensor]] = iter(noted)
        self._yardstick = yardstick

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        decided = _decided(func, args, kwargs)
        noted = next(self._noted, []) if decided else []
        if [one.shape for one in noted] != [one.shape for one in decided] or not noted:
            return made
        pick = _pick(func, args, kwargs)
        if pick is None:
            near = sum(map(self._near, noted, decided))
            up, down = (func(decided[0] + by, *args[1:], **kwargs) for by in (near, -near))
            return torch.where(up != made, up, down)
        near = self._near(noted[0], decided[0]).reshape(pick.scores.shape)
        near = near.amax(pick.dim, keepdim=True)
        found, turned = _turn(pick, near)
        places = (made if func in PLACING else made[1]).reshape(turned.shape)
        # Among equals the operator may itself have picked what is turned to here.
        turned = torch.where(turned == places, found, turned)
        if pick.promised:
            turned = torch.where(near > 0, turned, places)
        if func in PLACING:
            return turned.reshape(made.shape)
        values = pick.scores.gather(pick.dim, turned)
        return values.reshape(made[0].shape), turned.reshape(made[1].shape)

    def _near(self, noted: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """How far a value may be off, by element."""
        if not value.numel() or not noted.is_floating_point() or torch.equal(value, value.trunc()):
            # Whole numbers are not rounded: what makes them differ was decided before.
            return torch.zeros(value.shape, dtype=torch.float64, device=value.device)
        error = (noted.to(value.dtype) - value).abs().nan_to_num(0.0, 0.0, 0.0)
        size = value.abs().nan_to_num(0.0, 0.0, 0.0)
        row = size.amax(-1, keepdim=True) if size.dim() else size
        rounding = torch.finfo(noted.dtype).eps
        # What is further off was decided otherwise before, and is no error.
        error = torch.where(error > LEAP * rounding * row, 0.0, error)
        if not bool(error.any()):
            return error
        worst = error.amax(-1, keepdim=True) if error.dim() else error
        # What lies below the least normal number may be lost to a kernel altogether.
        least = torch.finfo(noted.dtype).tiny
        return self._yardstick * torch.maximum(worst, rounding * size).clamp(min=least)


def _decided(func: Any, args: Any, kwargs: dict[str, Any]) -> list[torch.Tensor]:
    """The tensors that a call decides by; none where it decides nothing that may be turned."""
    to_whole = func is aten._to_copy.default and kwargs.get("dtype") in WHOLE
    if func not in STEPS and not to_whole and _pick(func, args, kwargs) is None:
        return []
    tensors = [one.detach() for one in args if isinstance(one, torch.Tensor)]
    rounded = any(one.is_floating_point() for one in tensors)
    return tensors if rounded or func in ORDERING else []


def _pick(func: Any, args: Any, kwargs: dict[str, Any]) -> Pick | None:
    """What a call picks; None if it picks nothing, or if its order is promised."""
    if func not in ORDERING | REDUCING | PLACING:
        return None
    declared = func._schema.arguments
    given = {one.name: one.default_value for one in declared if one.has_default_value()}
    given |= {one.name: value for one, value in zip(declared, args, strict=False)} | kwargs
    scores: torch.Tensor = given["self"].detach()
    dim = given["dim"]
    if dim is None:
        scores, dim = scores.reshape(-1), 0
    if given.get("stable") or not scores.dim() or not scores.shape[dim]:
        return None
    size = scores.shape[dim]
    picked = given["k"] if func is aten.topk.default else size if func in ORDERING else 1
    if func in ORDERING:
        highest = given["largest" if func is aten.topk.default else "descending"]
    else:
        highest = func not in LOWEST
    return Pick(scores, dim % scores.dim(), picked, not highest, func not in ORDERING)


def _turn(pick: Pick, near: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Places that may be picked, along `dim`; the same where near ones are their neighbours'."""
    seen = min(pick.picked + 1, pick.scores.shape[pick.dim])
    values, places = pick.scores.topk(seen, pick.dim, largest=not pick.lowest)
    values, places = values.movedim(pick.dim, -1), places.movedim(pick.dim, -1)
    near = near.movedim(pick.dim, -1)
    # Whether an element is as good as the next one; the last one has none.
    tied = (values[..., :-1] - values[..., 1:]).abs() <= near
    begins = torch.nn.functional.pad(~tied, (1, 0), value=True)
    ranks = torch.arange(seen, device=places.device).expand(places.shape)
    start = torch.where(begins, ranks, 0).cummax(-1).values
    following = torch.where(torch.nn.functional.pad(tied, (0, 1)), ranks + 1, start)
    turned = places.gather(-1, following)
    first, second = (one[..., : pick.picked].movedim(-1, pick.dim) for one in (places, turned))
    return first, second
