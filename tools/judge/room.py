"""The least memory that judging an op takes, from its tensors; `tools.estimate` has the usual."""

from collections.abc import Iterable

import torch

# The judge, its zygote and three runners with torch loaded.
BASE_BYTES = 1 << 30
# Three ordinary cases, two timed sets, and what each of these was drawn with.
INPUT_COPIES = 7
# The judge's own, two of the exam, and one for each of three runners.
WEIGHT_COPIES = 6
# For each of three ordinary cases: the truth in float64 and the reference's answer.
CASES, TRUTH_BYTES = 3, 8
# A first answer, and for each of two runners a result and the buffer that it is copied to.
OUTPUT_COPIES = 5


def least_needed(
    inputs: Iterable[torch.Tensor], weights: Iterable[torch.Tensor], outputs: Iterable[torch.Tensor]
) -> int:
    """Bytes that are held at once, whatever there is time for besides."""
    return (
        BASE_BYTES
        + INPUT_COPIES * sum(tensor.nbytes for tensor in inputs)
        + WEIGHT_COPIES * sum(tensor.nbytes for tensor in weights)
        + sum(OUTPUT_COPIES * tensor.nbytes + CASES * _case(tensor) for tensor in outputs)
    )


def _case(output: torch.Tensor) -> int:
    """Bytes of one case's answers to an output."""
    floating = output.is_floating_point() or output.is_complex()
    truth = output.numel() * max(TRUTH_BYTES, output.element_size()) if floating else output.nbytes
    return truth + output.nbytes
