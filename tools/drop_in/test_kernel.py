"""Holds kernel.py against reference.py, both as they lie beside this file, in float64.

Run it with pytest or with plain python; it needs torch and what kernel.py needs.
"""

import functools
import importlib.util
import sys
import unittest
from pathlib import Path
from types import ModuleType
from typing import Any

try:
    import torch
except ImportError as error:
    if __name__ == "__main__":
        sys.exit("torch is missing: pip install torch")
    raise ImportError("torch is missing: pip install torch") from error

SEEDS = (0, 1, 2)
# An element may be off by this multiple of the reference's own worst error, or by this many
# epsilons of its dtype times the largest value of the output, whichever is more.
YARDSTICK = 4.0
EPSILONS = 32.0


@functools.cache
def load(name: str) -> ModuleType:
    """The module in the file of that name beside this one."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def device_of(kernel: ModuleType) -> torch.device:
    """Where the kernel runs.

    Raises:
        unittest.SkipTest: that is a GPU, and torch sees none.
    """
    table = getattr(kernel, "VERIFIED", ())
    on_gpu = any(hasattr(kernel, name) for name in ("cuda_kernel", "triton", "tl"))
    kind = table[0]["device"].partition(":")[0] if table else ("cuda" if on_gpu else "cpu")
    if kind == "cuda" and not torch.cuda.is_available():
        raise unittest.SkipTest("kernel.py is for a GPU, and torch sees none here")
    return torch.device(kind)


def build(model: type[torch.nn.Module], seed: int, device: torch.device) -> torch.nn.Module:
    """A model with the reference's constructor arguments and weights drawn from `seed`."""
    torch.manual_seed(seed)
    given: Any = getattr(load("reference"), "get_init_inputs", list)()
    positional, named = ([], given) if isinstance(given, dict) else (given, {})
    if len(positional) == 2 and isinstance(positional[0], list) and isinstance(positional[1], dict):
        positional, named = positional
    torch.manual_seed(seed)
    made = model(*positional, **named).to(device)
    for part in made.modules():
        for name, value in list(vars(part).items()):
            if isinstance(value, torch.Tensor):
                vars(part)[name] = value.to(device)
    return made


def draw(seed: int, device: torch.device) -> list[Any]:
    """What forward is given."""
    torch.manual_seed(seed)
    given = load("reference").get_inputs()
    inputs = [given] if isinstance(given, torch.Tensor) else list(given)
    return [x.to(device) if isinstance(x, torch.Tensor) else x for x in inputs]


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
    device = device_of(kernel)
    inputs = draw(seed, device)
    models = [build(reference.Model, seed, device) for _ in range(2)]
    new = build(kernel.ModelNew, seed, device)
    copy_weights(models[0], new)
    made = forward(new, inputs, None)
    expected = forward(models[0], inputs, None)
    exact = forward(models[1], inputs, torch.float64)
    assert len(made) == len(expected), f"{len(made)} outputs, should be {len(expected)}"
    for outputs in zip(made, expected, exact, strict=True):
        compare(*outputs)
    # The drop-in leaves to the reference what its kernel is not for; that would prove nothing.
    takes_kernel: Any = getattr(new, "takes_kernel", None)
    assert takes_kernel is None or takes_kernel(*inputs), (
        "these inputs go to the reference, not to the kernel: see VERIFIED in kernel.py"
    )


def test_kernel_agrees_with_the_float64_reference() -> None:
    """Every seed draws new weights and new inputs."""
    for seed in SEEDS:
        check(seed)


def gradients(model: torch.nn.Module, inputs: list[Any]) -> list[torch.Tensor] | None:
    """Of the parameters, then of the inputs; None where nothing that comes out has any."""
    given = [
        x.clone().requires_grad_() if isinstance(x, torch.Tensor) and x.is_floating_point() else x
        for x in inputs
    ]
    returned = model(*given)
    outputs = list(returned) if isinstance(returned, list | tuple) else [returned]
    outputs = [output for output in outputs if output.requires_grad]
    if not outputs:
        return None
    torch.manual_seed(0)
    torch.autograd.backward(outputs, [torch.randn_like(output) for output in outputs])
    leaves = [*model.parameters(), *(x for x in given if isinstance(x, torch.Tensor))]
    return [x.grad if x.grad is not None else torch.zeros_like(x) for x in leaves]


def test_gradients_are_those_of_the_reference() -> None:
    """A kernel alone has no gradients, and is not asked for them."""
    reference, kernel = load("reference"), load("kernel")
    if not hasattr(kernel.ModelNew, "takes_kernel"):
        raise unittest.SkipTest("ModelNew is the kernel alone")
    device = device_of(kernel)
    old, new = (build(m, 0, device) for m in (reference.Model, kernel.ModelNew))
    copy_weights(old, new)
    inputs = draw(0, device)
    expected, made = gradients(old, inputs), gradients(new, inputs)
    assert (made is None) == (expected is None), "one has gradients, the other has none"
    for one, other in zip(made or [], expected or [], strict=True):
        torch.testing.assert_close(one, other, msg=lambda said: f"gradients differ: {said}")


def main() -> str:
    """Run all of it; what to say in the end.

    Raises:
        SystemExit: something is wrong, or missing.
    """
    try:
        load("kernel")
    except Exception as error:
        if isinstance(error, ImportError) or type(error).__name__ == "CompileError":
            sys.exit(f"kernel.py can't be built here: {error}")
        raise
    try:
        test_kernel_agrees_with_the_float64_reference()
    except AssertionError as error:
        sys.exit(f"kernel.py is wrong: {error}")
    except unittest.SkipTest as skipped:
        sys.exit(f"not checked: {skipped}")
    said = f"kernel.py agrees with the float64 reference on {len(SEEDS)} seeds"
    try:
        test_gradients_are_those_of_the_reference()
    except AssertionError as error:
        sys.exit(f"kernel.py is wrong: {error}")
    except unittest.SkipTest:
        return said
    return f"{said}, and its gradients are the reference's"


if __name__ == "__main__":
    sys.stdout.write(f"{main()}\n")
