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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from tools.drop_in.modules import (
    HERE,
    PLAIN_TENSORS,
    on_device_of,
    tensors_by_name,
    transformed,
)
from tools.importing import import_file
from tools.snapshot import Snapshot

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
        module: whose parts and tensors count; None for a function.
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
        self.original = original
        self.kernel = kernel
        leaves, packing = pytree.tree_flatten(tuple(verified))
        # What is not packed needs no unpacking, which takes as long as all the rest.
        self._flat = len(leaves) == len(verified)
        # As a function, since torch warns of packings that are copied along with a module.
        self._are_packed_alike: Callable[[Any], bool] = lambda given: (
            pytree.tree_structure(given) == packing
        )
        self._kinds = tuple(map(_kind, leaves))
        self._count = len(verified)
        devices = (one.device.type for one in leaves if isinstance(one, torch.Tensor))
        self.device = next(devices, "cpu")
        self._in_this_mode = module is None or module.training is kernel.training
        self._then = Snapshot(original if module is None else module)
        self._shared = [] if module is None else _shared(module, kernel, self.device)
        buffers = {id(part._buffers) for part in kernel.modules()}
        self._kept = [one for one in self._shared if id(one.slots) in buffers]

    def __call__(self, *given: Any, **named: Any) -> Any:
        """One call."""
        # First of all, for a tracer would read all that follows.
        if torch.compiler.is_compiling() or transformed():
            return self.original(*given, **named)
        arguments = self._positional(given, named)
        if arguments is None:
            return self.original(*given, **named)
        leaves = arguments if self._flat else pytree.tree_leaves(arguments)
        if not self._takes(arguments, leaves):
            return self.original(*given, **named)
        wanted = self._wanted(leaves) if torch.is_grad_enabled() else []
        if not wanted:
            return self.run(arguments, leaves)
        if self._in_place or any(tensor.requires_grad for tensor in self._then.tensors):
            return self.original(*given, **named)
        through: Any = _Through
        packing: list[Any] = []
        made = through.apply(self, arguments, packing, *wanted)
        return pytree.tree_unflatten(list(made), packing[0])

    @property
    def __code__(self) -> types.CodeType:
        """What torch.export reads in the place of this."""
        code: types.CodeType = self.original.__code__
        return code

    def run(self, arguments: Sequence[Any], leaves: Sequence[Any]) -> Any:
        """What the kernel returns; buffers of the module get the values that it left in its own.

        Args:
            arguments: a call's.
            leaves: what is in them, unpacked.
        """
        first = next((one for one in leaves if isinstance(one, torch.Tensor)), None)
        # A kernel may have no decision of its own, and so no device.
        with HERE if first is None else on_device_of(first):
            returned = self.kernel(*arguments)
        for one in self._kept:
            own, left = one.holder[one.key], one.slots[one.slot]
            if left is not own:
                with torch.no_grad():
                    own.copy_(left)
                one.slots[one.slot] = own
        return returned

    def _takes(self, arguments: Sequence[Any], leaves: Sequence[Any]) -> bool:
        """Whether the kernel was verified for such a call, and nobody watches who can't see it."""
        if tuple(map(_kind, leaves)) != self._kinds or not self._in_this_mode:
            return False
        if not (self._flat or self._are_packed_alike(arguments)):
            return False
        if torch._C._len_torch_dispatch_stack() > 0 or torch.is_autocast_enabled(self.device):
            return False
        return self._then.same() and self._then.unheard() and self._share()

    def _wanted(self, leaves: Sequence[Any]) -> list[torch.Tensor]:
        """The tensors that need gradients: a call's, and those of the function or module."""
        own = () if self._module is None else self._module.parameters()
        return [
            one
            for one in (*leaves, *self._then.tensors, *own)
            if isinstance(one, torch.Tensor) and one.requires_grad
        ]

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

    def _share(self) -> bool:
        """Put the module's present tensors into the kernel; False where they are of another kind.

        They may have been exchanged since, as `load_state_dict(..., assign=True)` does, or have
        other memory, as after `double()`.
        """
        for one in self._shared:
            own: Any = one.holder.get(one.key)
            if own is one.slots[one.slot] and own.data_ptr() == one.address:
                continue
            if _kind(own) != one.kind:
                return False
            one.slots[one.slot] = own
            one.address = own.data_ptr()
        return True


@dataclass
class _Shared:
    """A tensor of a module's that its kernel has too.

    `holder` and `key` say where the module has it, `slots` and `slot` where the kernel does. It is
    of a `kind`, and was last seen at an `address`.
    """

    holder: dict[str, Any]
    key: str
    slots: dict[str, Any]
    slot: str
    kind: Any
    address: int = -1


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
        given = pytree.tree_leaves(arguments)
        tensors = [one for one in given if isinstance(one, torch.Tensor)]
        ctx.versions = [
            (one, one._version) for one in (*tensors, *wanted) if not one.is_inference()
        ]
        leaves, packed = pytree.tree_flatten(chooser.run(arguments, given))
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
    # Forward ran without it, whatever surrounds backward.
    exact = torch.autocast(ctx.chooser.device, enabled=False)
    with exact, torch.enable_grad():
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


def _kind(value: Any) -> Any:
    """What of an argument, or a weight, must be as it was when the kernel was verified."""
    if type(value) in PLAIN_TENSORS:
        # What is yet to be conjugated or negated is not in memory as it reads.
        there = value.layout is torch.strided and not (value.is_conj() or value.is_neg())
        laid = value.stride() if there else value.layout
        return value.shape, value.dtype, laid, value.device.type
    return type(value), value


def _shared(subject: torch.nn.Module, kernel: torch.nn.Module, device: str) -> list[_Shared]:
    """Where subject and kernel have the tensors that both have, by name."""
    spots = tensors_by_name(subject)
    found = []
    for name, (slots, slot) in tensors_by_name(kernel).items():
        if name in spots:
            holder, key = spots[name]
            kind = (*_kind(slots[slot])[:3], device)
            found.append(_Shared(holder, key, slots, slot, kind))
    return found
