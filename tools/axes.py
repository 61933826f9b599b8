"""Sizes with names: which dimensions of an op's tensors are one and the same, and which vary."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from tools.reference import LoadedReference, tensors_of
from tools.signature import Signature

SEED = 0
Shapes = list[tuple[int, ...]]


def columns_of(
    signatures: Sequence[Signature],
    loaded: LoadedReference,
    model: torch.nn.Module,
    inputs: tuple[Any, ...],
) -> list[tuple[Shapes, Shapes]]:
    """Shapes of inputs and outputs: as drawn, then with each size that varies at another value."""
    columns = [(_shapes(inputs), _shapes(loaded.run(model, inputs, SEED)))]
    for signature in signatures:
        if not signature.sizes:
            continue
        ((least, most),) = signature.sizes.values()
        left = iter(signature.inputs)
        varied = tuple(
            _resized(value, next(left).sizes, least, most)
            if isinstance(value, torch.Tensor)
            else value
            for value in inputs
        )
        columns.append((_shapes(varied), _shapes(loaded.run(model, varied, SEED))))
    return columns


def _shapes(packed: Any) -> Shapes:
    return [tuple(tensor.shape) for tensor in tensors_of(packed)]


def _resized(
    tensor: torch.Tensor, sizes: Sequence[int | str], least: int, most: int
) -> torch.Tensor:
    for dim, size in enumerate(sizes):
        if isinstance(size, str):
            before = tensor.shape[dim]
            wanted = least if least < before else most
            more = torch.cat([tensor] * -(-wanted // before), dim)
            tensor = more.narrow(dim, 0, wanted).contiguous()
    return tensor


def axes_of(
    columns: Sequence[tuple[Shapes, Shapes]],
    are_tensors: Sequence[bool],
    fixed: Mapping[int, tuple[int, ...]],
) -> tuple[dict[str, Any], list[list[str] | None]]:
    """Axes by name, and the shapes of arguments and outputs in their names.

    Sizes that are equal in every column share an axis, which is constant if they never differ.

    Args:
        columns: shapes of inputs and outputs, several times.
        are_tensors: for each argument.
        fixed: the shapes of those that are no inputs, by their places.
    """
    axes: dict[str, Any] = {}
    known: dict[tuple[int, ...], str] = {}

    def axis(values: tuple[int, ...]) -> str:
        if values not in known:
            const = len(set(values)) == 1
            varying = sum(one["type"] == "var" for one in axes.values())
            name = f"size_{values[0]}" if const else f"n{varying or ''}"
            known[values] = name
            axes[name] = {"type": "const", "value": values[0]} if const else {"type": "var"}
        return known[values]

    def named(shapes: Sequence[tuple[int, ...]]) -> list[str]:
        return [axis(values) for values in zip(*shapes, strict=True)]

    shapes: list[list[str] | None] = []
    place = 0
    for number, is_tensor in enumerate(are_tensors):
        if not is_tensor:
            shapes.append(None)
        elif number in fixed:
            shapes.append(named([fixed[number]] * len(columns)))
        else:
            shapes.append(named([given[place] for given, _ in columns]))
            place += 1
    made = range(len(columns[0][1]))
    return axes, [*shapes, *(named([out[number] for _, out in columns]) for number in made)]
