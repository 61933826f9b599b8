"""Example values as expressions that draw values of their kind: same shape, dtype and spread."""

import math
from typing import Any

import torch

# Drawn like a standard normal: within so much of it.
NEAR = 0.1
# So many spreads from zero, a normal is as good as never on the other side of it.
FAR = 6.0


class NotWritable(Exception):
    """A value has no expression; the message says which, as a clause."""


def drawn(value: Any, name: str = "an input") -> str:
    """An expression that draws a value like this one; what is no tensor is written as it is.

    Raises:
        NotWritable: it holds something that has no expression.
    """
    if isinstance(value, torch.Tensor):
        return _like_tensor(value, name)
    if isinstance(value, list):
        return f"[{', '.join(drawn(one, name) for one in value)}]"
    if isinstance(value, tuple) and type(value) is tuple:
        inside = ", ".join(drawn(one, name) for one in value)
        return f"({inside},)" if len(value) == 1 else f"({inside})"
    if isinstance(value, dict):
        pairs = (f"{literal(key)}: {drawn(one, name)}" for key, one in value.items())
        return f"{{{', '.join(pairs)}}}"
    return literal(value, name)


def literal(value: Any, name: str = "a value") -> str:
    """A plain value as Python text.

    Raises:
        NotWritable: it is no plain value.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if value is None or type(value) in (bool, int, float, str, complex):
        return repr(value)
    if isinstance(value, torch.dtype | torch.memory_format | torch.layout):
        return str(value)
    if isinstance(value, torch.device):
        return f'torch.device("{value}")'
    if type(value) in (list, tuple, dict, set):
        if isinstance(value, dict):
            pairs = (f"{literal(key, name)}: {literal(one, name)}" for key, one in value.items())
            return f"{{{', '.join(pairs)}}}"
        inside = ", ".join(literal(one, name) for one in value)
        if isinstance(value, tuple):
            return f"({inside},)" if len(value) == 1 else f"({inside})"
        return f"[{inside}]" if isinstance(value, list) else f"{{{inside}}}" if inside else "set()"
    raise NotWritable(f"{name} is a {type(value).__qualname__}, which can't be written down")


def _like_tensor(value: torch.Tensor, name: str) -> str:
    if type(value) not in (torch.Tensor, torch.nn.Parameter) or value.layout != torch.strided:
        raise NotWritable(f"{name} is a {type(value).__qualname__} of layout {value.layout}")
    strides = value.stride()
    order = sorted(range(value.dim()), key=lambda at: (-strides[at], at))
    dense = value.permute(order).is_contiguous()
    if not value.numel() or value.is_contiguous() or not dense:
        return _values_like(value, list(value.shape), name)
    back = [order.index(at) for at in range(value.dim())]
    laid_out = [value.shape[at] for at in order]
    return f"({_values_like(value, laid_out, name)}).permute({back})"


def _values_like(value: torch.Tensor, shape: list[int], name: str) -> str:
    kind = f"dtype={value.dtype}"
    if not value.numel():
        return f"torch.empty({shape}, {kind})"
    if value.dtype == torch.bool:
        return f"torch.rand({shape}) < {_short(value.double().mean().item())}"
    if value.is_complex():
        return f"torch.randn({shape}, {kind})"
    if not value.is_floating_point():
        least, most = int(value.min()), int(value.max())
        return f"torch.randint({least}, {most + 1}, {shape}, {kind})"
    finite = value.detach().double()
    finite = finite[finite.isfinite()]
    if not finite.numel():
        raise NotWritable(f"{name} holds no finite number")
    low, high = finite.min().item(), finite.max().item()
    mean, spread = finite.mean().item(), finite.std(correction=0).item()
    if low == high:
        return f"torch.full({shape}, {low!r}, {kind})"
    # Where no example is negative, none may be: a root or a logarithm may be taken of it.
    if low >= 0 and mean < FAR * spread:
        return f"torch.rand({shape}, {kind}) * {_short(high - low)} + {_short(low)}"
    if abs(mean) < NEAR and abs(spread - 1) < NEAR:
        return f"torch.randn({shape}, {kind})"
    return f"torch.randn({shape}, {kind}) * {_short(spread)} + {_short(mean)}"


def _short(number: float) -> str:
    return repr(float(f"{number:.3g}"))
