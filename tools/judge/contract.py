"""What a kernel owes besides right values: number, class, shape, dtype and memory of its outputs.

The runner's claims about them are believed only where they speak against the candidate.
"""

from collections.abc import Sequence
from typing import Any

import torch

from tools.judge.subject import Subject
from tools.runner.handover import Place


def broken_promise(reply: dict[str, Any], subject: Subject, expected: Sequence[Place]) -> str:
    """What the outputs break of the contract, in words; empty where they keep it.

    Args:
        reply: the runner's, to a copy of its outputs.
        subject: says whether an output may alias an input, or repeat its elements.
        expected: tensors of the shapes and dtypes that are owed, and None where that is.
    """
    claims = reply.get("claims")
    if not isinstance(claims, list):
        return "the runner said nothing of its outputs"
    if len(claims) != len(expected):
        left = len(subject.written)
        return f"forward returns {len(claims) - left} outputs instead of {len(expected) - left}"
    tensors = 0
    for place, (claim, owed) in enumerate(zip(claims, expected, strict=True)):
        if broken := _broken_by(claim, owed, subject, tensors):
            return subject.name_at(place) + broken
        tensors += owed is not None
    if reply.get("fits") is not True:
        return "the outputs do not have the reference's shapes and dtypes"
    return ""


def _broken_by(claim: Any, owed: Place, subject: Subject, number: int) -> str:
    """What one result breaks, in words that follow its name; `number` counts the tensors only."""
    kind = claim.get("type") if isinstance(claim, dict) else claim
    if owed is None:
        return "" if kind == "NoneType" else f" is a {kind} instead of None"
    if not isinstance(claim, dict) or kind != "Tensor":
        return f" is a {kind} instead of a plain torch.Tensor"
    if broken := _broken_claim(claim, owed, subject.device.type):
        return broken
    if claim.get("expanded") and not subject.expanded[number]:
        return " repeats its elements (a stride of 0), which the reference's does not"
    if claim.get("aliases") and not subject.aliases[number]:
        return " is the memory of an input, which the reference's is not"
    return ""


def _broken_claim(claim: dict[str, Any], tensor: torch.Tensor, device: str) -> str:
    """What a tensor's form breaks, in words that follow its name."""
    if claim.get("shape") != list(tensor.shape):
        return f" has shape {claim.get('shape')} instead of {list(tensor.shape)}"
    dtype = str(tensor.dtype).removeprefix("torch.")
    if claim.get("dtype") != dtype:
        return f" is {claim.get('dtype')} instead of {dtype}"
    if claim.get("device", "cpu") != device:
        return f" is on {claim.get('device')} instead of {device}"
    return ""
