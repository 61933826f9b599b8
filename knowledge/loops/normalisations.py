"""Layer, RMS, group and instance norm as fused-loop values."""

from math import prod
from typing import Any

from knowledge.loops.expression import Expression
from knowledge.loops.form import Refused
from knowledge.loops.lower import Lowering
from knowledge.loops.operators import Arguments, External, Tensor, Work, operator, shape_of
from knowledge.loops.reductions import Rows, dtype_of, row_work
from knowledge.loops.shapes import Layout, spanned
from knowledge.opgraph import Node


def _trailing(node: Node, arguments: Arguments) -> Work:
    shape = shape_of(arguments["self"])
    count = len(arguments["normalized_shape"])
    return row_work(shape, tuple(range(len(shape) - count, len(shape))), composite=True)


def _trailing_rows(k: Lowering, arguments: Arguments) -> Rows:
    rank, count = len(k.shape(arguments["self"])), len(arguments["normalized_shape"])
    return Rows(k, arguments["self"], tuple(range(rank - count, rank)))


def _affine(rows: Rows, value: Expression, weight: Any, bias: Any, layout: Layout) -> Expression:
    """`value * weight + bias`, either of which may be None."""
    if weight is not None:
        value = value * Expression(rows.k.build, rows.k.at(weight, layout))
    if bias is not None:
        value = value + Expression(rows.k.build, rows.k.at(bias, layout))
    return value


@operator(
    "layer_norm native_layer_norm",
    "self, normalized_shape, weight=None, bias=None, eps=1e-5, cudnn=True",
    _trailing,
)
def _layer_norm(
    k: Lowering, node: Node, arguments: Arguments
) -> Tensor | tuple[Tensor | None, ...]:
    rows = _trailing_rows(k, arguments)
    spread, mean = rows.variance(0.0)
    value = (rows.full - mean) * (spread + float(arguments["eps"])).call("rsqrt")
    value = _affine(rows, value, arguments["weight"], arguments["bias"], rows.layout)
    result = rows.same(value, dtype_of(node))
    return (result, None, None) if isinstance(node.result, tuple) else result


EPSILON = {"float32": 2.0**-23, "float64": 2.0**-52, "float16": 2.0**-10, "bfloat16": 2.0**-7}


@operator("rms_norm", "self, normalized_shape, weight=None, eps=None", _trailing)
def _rms_norm(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    rows = _trailing_rows(k, arguments)
    given = arguments["eps"]
    # Without one, torch takes the epsilon of the type it computes in, which is float32 for halves.
    wide = "float64" if rows.tensor.dtype == "float64" else "float32"
    eps = EPSILON[wide] if given is None else float(given)
    value = rows.full * (rows.mean(rows.full * rows.full) + eps).call("rsqrt")
    value = _affine(rows, value, arguments["weight"], None, rows.layout)
    return rows.same(value, dtype_of(node))


def _group_work(node: Node, arguments: Arguments) -> Work:
    shape = shape_of(arguments["self"])
    groups = arguments["groups"]
    if prod(shape[1:]) == groups:
        raise Refused("groups of one element")
    return Work((shape[0], groups, shape[1] // groups, *shape[2:]), 2, len(shape) + 1)


@operator("group_norm", "self, groups, weight=None, bias=None, eps=1e-5, cudnn=True", _group_work)
def _group_norm(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    return _grouped(k, node, arguments, float(arguments["eps"]))


def _grouped(k: Lowering, node: Node, arguments: Arguments, eps: float) -> Tensor:
    """Normalise over the loop's columns; weight and bias belong to channels, dimension 1."""
    tensor = k.place(arguments["self"])
    atoms = spanned(tensor.layout)
    if not k.domain.structured or set(atoms) != set(k.domain.everything):
        raise Refused("groups of one element")
    rows = Rows(k, tensor, ())
    rows.atoms = k.domain.columns
    spread, mean = rows.variance(0.0)
    value = (rows.full - mean) * (spread + eps).call("rsqrt")
    channels = tensor.layout[1]
    for name, join in (("weight", Expression.__mul__), ("bias", Expression.__add__)):
        given = arguments[name]
        if given is None:
            continue
        if not isinstance(given, External):
            raise Refused("a weight that is computed in the loop")
        value = join(value, Expression(k.build, k.at(given, (channels,))))
    return rows.same(value, dtype_of(node))


def _instance_work(node: Node, arguments: Arguments) -> Work:
    if not arguments["use_input_stats"] or arguments["running_mean"] is not None:
        raise Refused("instance norm with running statistics")
    shape = shape_of(arguments["self"])
    return row_work(shape, tuple(range(2, len(shape))), composite=True)


@operator("instance_norm", "self, weight, bias, running_mean, running_var, use_input_stats, "
          "momentum, eps, cudnn", _instance_work)  # fmt: skip
def _instance_norm(k: Lowering, node: Node, arguments: Arguments) -> Tensor:
    return _grouped(k, node, arguments, float(arguments["eps"]))
