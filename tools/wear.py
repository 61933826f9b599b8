"""A kernel in the place of the function or module that it was made for.

Where it was verified (same shapes, dtypes, strides, device and mode) the kernel runs; everywhere
else the original does. Gradients are the original's own: its forward is run again for them.

An exported `ModelNew` decides the same for its calls (`tools/drop_in/`), and neither can serve for
the other. What that leaves it leaves to its reference, a text that was made of the subject; here it
is the live object that works, with whatever it closes over. Some kernels are exported without a
decision of their own (`Shipment.why_alone`), as where a number is among the arguments. And what is
exported may need nothing of Kernelwright.
"""

import contextlib
import copy
import functools
import inspect
import itertools
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from tools.capture.written import tensors_read
from tools.drop_in.modules import listened_to, plain_of
from tools.importing import import_file

_serial = itertools.count()


def load_kernel(path: Path, arguments: tuple[Any, ...] = ()) -> torch.nn.Module:
    """An instance of an exported kernel's `ModelNew`; this runs the file."""
    module = import_file(path, f"kernelwright_kernel_{next(_serial)}")
    made: torch.nn.Module = module.ModelNew(*arguments)
    return made


def wear(
    subject: Any, kernel: torch.nn.Module, verified: Sequence[Any], *, in_place: bool = False
) -> Any:
    """The subject with the kernel at work in it: a function, or a module with the same parameters.

    Args:
        subject: a function or an instance of a module, which stays as it is.
        kernel: takes the subject's tensors by name.
        verified: the arguments that it was verified with, or such like them.
        in_place: it writes to its arguments, so that it can't be run again for gradients.
    """
    if not isinstance(subject, torch.nn.Module):
        chooser = Chooser(None, subject, kernel, verified, in_place=in_place)

        @functools.wraps(subject)
        def worn(*given: Any, **named: Any) -> Any:
            return chooser(*given, **named)

        return worn
    # A shallow copy is of the same class and holds the same tensors, under the same names.
    module = copy.copy(subject)
    bound = inspect.ismethod(subject.forward) and subject.forward.__self__ is subject
    original = (
        types.MethodType(subject.forward.__func__, module)  # type: ignore[attr-defined]
        if bound
        else subject.forward
    )
    module.forward = Chooser(module, original, kernel, verified, in_place=in_place)
    return module


class Chooser:
    """Calls the kernel where it was verified, the original elsewhere.

    Args:
        module: whose mode and parameters count; None for a function.
        original: what is called elsewhere.
        kernel: what is called where it was verified.
        verified: the arguments of that.
        in_place: the original writes to its arguments.
    """

    def __init__(
        self,
        module: torch.nn.Module | None,
        original: Callable[..., Any],
        kernel: torch.nn.Module,
        verified: Sequence[Any],
        *,
        in_place: bool = False,
    ) -> None:
        self._module = module
        self._in_place = in_place
        self._shared = _shared(module, kernel) if module is not None else []
        parts = list(module.modules()) if module is not None else []
        self._modes = [(part, part.training) for part in parts]
        # A kernel has parts and plain values in its code, and what a function reads beside its
        # arguments as it was.
        self._parts = [(part._modules, dict(part._modules)) for part in parts]
        self._plain = [(vars(part), *pair) for part in parts for pair in plain_of(part).items()]
        self._read = _versions(original) if module is None else []
        self.original = original
        self.kernel = kernel
        self._verified = tuple(_kind(one) for one in pytree.tree_leaves(tuple(verified)))
        self._count = len(verified)

    def __call__(self, *given: Any, **named: Any) -> Any:
        """One call."""
        arguments = self._positional(given, named)
        if arguments is None or self._changed() or not self._share():
            return self.original(*given, **named)
        leaves = pytree.tree_leaves(arguments)
        if tuple(_kind(one) for one in leaves) != self._verified:
            return self.original(*given, **named)
        wanted = [one for one in leaves if isinstance(one, torch.Tensor) and one.requires_grad]
        if self._module is not None:
            wanted += [one for one in self._module.parameters() if one.requires_grad]
        if not (torch.is_grad_enabled() and wanted):
            return self.kernel(*arguments)
        if self._in_place:
            return self.original(*given, **named)
        through: Any = _Through
        packing: list[Any] = []
        made = through.apply(self, arguments, packing, *wanted)
        return pytree.tree_unflatten(list(made), packing[0])

    @contextlib.contextmanager
    def buffers_kept(self) -> Iterator[None]:
        """What the original updates in its module is afterwards as it was."""
        buffers = [] if self._module is None else list(self._module.buffers())
        held = [(buffer, buffer.clone()) for buffer in buffers]
        try:
            yield
        finally:
            with torch.no_grad():
                # By value: a batch norm updates its statistics and leaves their version as it is.
                for buffer, value in held:
                    if not torch.equal(buffer, value):
                        buffer.copy_(value)

    def _positional(self, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...] | None:
        """The arguments in their order; None where these are not those of the verified call."""
        if named:
            try:
                bound = inspect.signature(self.original).bind(*given, **named)
            except (TypeError, ValueError):
                return None
            known = list(bound.signature.parameters)[: self._count]
            if any(name not in known for name in bound.arguments):
                # An argument that was left out when it was verified.
                return None
            bound.apply_defaults()
            given = () if bound.kwargs else bound.args[: self._count]
        return given if len(given) == self._count else None

    def _changed(self) -> bool:
        """Whether the original is another than the kernel was made for."""
        if self._module is None:
            return bool(self._read) and self._reads_differently()
        if self._module.training != self.kernel.training:
            return True
        return (
            any(part.training is not mode for part, mode in self._modes)
            or any(
                len(now) != len(then)
                or any(
                    now.get(key) is not child or (child is not None and listened_to(child))
                    for key, child in then.items()
                )
                for now, then in self._parts
            )
            or any(
                type(holder.get(key)) is not type(value) or holder.get(key) != value
                for holder, key, value in self._plain
            )
        )

    def _reads_differently(self) -> bool:
        """Whether what a function reads beside its arguments has changed, or is to be trained."""
        now = _versions(self.original)
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor, _ in now):
            return True
        return len(now) != len(self._read) or any(
            one is not other or version != earlier
            for (one, version), (other, earlier) in zip(now, self._read, strict=True)
        )

    def _share(self) -> bool:
        """Put the module's present tensors into the kernel; False where they are of another kind.

        They may have been exchanged since, as `load_state_dict(..., assign=True)` does.
        """
        for holder, key, slots, slot in self._shared:
            own, held = holder.get(key), slots[slot]
            if own is held:
                continue
            if own is None or (own.shape, own.dtype, own.device) != (
                held.shape, held.dtype, held.device
            ):  # fmt: skip
                return False
            slots[slot] = own
        return True


