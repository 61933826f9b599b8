"""Arguments as JSON: whatever `get_inputs()` and `get_init_inputs()` return, nothing pickled.

Tensors travel beside the message in shared memory; the text holds their place in that list.
"""

from typing import Any

import torch

Encoded = Any
NAMED = (torch.dtype, torch.layout, torch.memory_format)


class CannotTravel(Exception):
    """A value of a kind that has no plain form; the message names its type."""


def encode(value: Any, tensors: list[torch.Tensor]) -> Encoded:
    """A JSON form of `value`; tensors in it are appended to `tensors`.

    Raises:
        CannotTravel: it holds something that is neither plain data nor a tensor.
    """
    if isinstance(value, torch.Tensor):
        tensors.append(value.detach())
        return {"tensor": len(tensors) - 1}
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return {"float": value.hex()}
    if isinstance(value, complex):
        return {"complex": [value.real.hex(), value.imag.hex()]}
    if isinstance(value, NAMED):
        return {"torch": str(value).removeprefix("torch.")}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    if isinstance(value, tuple):
        return {"tuple": [encode(item, tensors) for item in value]}
    if isinstance(value, list):
        return [encode(item, tensors) for item in value]
    if isinstance(value, dict):
        return {"dict": [[encode(k, tensors), encode(v, tensors)] for k, v in value.items()]}
    raise CannotTravel(type(value).__name__)


def decode(value: Encoded, tensors: tuple[torch.Tensor, ...]) -> Any:
    """What `encode` was given, with these tensors in the place of its own."""
    if isinstance(value, list):
        return [decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, held),) = value.items()
    match kind:
        case "tensor":
            return tensors[held]
        case "float":
            return float.fromhex(held)
        case "complex":
            return complex(float.fromhex(held[0]), float.fromhex(held[1]))
        case "torch":
            return getattr(torch, held)
        case "device":
            return torch.device(held)
        case "tuple":
            return tuple(decode(item, tensors) for item in held)
        case "dict":
            return {decode(k, tensors): decode(v, tensors) for k, v in held}
        case _:
            raise CannotTravel(kind)
