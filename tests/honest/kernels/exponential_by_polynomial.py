"""An exponential of its own: range reduction and a polynomial, two or three roundings off."""

import math

import torch

AGAINST = "softmax"

COEFFICIENTS = [1 / math.factorial(power) for power in range(7, -1, -1)]


def exponential(x):
    powers = (x / math.log(2)).round().clamp(min=-126)
    # ln 2 in two parts, so that the difference keeps its last bits.
    rest = (x - powers * 0.693359375) + powers * 2.12194440e-4
    rest = rest.clamp(min=-0.4)
    made = torch.full_like(x, COEFFICIENTS[0])
    for coefficient in COEFFICIENTS[1:]:
        made = made * rest + coefficient
    return torch.ldexp(made, powers)


class ModelNew(torch.nn.Module):
    def forward(self, x):
        powers = exponential(x - x.amax(dim=-1, keepdim=True))
        return powers / powers.sum(dim=-1, keepdim=True)
