"""Holds kernel.py against reference.py, both as they lie beside this file, in float64.

Run it with pytest or with plain python; it needs torch and what kernel.py needs.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

SEEDS = (0, 1, 2)
# An element may be off by this multiple of the reference's own worst error, or by this many
# epsilons of its dtype times the largest value of the output, whichever is more.
YARDSTICK = 4.0
EPSILONS = 32.0


def load(name: str) -> ModuleType:
    """The module in the file of that name beside this one."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def build(model: type[torch.nn.Module], reference: ModuleType, seed: int) -> torch.nn.Module:
    """A model with the reference's constructor arguments and weights drawn from `seed`."""
    torch.manual_seed(seed)
    given: Any = getattr(reference, "get_init_inputs", list)()
    positional, named = ([], given) if isinstance(given, dict) else (given, {})
    if len(positional) == 2 and isinstance(positional[0], list) and isinstance(positional[1], dict):
        positional, named = positional
    torch.manual_seed(seed)
    return model(*positional, **named)


def copy_weights(source: torch.nn.Module, target: torch.nn.Module) -> None:
    """Copy every weight whose name and shape both models share."""
    known = source.state_dict()
    for name, value in target.state_dict().items():
        if name in known and known[name].shape == value.shape:
            value.copy_(known[name])


def forward(model: torch.nn.Module, inputs: list[Any], dtype: torch.dtype | None) -> list[Any]:
    """The outputs on copies of the inputs, floating ones converted to `dtype` if one is given."""
    copies = [x.clone() if isinstance(x, torch.Tensor) else x for x in inputs]
    if dtype is not None:
        model = model.to(dtype)
        copies = [
            x.to(dtype) if isinstance(x, torch.Tensor) and x.is_floating_point() else x
            for x in copies
        ]
    with torch.no_grad():
        returned = model(*copies)
    return list(returned) if isinstance(returned, list | tuple) else [returned]


def compare(made: torch.Tensor, reference: torch.Tensor, exact: torch.Tensor) -> None:
    """Raise AssertionError unless one output is as near to the float64 value as it must be."""
    assert made.shape == reference.shape, f"shape {made.shape}, should be {reference.shape}"
    assert made.dtype == reference.dtype, f"dtype {made.dtype}, should be {reference.dtype}"
    if not made.is_floating_point():
        assert torch.equal(made, reference), "whole numbers differ"
        return
    finite = torch.isfinite(exact)
    assert torch.equal(made[~finite].double().nan_to_num(), exact[~finite].nan_to_num()), (
        "NaN or infinity differ"
    )
    error = (made.double() - exact)[finite].abs()
    own_error = (reference.double() - exact)[finite].abs()
    if error.numel() == 0:
        return
    scale = exact[finite].abs().max().item()
    floor = EPSILONS * torch.finfo(made.dtype).eps * scale
    allowed = max(YARDSTICK * own_error.max().item(), floor)
    worst = error.max().item() if not error.isnan().any() else float("inf")
    assert worst <= allowed, f"off by {worst:.3g} where {allowed:.3g} is allowed"


def check(seed: int) -> None:
    """Compare all outputs for one seed."""
    reference, kernel = load("reference"), load("kernel")
    torch.manual_seed(seed)
    given = reference.get_inputs()
    inputs = [given] if isinstance(given, torch.Tensor) else list(given)
    models = [build(reference.Model, reference, seed) for _ in range(2)]
    new = build(kernel.ModelNew, reference, seed)
    copy_weights(models[0], new)
    made = forward(new, inputs, None)
    expected = forward(models[0], inputs, None)
    exact = forward(models[1], inputs, torch.float64)
    assert len(made) == len(expected), f"{len(made)} outputs, should be {len(expected)}"
    for outputs in zip(made, expected, exact, strict=True):
        compare(*outputs)


def test_kernel_agrees_with_the_float64_reference() -> None:
    """Every seed draws new weights and new inputs."""
    for seed in SEEDS:
        check(seed)


if __name__ == "__main__":
    try:
        test_kernel_agrees_with_the_float64_reference()
    except AssertionError as error:
        sys.exit(f"kernel.py is wrong: {error}")
    sys.stdout.write(f"kernel.py agrees with the float64 reference on {len(SEEDS)} seeds\n")
