"""torch's elementary functions, each called once before threads may call it first.

torch 2.13 hands `exp`, `erf`, `sqrt` and the like on the CPU to Intel's MKL, which looks for the
machine code of a function when it is first called. Where that happens on several threads at once,
one of them may compute its part with a version of low accuracy, of 11 bits, and only that once
(https://github.com/pytorch/pytorch/issues/188792): an honest kernel was found wrong in one of some
hundred judgements. After a call on one thread all later ones are as they should be, and so are
those in processes that were forked since.
"""

import functools

import torch

# What torch's aten/src/ATen/cpu/vml.h has MKL compute, and what is made of these.
NAMES = (
    "acos", "asin", "atan", "ceil", "cos", "cosh", "erf", "erfc", "erfinv", "exp", "expm1", "floor",
    "lgamma", "log", "log10", "log1p", "log2", "round", "rsqrt", "sigmoid", "sin", "sinh", "sqrt",
    "tan", "tanh", "trunc",
)  # fmt: skip
# One vector and a rest; far fewer than torch would share out among threads.
ELEMENTS = 17


@functools.cache
def resolve() -> None:
    """Have MKL find every function, in both precisions, on this thread alone."""
    for dtype in (torch.float32, torch.float64):
        values = torch.full((ELEMENTS,), 0.5, dtype=dtype, device="cpu")
        for name in NAMES:
            getattr(torch, name)(values)
