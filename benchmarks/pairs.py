"""Ten pairs of ops that are alike: the second differs from the first in size or in one operator.

Each is written as a user would write it, from one template, so that a pair's likeness can be read.
"""

from dataclasses import dataclass

TEMPLATE = '''\
"""{title}."""

import torch
import torch.nn.functional as F
from torch import nn


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
{layers}

    def forward(self, {arguments}):
{body}


def get_inputs():
    return [{inputs}]


def get_init_inputs():
    return []
'''
MARGIN = " " * 8


@dataclass(frozen=True)
class Op:
    """One op of a pair: lines of `__init__` and `forward`, and what makes each argument."""

    title: str
    body: tuple[str, ...]
    inputs: dict[str, str]
    layers: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """The reference's file."""
        return TEMPLATE.format(
            title=self.title,
            layers="\n".join(MARGIN + line for line in self.layers or ("pass",)),
            arguments=", ".join(self.inputs),
            body="\n".join(MARGIN + line for line in self.body),
            inputs=", ".join(self.inputs.values()),
        )


@dataclass(frozen=True)
class Pair:
    """Two ops, of which the first should teach about the second."""

    name: str
    first: Op
    second: Op


def _normal(*sizes: int) -> str:
    return f"torch.randn({', '.join(str(size) for size in sizes)})"


def _softmax(rows: int, columns: int) -> Op:
    return Op(
        f"Softmax of {rows} scaled rows of {columns}",
        ("return torch.softmax(x * 0.125, dim=-1)",),
        {"x": _normal(rows, columns)},
    )


def _masked_softmax(rows: int, columns: int) -> Op:
    return Op(
        f"Softmax of {rows} rows of {columns} with some entries hidden",
        ('return torch.softmax(x.masked_fill(hidden, float("-inf")), dim=-1)',),
        {"x": _normal(rows, columns), "hidden": f"torch.rand({rows}, {columns}) < 0.3"},
    )


def _rms_norm(tokens: int, features: int, *, residual: bool) -> Op:
    add = ("x = x + residual",) if residual else ()
    return Op(
        f"RMS norm of {tokens} tokens of {features}{', added to a residual' if residual else ''}",
        (
            *add,
            "mean_square = x.pow(2).mean(dim=-1, keepdim=True)",
            "return x * torch.rsqrt(mean_square + 1e-6) * self.gain",
        ),
        {"x": _normal(tokens, features)}
        | ({"residual": _normal(tokens, features)} if residual else {}),
        (f"self.gain = nn.Parameter(torch.rand({features}) + 0.5)",),
    )


def _layer_norm(tokens: int, features: int) -> Op:
    return Op(
        f"Layer norm of the sum of two streams, {tokens} tokens of {features}",
        ("return self.norm(x + update)",),
        {"x": _normal(tokens, features), "update": _normal(tokens, features)},
        (f"self.norm = nn.LayerNorm({features})",),
    )


def _linear(activation: str, rows: int, features: int, out: int) -> Op:
    return Op(
        f"A linear layer of {features} to {out} and {activation}, for {rows} rows",
        (f"return F.{activation}(self.layer(x))",),
        {"x": _normal(rows, features)},
        (f"self.layer = nn.Linear({features}, {out})",),
    )


def _linear_sum(rows: int, features: int, out: int) -> Op:
    return Op(
        f"The sum over a linear layer's {out} outputs, for {rows} rows of {features}",
        ("return self.layer(x).sum(dim=-1)",),
        {"x": _normal(rows, features)},
        (f"self.layer = nn.Linear({features}, {out})",),
    )


def _affine(activation: str, rows: int, columns: int) -> Op:
    return Op(
        f"Scale, shift and {activation}, {rows} rows of {columns}",
        (f"return F.{activation}(x * self.scale + self.shift)",),
        {"x": _normal(rows, columns)},
        (
            f"self.scale = nn.Parameter(torch.rand({columns}) + 0.5)",
            f"self.shift = nn.Parameter(torch.randn({columns}))",
        ),
    )


def _gate(activation: str, tokens: int, features: int) -> Op:
    return Op(
        f"One half gates the other by {activation}, {tokens} tokens of {features}",
        ("gate, value = x.chunk(2, dim=-1)", f"return F.{activation}(gate) * value"),
        {"x": _normal(tokens, 2 * features)},
    )


def _running_sum(rows: int, columns: int) -> Op:
    return Op(
        f"Running sum of weighted steps, {rows} rows of {columns}",
        ("return torch.cumsum(x * self.weight, dim=-1)",),
        {"x": _normal(rows, columns)},
        (f"self.weight = nn.Parameter(torch.rand({columns}))",),
    )


def _convolution(activation: str, channels: int, side: int) -> Op:
    return Op(
        f"A 3x3 convolution of {channels} channels with {activation}, images of {side}x{side}",
        (f"return F.{activation}(self.layer(x))",),
        {"x": _normal(4, channels, side, side)},
        (f"self.layer = nn.Conv2d({channels}, {channels}, 3, padding=1)",),
    )


PAIRS = (
    Pair("softmax", _softmax(4096, 2048), _softmax(1500, 6000)),
    Pair("masked_softmax", _masked_softmax(4096, 2048), _masked_softmax(2500, 3072)),
    Pair(
        "rms_norm",
        _rms_norm(4096, 2048, residual=False),
        _rms_norm(3000, 2304, residual=True),
    ),
    Pair("layer_norm", _layer_norm(4096, 1536), _layer_norm(6000, 1000)),
    Pair("linear", _linear("gelu", 512, 1024, 4096), _linear("relu", 768, 1536, 2048)),
    Pair("linear_sum", _linear_sum(512, 2048, 3072), _linear_sum(1024, 1024, 2048)),
    Pair("affine", _affine("gelu", 4096, 2048), _affine("silu", 3000, 2500)),
    Pair("gate", _gate("silu", 4096, 1536), _gate("gelu", 3000, 2048)),
    Pair("running_sum", _running_sum(4096, 2048), _running_sum(2000, 3000)),
    Pair("convolution", _convolution("gelu", 16, 128), _convolution("relu", 24, 96)),
)