class _Through(torch.autograd.Function):
    """The kernel forward, the original backward."""

    @staticmethod
    def forward(
        ctx: Any,
        chooser: Chooser,
        arguments: tuple[Any, ...],
        packing: list[Any],
        *wanted: torch.Tensor,
    ) -> Any:
        ctx.chooser, ctx.arguments, ctx.wanted = chooser, arguments, wanted
        tensors = [one for one in pytree.tree_leaves(arguments) if isinstance(one, torch.Tensor)]
        ctx.versions = [
            (one, one._version) for one in (*tensors, *wanted) if not one.is_inference()
        ]
        leaves, packed = pytree.tree_flatten(chooser.kernel(*arguments))
        packing.append(packed)
        return tuple(leaves)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        if any(one._version != version for one, version in ctx.versions):
            raise RuntimeError(
                "one of the tensors that the gradients need was modified by an in-place operation"
            )
        with ctx.chooser.buffers_kept():
            return (None, None, None, *_gradients(ctx, gradients))


def _gradients(ctx: Any, gradients: Sequence[Any]) -> Sequence[torch.Tensor | None]:
    """Of what was wanted, by running the original once more."""
    # Whether these gradients will be differentiated in their turn.
    further = torch.is_grad_enabled()
    with torch.enable_grad():
        # Leaves in the place of the arguments, so that their own history is not walked again.
        fresh = {
            id(one): one.view_as(one) if further else one.detach().requires_grad_()
            for one in pytree.tree_leaves(ctx.arguments)
            if isinstance(one, torch.Tensor) and one.requires_grad
        }
        again = pytree.tree_map(lambda one: fresh.get(id(one), one), ctx.arguments)
        returned = pytree.tree_leaves(ctx.chooser.original(*again))
    pairs = [
        (value, gradient)
        for value, gradient in zip(returned, gradients, strict=True)
        if gradient is not None and value.requires_grad
    ]
    sought = [fresh.get(id(one), one) for one in ctx.wanted]
    if not pairs:
        return [None] * len(sought)
    return torch.autograd.grad(
        [value for value, _ in pairs],
        sought,
        [gradient for _, gradient in pairs],
        allow_unused=True,
        create_graph=further,
    )


def _versions(function: Callable[..., Any]) -> list[tuple[torch.Tensor, int | None]]:
    """The tensors that a function reads beside its arguments, and how often each was written to."""
    return [
        (tensor, None if tensor.is_inference() else tensor._version)
        for tensor in tensors_read(function)
    ]


def as_it_is(subject: Any) -> list[tuple[Any, ...]]:
    """What of a subject a kernel has in its code; `is_as_it_was` tells whether it still holds."""
    if isinstance(subject, torch.nn.Module):
        return [
            (path, part, part.training, plain_of(part)) for path, part in subject.named_modules()
        ]
    return list(_versions(subject))


def is_as_it_was(subject: Any, earlier: Sequence[tuple[Any, ...]]) -> bool:
    """Whether nothing of it changed since `as_it_is` but a module's tensors, which are shared."""
    now = as_it_is(subject)
    return len(now) == len(earlier) and all(
        _is_same(one, other)
        for row, before in zip(now, earlier, strict=True)
        for one, other in zip(row, before, strict=True)
    )


def _is_same(one: Any, other: Any) -> bool:
    """Whether it is the same object, or a plain value that equals it."""
    plain = not isinstance(one, torch.Tensor | torch.nn.Module)
    return one is other or (plain and bool(one == other))


def _kind(value: Any) -> Any:
    """What of an argument must be as it was when the kernel was verified."""
    if isinstance(value, torch.Tensor):
        laid = value.stride() if value.layout is torch.strided else value.layout
        return value.shape, value.dtype, laid, value.device.type
    return type(value), value


def _shared(
    subject: torch.nn.Module, kernel: torch.nn.Module
) -> list[tuple[dict[str, Any], str, dict[str, Any], str]]:
    """Where the subject holds each tensor, and where the kernel has it, by name; put there."""
    places: dict[str, tuple[dict[str, Any], str]] = {}
    for name, part in subject.named_modules(remove_duplicate=False):
        for holder in (part._parameters, part._buffers):
            for key, value in holder.items():
                if value is not None:
                    places[f"{name}.{key}" if name else key] = holder, key
    found = []
    for name, part in kernel.named_modules(remove_duplicate=False):
        for slots in (part._parameters, part._buffers):
            for slot in slots:
                place = places.get(f"{name}.{slot}" if name else slot)
                if place is not None:
                    holder, key = place
                    slots[slot] = holder[key]
                    found.append((holder, key, slots, slot))
    return found
