"""Holds kernel.py against reference.py, both as they lie beside this file, in float64.

Run it with pytest or with plain python; it needs torch and what kernel.py needs. Each workload is a
case of its own.
"""

import functools
import importlib.util
import linecache
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

# Lines of reference.py and what stands in their place: the number of the first, they, the others.
Change = tuple[int, tuple[str, ...], tuple[str, ...]]
# What kernel.py was verified for: the name of each workload, and what makes reference.py be of it.
WORKLOADS: dict[str, tuple[Change, ...]] = {"as given": ()}
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


@functools.cache
def reference_on(workload: str) -> ModuleType:
    """The reference as it is on a workload.

    Raises:
        AssertionError: reference.py is not the file that the workloads were written for.
    """
    changes = WORKLOADS[workload]
    if not changes:
        return load("reference")
    path = Path(__file__).with_name("reference.py")
    lines = path.read_text(encoding="utf-8").split("\n")
    # From the end on, so that the numbers of lines before stay true.
    for first, given, others in reversed(changes):
        place = slice(first - 1, first - 1 + len(given))
        assert tuple(lines[place]) == given, f"reference.py was changed, in line {first} or above"
        lines[place] = others
    text = "\n".join(lines)
    name = f"reference_{list(WORKLOADS).index(workload)}"
    module = ModuleType(name)
    module.__file__ = str(path)
    # Tracebacks and compilers look here for the text, which is in no file.
    origin = f"<reference.py on {workload}>"
    linecache.cache[origin] = (len(text), None, text.splitlines(keepends=True), origin)
    sys.modules[name] = module
    exec(compile(text, origin, "exec"), module.__dict__)  # noqa: S102 - the file beside this one
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


def arguments_of(reference: ModuleType, seed: int) -> tuple[list[Any], dict[str, Any]]:
    """What a model is constructed with."""
    torch.manual_seed(seed)
    given: Any = getattr(reference, "get_init_inputs", list)()
    positional, named = ([], given) if isinstance(given, dict) else (list(given), {})
    if len(positional) == 2 and isinstance(positional[0], list) and isinstance(positional[1], dict):
        positional, named = positional
    return positional, named


def build(
    model: type[torch.nn.Module], reference: ModuleType, seed: int, device: torch.device
) -> torch.nn.Module:
    """A model with the reference's constructor arguments and weights drawn from `seed`."""
    positional, named = arguments_of(reference, seed)
    torch.manual_seed(seed)
    made = model(*positional, **named).to(device)
    for part in made.modules():
        for name, value in list(vars(part).items()):
            if isinstance(value, torch.Tensor):
                vars(part)[name] = value.to(device)
    return made


def draw(reference: ModuleType, seed: int, device: torch.device) -> list[Any]:
    """What forward is given."""
    torch.manual_seed(seed)
    given = reference.get_inputs()
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


def takes(kernel: ModuleType, reference: ModuleType, inputs: list[Any]) -> bool:
    """Whether a call goes to the kernel, of a model that is asked and no more: it runs."""
    asked = build(kernel.ModelNew, reference, 0, device_of(kernel))
    takes_kernel: Any = getattr(asked, "takes_kernel", None)
    return takes_kernel is None or takes_kernel(*inputs)


def check(workload: str, seed: int) -> None:
    """Compare all outputs for one seed."""
    kernel, reference = load("kernel"), reference_on(workload)
    device = device_of(kernel)
    inputs = draw(reference, seed, device)
    assert takes(kernel, reference, inputs), (
        "these inputs go to the reference, not to the kernel: see VERIFIED in kernel.py"
    )
    models = [build(reference.Model, reference, seed, device) for _ in range(2)]
    new = build(kernel.ModelNew, reference, seed, device)
    copy_weights(models[0], new)
    made = forward(new, inputs, None)
    expected = forward(models[0], inputs, None)
    exact = forward(models[1], inputs, torch.float64)
    assert len(made) == len(expected), f"{len(made)} outputs, should be {len(expected)}"
    for outputs in zip(made, expected, exact, strict=True):
        compare(*outputs)


def pytest_generate_tests(metafunc: Any) -> None:
    """Have pytest show each workload, by its name."""
    metafunc.parametrize("workload", WORKLOADS)


def test_kernel_agrees_with_the_float64_reference(workload: str) -> None:
    """Every seed draws new weights and new inputs."""
    for seed in SEEDS:
        check(workload, seed)


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


def test_gradients_are_those_of_the_reference(workload: str) -> None:
    """A kernel alone has no gradients, and is not asked for them."""
    reference, kernel = reference_on(workload), load("kernel")
    if not hasattr(kernel.ModelNew, "takes_kernel"):
        raise unittest.SkipTest("ModelNew is the kernel alone")
    device = device_of(kernel)
    old, new = (build(m, reference, 0, device) for m in (reference.Model, kernel.ModelNew))
    copy_weights(old, new)
    inputs = draw(reference, 0, device)
    expected, made = gradients(old, inputs), gradients(new, inputs)
    assert (made is None) == (expected is None), "one has gradients, the other has none"
    for one, other in zip(made or [], expected or [], strict=True):
        torch.testing.assert_close(one, other, msg=lambda said: f"gradients differ: {said}")


def found_on(workload: str) -> str:
    """What there is to say of a workload where nothing is wrong.

    Raises:
        AssertionError: something is.
        unittest.SkipTest: nothing can be checked here.
    """
    test_kernel_agrees_with_the_float64_reference(workload)
    said = f"agrees with the float64 reference on {len(SEEDS)} seeds"
    try:
        test_gradients_are_those_of_the_reference(workload)
    except unittest.SkipTest:
        return said
    return f"{said}, and its gradients are the reference's"


def main() -> None:
    """Run all of it, and say of each workload what was found.

    Raises:
        SystemExit: something is wrong, or missing.
    """
    try:
        load("kernel")
    except Exception as error:
        if isinstance(error, ImportError) or type(error).__name__ == "CompileError":
            sys.exit(f"kernel.py can't be built here: {error}")
        raise
    wrong: list[str] = []
    for workload in WORKLOADS:
        what = f"kernel.py on {workload}" if len(WORKLOADS) > 1 else "kernel.py"
        try:
            sys.stdout.write(f"{what} {found_on(workload)}\n")
        except AssertionError as error:
            wrong.append(f"{what} is wrong: {error}")
        except unittest.SkipTest as skipped:
            sys.exit(f"not checked: {skipped}")
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
