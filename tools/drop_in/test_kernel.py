"""Holds kernel.py against reference.py, both as they lie beside this file, in float64.

Run it with pytest or with plain python; it needs torch and what kernel.py needs. Each workload is a
case of its own.
"""

import functools
import importlib.util
import inspect
import linecache
import sys
import unittest
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

try:
    import torch
except ImportError as error:
    if __name__ == "__main__":
        sys.exit("torch is missing: pip install torch")
    raise ImportError("torch is missing: pip install torch") from error

from torch.utils import _pytree as pytree

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
    if len(positional) == 2 and isinstance(positional[1], dict):
        first = positional[0]
        if isinstance(first, list | tuple) and _binds(reference.Model, first, positional[1]):
            return list(first), positional[1]
    return positional, named


def _binds(model: Any, positional: Any, named: dict[str, Any]) -> bool:
    try:
        inspect.signature(model).bind(*positional, **named)
    except TypeError:
        return False
    return True


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
    moved: list[Any] = each_tensor(lambda x: x.to(device), inputs)
    return moved


def each_tensor(change: Callable[[torch.Tensor], torch.Tensor], packed: Any) -> Any:
    """The same with every tensor changed, however they are packed."""
    return pytree.tree_map_only(torch.Tensor, change, packed)


def tensors_in(packed: Any) -> list[torch.Tensor]:
    """The tensors in what forward takes or returns, in order."""
    return [x for x in pytree.tree_leaves(packed) if isinstance(x, torch.Tensor)]


def results_in(packed: Any) -> list[torch.Tensor | None]:
    """What forward returns, in order: tensors, and None where it returns that."""
    return [x for x in pytree.tree_leaves(packed) if x is None or isinstance(x, torch.Tensor)]


def widened(x: torch.Tensor) -> torch.Tensor:
    """In double precision, unless it holds whole numbers."""
    if x.is_complex():
        return x.to(torch.complex128)
    return x.double() if x.is_floating_point() else x


def dtype_of(result: torch.Tensor | None) -> torch.dtype | None:
    """A result's dtype; None where that is returned."""
    return None if result is None else result.dtype


def copy_weights(source: torch.nn.Module, target: torch.nn.Module) -> None:
    """Copy every weight whose name and shape both models share."""
    known = source.state_dict()
    for name, value in target.state_dict().items():
        if name in known and known[name].shape == value.shape:
            value.copy_(known[name])


def forward(
    model: torch.nn.Module, inputs: list[Any], buffers: list[str], *, wide: bool = False
) -> list[torch.Tensor | None]:
    """What comes out, and behind it what is left in the inputs and in these buffers.

    The inputs are copied; with `wide` all is done in double precision.
    """
    given = each_tensor(torch.clone, inputs)
    if wide:
        for part in model.modules():
            apply: Any = part._apply
            apply(widened, recurse=False)
            for name, value in list(vars(part).items()):
                if isinstance(value, torch.Tensor):
                    vars(part)[name] = widened(value)
        given = each_tensor(widened, given)
    with torch.no_grad():
        returned = model(*given)
    held = dict(model.named_buffers())
    return [*results_in(returned), *tensors_in(given), *(held[name] for name in buffers)]


def exactly(
    model: torch.nn.Module,
    inputs: list[Any],
    buffers: list[str],
    expected: list[torch.Tensor | None],
) -> list[torch.Tensor | None]:
    """The same in float64; what is expected, where the reference can't be run in that."""
    try:
        exact = forward(model, inputs, buffers, wide=True)
    except RuntimeError:
        exact = []
    wanted = [None if one is None else widened(one) for one in expected]
    if list(map(dtype_of, exact)) != list(map(dtype_of, wanted)):
        return wanted
    return exact


def compare(
    made: torch.Tensor | None, reference: torch.Tensor | None, exact: torch.Tensor | None
) -> None:
    """Raise AssertionError unless one output is as near to the float64 value as it must be."""
    if made is None or reference is None or exact is None:
        assert made is reference is exact, "None in other places than the reference's"
        return
    assert made.shape == reference.shape, f"shape {made.shape}, should be {reference.shape}"
    assert made.dtype == reference.dtype, f"dtype {made.dtype}, should be {reference.dtype}"
    if made.is_complex():
        pairs = [torch.view_as_real(x.resolve_conj()) for x in (made, reference, exact)]
        compare(*pairs)
        return
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
    theirs = dict(new.named_buffers())
    buffers = [
        name
        for name, buffer in models[0].named_buffers()
        if name in theirs and theirs[name].shape == buffer.shape
    ]
    made = forward(new, inputs, buffers)
    expected = forward(models[0], inputs, buffers)
    exact = exactly(models[1], inputs, buffers, expected)
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


def gradients(
    model: torch.nn.Module, inputs: list[Any], which: list[int] | None = None
) -> tuple[list[int], list[torch.Tensor]]:
    """Of the parameters, then of the inputs; and which outputs have any, unless that is given."""
    given = each_tensor(
        lambda x: x.clone().requires_grad_() if x.is_floating_point() else x.clone(), inputs
    )
    outputs = tensors_in(model(*given))
    if which is None:
        which = [place for place, output in enumerate(outputs) if output.requires_grad]
    if which:
        torch.manual_seed(0)
        kept = [outputs[place] for place in which]
        # By shape: what lies otherwise in memory must be given the same numbers.
        drawn = [torch.randn(one.shape, dtype=one.dtype, device=one.device) for one in kept]
        torch.autograd.backward(kept, drawn)
    leaves = [*model.parameters(), *tensors_in(given)]
    return which, [x.grad if x.grad is not None else torch.zeros_like(x) for x in leaves]


def test_gradients_are_those_of_the_reference(workload: str) -> None:
    """A kernel alone has no gradients, and is not asked for them."""
    reference, kernel = reference_on(workload), load("kernel")
    if not hasattr(kernel.ModelNew, "takes_kernel"):
        raise unittest.SkipTest("ModelNew is the kernel alone")
    device = device_of(kernel)
    old, new = (build(m, reference, 0, device) for m in (reference.Model, kernel.ModelNew))
    copy_weights(old, new)
    inputs = draw(reference, 0, device)
    which, expected = gradients(old, inputs)
    _, made = gradients(new, inputs, which)
    for one, other in zip(made, expected, strict=True):
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
