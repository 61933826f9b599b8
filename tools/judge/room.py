"""The least memory that judging an op takes, from its tensors; `tools.estimate` has the usual."""

from collections.abc import Iterable

import torch

# The judge, its zygote and three runners with torch loaded.
BASE_BYTES = 1 << 30
# Ordinary cases of an exam.
CASES = 3
# Those of the ordinary cases and of one with a few elements changed, two timed sets, what each of
# these was drawn with, and one in float64, which counts twice.
INPUT_COPIES = CASES + 7
# The judge's own, two of the exam, and one for each of three runners.
WEIGHT_COPIES = 6
# For each of three runners a result and the buffer that it is copied to; a timed one to be checked.
OUTPUT_COPIES = 7
# Of one case, the truth in float64; with it stands the reference's answer.
TRUTH_BYTES = 8


def least_needed(
    inputs: Iterable[torch.Tensor], weights: Iterable[torch.Tensor], outputs: Iterable[torch.Tensor]
) -> int:
    """Bytes that are held at once, whatever there is time and room for besides."""
    return (
        BASE_BYTES
        + INPUT_COPIES * sum(tensor.nbytes for tensor in inputs)
        + WEIGHT_COPIES * sum(tensor.nbytes for tensor in weights)
        + sum(OUTPUT_COPIES * tensor.nbytes + _truth(tensor) for tensor in outputs)
    )


def _truth(output: torch.Tensor) -> int:
    """Bytes of one case's answers to an output."""
    floating = output.is_floating_point() or output.is_complex()
    truth = output.numel() * max(TRUTH_BYTES, output.element_size()) if floating else output.nbytes
    return truth + output.nbytes
