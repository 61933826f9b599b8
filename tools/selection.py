"""What a mask selects, `x[mask]`, in fixed shapes: all is kept, and masked where it is summed up.

How many rows a mask selects hangs on its values, so a static graph has no shape for them. But most
selections end in a sum or a mean, in which what was not selected can count as nothing: a loss over
the tokens that are not padding is the sum over all tokens of the loss or 0, by how many there are.
In between each row must be worked on by itself, since rows that were not selected are there too.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

# What works on each element alone, by the names that torch's functions have.
POINTWISE = {
    "abs", "add", "acos", "asin", "atan", "atan2", "bfloat16", "bitwise_and", "bitwise_or", "bool",
    "ceil", "celu", "clamp", "clamp_max", "clamp_min", "clone", "contiguous", "cos", "cosh",
    "detach", "div", "double", "elu", "eq", "erf", "erfc", "exp", "exp2", "expm1", "float", "floor",
    "ge", "gelu", "gt", "half", "hardsigmoid", "hardswish", "hardtanh", "int", "isfinite", "isinf",
    "isnan", "le", "leaky_relu", "lerp", "log", "log10", "log1p", "log2", "logaddexp",
    "logical_and", "logical_not", "logical_or", "logsigmoid", "long", "lt", "maximum", "minimum",
    "mish", "mul", "multiply", "nan_to_num", "ne", "neg", "negative", "pow", "radd", "rdiv",
    "reciprocal", "relu", "relu6", "rmul", "round", "rpow", "rsqrt", "rsub", "rtruediv", "selu",
    "sigmoid", "sign", "silu", "sin", "sinh", "softplus", "softsign", "sqrt", "square", "sub",
    "subtract", "tan", "tanh", "to", "true_divide", "truediv", "trunc", "type_as", "where", "xlogy",
}  # fmt: skip
# What works along dimensions that it is told, each row alone where the first is not among them.
ALONG = {"softmax", "log_softmax", "logsumexp", "normalize", "amax", "amin", "argmax", "argmin",
         "prod"}  # fmt: skip
LOSSES = (
    F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss, F.binary_cross_entropy,
    F.binary_cross_entropy_with_logits, F.kl_div, F.soft_margin_loss, F.poisson_nll_loss,
)  # fmt: skip
CLASS_LOSSES = (F.cross_entropy, F.nll_loss)
# What is the same of rows that are there and of those that were selected.
SAME = tuple(
    getattr(torch.Tensor, name).__get__ for name in ("dtype", "device", "ndim", "layout", "is_cuda")
)


class NotMasked(Exception):
    """Something is done to selected rows that is more than each row by itself, or a sum of them."""


class Selections(TorchFunctionMode):
    """Within this mode what a mask selects is all that there is, and is masked where it is summed.

    Raises:
        NotMasked: at whatever has no such form.
    """

    def __init__(self) -> None:
        super().__init__()
        # Of what was selected: itself, which keeps its id from being another's, and its mask.
        self._selected: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        # Of each mask: itself, and its elements in a row.
        self._masks: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Do a call of torch's."""
        kwargs = kwargs or {}
        tensors = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        masks = {id(self._selected[id(x)][1]): self._selected[id(x)][1]
                 for x in tensors if id(x) in self._selected}  # fmt: skip
        full = getattr(func, "__name__", "")
        name = full.strip("_")
        if not masks:
            selects = name in ("getitem", "masked_select") and _selects(args) and not kwargs
            return self._select(*args) if selects else func(*args, **kwargs)
        if len(masks) > 1:
            raise NotMasked(f"{name} of what two masks select")
        (mask,) = masks.values()
        if func in SAME:
            return func(*args, **kwargs)
        if func in CLASS_LOSSES or func in LOSSES:
            return self._loss(func, mask, args, kwargs)
        if name in ("sum", "mean"):
            return self._summed(name, mask, args, kwargs)
        in_place = full.endswith("_") and not full.endswith("__")
        if in_place or not (name in POINTWISE or (name in ALONG and 0 not in _dims(args, kwargs))):
            raise NotMasked(f"{name or func} of what a mask selects")
        self._check_alike(tensors)
        return self._keep(func(*args, **kwargs), mask)

    def _select(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if id(mask) not in self._masks:
            self._masks[id(mask)] = mask, mask.reshape(-1)
        flat = self._masks[id(mask)][1]
        return self._keep(x.reshape(-1, *x.shape[mask.dim() :]), flat)

    def _keep(self, made: Any, mask: torch.Tensor) -> torch.Tensor:
        if not isinstance(made, torch.Tensor) or made.dim() == 0 or len(made) != len(mask):
            raise NotMasked("what is made of selected rows has others")
        self._selected[id(made)] = made, mask
        return made

    def _check_alike(self, tensors: list[torch.Tensor]) -> None:
        """That other tensors meet selected rows along other dimensions than the first."""
        rank = min(x.dim() for x in tensors if id(x) in self._selected)
        for x in tensors:
            if id(x) not in self._selected and x.dim() >= rank and x.numel() > 1:
                raise NotMasked("a tensor of another length meets what a mask selects")

    def _summed(self, name: str, mask: torch.Tensor, args: Any, kwargs: Any) -> Any:
        call = getattr(torch, name)
        x, *rest = args
        named = dict(kwargs)
        if rest:
            named.setdefault("dim", rest[0] if len(rest) == 1 else rest)
        dim, keepdim, dtype = (named.pop(one, None) for one in ("dim", "keepdim", "dtype"))
        if named or not isinstance(x, torch.Tensor) or len(rest) > 1:
            raise NotMasked(f"{name} with {', '.join(named) or 'more than dimensions'}")
        given = range(x.dim()) if dim is None else [dim] if isinstance(dim, int) else dim
        dims = sorted({one % x.dim() for one in given})
        if 0 not in dims:
            return self._keep(call(x, dims, bool(keepdim), dtype=dtype), mask)
        x = x.to(dtype) if dtype is not None else x
        counted = _along(mask, x)
        return _reduced(name, x, counted, dims, keepdim=bool(keepdim))

    def _loss(self, func: Any, mask: torch.Tensor, args: Any, kwargs: Any) -> Any:
        bound = inspect.signature(func).bind(*args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        how = given["reduction"]
        if given.get("size_average") is not None or given.get("reduce") is not None:
            raise NotMasked("a loss with names of long ago")
        given["reduction"] = "none"
        x, y = list(given)[:2]
        tensors = [given[x], given[y]]
        if any(id(one) not in self._selected for one in tensors):
            raise NotMasked("a loss of what is selected against what is not")
        if isinstance(given.get("weight"), torch.Tensor):
            raise NotMasked("a loss with weights")
        counted = mask
        if func in CLASS_LOSSES:
            if given[y].is_floating_point() or given[x].dim() != 2:
                raise NotMasked("a loss over probabilities of classes")
            counted = mask & (given[y] != given["ignore_index"])
            # A label that was not selected may be none of the classes.
            given[y] = torch.where(mask, given[y], 0)
        if func is F.binary_cross_entropy:
            # Nor need it be a probability.
            for one in (x, y):
                given[one] = torch.where(_along(mask, given[one]), given[one], 0.5)
        losses = func(*bound.args, **bound.kwargs)
        if how == "none":
            return self._keep(losses, mask)
        if how == "batchmean":
            total = _reduced("sum", losses, _along(mask, losses), [*range(losses.dim())])
            return total / mask.sum()
        return _reduced(how, losses, _along(counted, losses), [*range(losses.dim())])


def _selects(args: Any) -> bool:
    """Whether an index is a mask over the first dimensions."""
    if len(args) != 2 or not all(isinstance(one, torch.Tensor) for one in args):
        return False
    x, mask = args
    return mask.dtype is torch.bool and mask.dim() > 0 and x.shape[: mask.dim()] == mask.shape


def _dims(args: Any, kwargs: Any) -> list[int]:
    """The dimensions that a call works along: the first too where it doesn't say."""
    dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
    given = [dim] if isinstance(dim, int) else dim
    if not (args and isinstance(args[0], torch.Tensor) and isinstance(given, list | tuple)):
        return [0]
    return [one % args[0].dim() for one in given if isinstance(one, int)] or [0]


def _along(mask: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A mask of rows as one of elements, to be broadcast."""
    return mask.reshape(-1, *(1 for _ in range(x.dim() - 1)))


def _reduced(
    name: str, x: torch.Tensor, counted: torch.Tensor, dims: list[int], keepdim: bool = False
) -> torch.Tensor:
    """The sum or the mean of what counts, along the first dimension and maybe others.

    In float32 where the type is narrower, as torch has it.
    """
    wide = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else None
    total = torch.where(counted, x, 0).sum(dims, keepdim, dtype=wide)
    if name == "mean":
        others = 1
        for dim in dims[1:]:
            others *= x.shape[dim]
        total = total / (counted.sum() * others if others > 1 else counted.sum())
    return total.to(x.dtype) if wide is not None else total
