"""A kernel in the place of the function or module that it was made for.

Where it was verified (same shapes, dtypes, strides, device and mode) the kernel runs; everywhere
else the original does. Gradients are the original's own: its forward is run again for them.

An exported `ModelNew` decides the same for its calls (`tools/drop_in/`), and neither can serve for
the other. What that leaves it leaves to its reference, a text that was made of the subject; here it
is the live object that works, with whatever it closes over. Some kernels are exported without a
decision of their own (`Shipment.why_alone`), as where a number is among the arguments. And what is
exported may need nothing of Kernelwright.
"""

import copy
import functools
import inspect
import itertools
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from tools.importing import import_file

_serial = itertools.count()


def load_kernel(path: Path, arguments: tuple[Any, ...] = ()) -> torch.nn.Module:
    """An instance of an exported kernel's `ModelNew`; this runs the file."""
    module = import_file(path, f"kernelwright_kernel_{next(_serial)}")
    made: torch.nn.Module = module.ModelNew(*arguments)
    return made


def wear(subject: Any, kernel: torch.nn.Module, verified: Sequence[Any]) -> Any:
    """The subject with the kernel at work in it: a function, or a module with the same parameters.

    Args:
        subject: a function or an instance of a module, which stays as it is.
        kernel: takes the subject's tensors by name.
        verified: the arguments that it was verified with, or such like them.
    """
    if not isinstance(subject, torch.nn.Module):
        chooser = Chooser(None, subject, kernel, verified)

        @functools.wraps(subject)
        def worn(*given: Any, **named: Any) -> Any:
            return chooser(*given, **named)

        return worn
    _share(subject, kernel)
    # A shallow copy is of the same class and holds the same tensors, under the same names.
    module = copy.copy(subject)
    bound = inspect.ismethod(subject.forward) and subject.forward.__self__ is subject
    original = (
        types.MethodType(subject.forward.__func__, module)  # type: ignore[attr-defined]
        if bound
        else subject.forward
    )
    module.forward = Chooser(module, original, kernel, verified)
    return module


class Chooser:
    """Calls the kernel where it was verified, the original elsewhere.

    Args:
        module: whose mode and parameters count; None for a function.
        original: what is called elsewhere.
        kernel: what is called where it was verified.
        verified: the arguments of that.
    """

    def __init__(
        self,
        module: torch.nn.Module | None,
        original: Callable[..., Any],
        kernel: torch.nn.Module,
        verified: Sequence[Any],
    ) -> None:
        self._module = module
        self._original = original
        self._kernel = kernel
        self._verified = tuple(_kind(one) for one in pytree.tree_leaves(tuple(verified)))
        self._count = len(verified)

    def __call__(self, *given: Any, **named: Any) -> Any:
        """One call."""
        arguments = self._positional(given, named)
        if arguments is None or self._mode_differs():
            return self._original(*given, **named)
        leaves = pytree.tree_leaves(arguments)
        if tuple(_kind(one) for one in leaves) != self._verified:
            return self._original(*given, **named)
        wanted = [one for one in leaves if isinstance(one, torch.Tensor) and one.requires_grad]
        if self._module is not None:
            wanted += [one for one in self._module.parameters() if one.requires_grad]
        if torch.is_grad_enabled() and wanted:
            through: Any = _Through
            return through.apply(self._original, self._kernel, arguments, *wanted)
        return self._kernel(*arguments)

    def _positional(self, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...] | None:
        """The arguments in their order; None where these are not those of the verified call."""
        if named:
            try:
                bound = inspect.signature(self._original).bind(*given, **named)
            except (TypeError, ValueError):
                return None
            bound.apply_defaults()
            given = () if bound.kwargs else bound.args[: self._count]
        return given if len(given) == self._count else None

    def _mode_differs(self) -> bool:
        """Whether the module was put into another mode than the kernel was made for."""
        return self._module is not None and self._module.training != self._kernel.training


class _Through(torch.autograd.Function):
    """The kernel forward, the original backward."""

    @staticmethod
    def forward(
        ctx: Any, original: Any, kernel: Any, arguments: tuple[Any, ...], *wanted: torch.Tensor
    ) -> Any:
        ctx.original, ctx.arguments, ctx.wanted = original, arguments, wanted
        return kernel(*arguments)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        with torch.enable_grad():
            # Leaves in the place of the arguments, so that their own history is not walked again.
            fresh = {
                id(one): one.detach().requires_grad_()
                for one in pytree.tree_leaves(ctx.arguments)
                if isinstance(one, torch.Tensor) and one.requires_grad
            }
            again = pytree.tree_map(lambda one: fresh.get(id(one), one), ctx.arguments)
            returned = pytree.tree_leaves(ctx.original(*again))
        pairs = [
            (value, gradient)
            for value, gradient in zip(returned, gradients, strict=True)
            if gradient is not None and value.requires_grad
        ]
        sought = [fresh.get(id(one), one) for one in ctx.wanted]
        found = torch.autograd.grad(
            [value for value, _ in pairs],
            sought,
            [gradient for _, gradient in pairs],
            allow_unused=True,
        )
        return (None, None, None, *found)


def _kind(value: Any) -> Any:
    """What of an argument must be as it was when the kernel was verified."""
    if isinstance(value, torch.Tensor):
        return value.shape, value.dtype, value.stride(), value.device.type
    return type(value), value


def _share(subject: torch.nn.Module, kernel: torch.nn.Module) -> None:
    """Put the subject's own tensors into the kernel, by name."""
    held = {**dict(subject.named_parameters()), **dict(subject.named_buffers())}
    for name, module in kernel.named_modules():
        for slots in (module._parameters, module._buffers):
            for slot in slots:
                own = held.get(f"{name}.{slot}" if name else slot)
                if own is not None:
                    slots[slot] = own
