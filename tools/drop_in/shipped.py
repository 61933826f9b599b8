"""The drop-in itself: the reference's class, whose calls go to a kernel where that was verified."""

import functools
import types
from collections.abc import Callable, Sequence
from typing import Any

import torch

from tools.drop_in.modules import (
    Parts,
    Spot,
    all_plain,
    children_of,
    listened_to,
    on_device_of,
    tensors_by_name,
    transformed,
)
from tools.drop_in.operator import Operator
from tools.drop_in.table import Row
from tools.drop_in.twins import Twins

# Attributes that may be set without the op becoming another, and those that torch keeps itself.
HARMLESS = ("training", "recompute", "drop_in_state")
TORCHS = frozenset(vars(torch.nn.Module()))


class Kept:
    """What an instance keeps beside its weights; a copy of it, or a file, finds out anew.

    `verified`: it was constructed as the kernels were verified. `modes`: parts whose mode matters,
    and the one they were verified in. `parts`: what it was beside its tensors when it was looked
    at, None before that. `state`: its tensors when they were last looked at, `places` with their
    addresses. `kernels`: what calls each kernel, its spots, and the state whose tensors these have.
    """

    def __init__(self, verified: bool, modes: list[tuple[torch.nn.Module, bool]]) -> None:
        self.verified = verified
        self.modes = modes
        self.forget()

    def forget(self) -> None:
        """Have everything looked at anew."""
        self.parts: Parts | None = None
        self.spots: list[Spot] = []
        self.state: list[torch.Tensor] = []
        self.places: list[tuple[Spot, torch.Tensor, int]] = []
        self.kernels: dict[Any, tuple[Callable[..., Any], list[Spot], Sequence[torch.Tensor]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"verified": self.verified, "modes": self.modes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.forget()


class Dispatch:
    """Decides for each call who takes it.

    Args:
        name: the operator's.
        twins: the reference and the kernels.
    """

    def __init__(self, name: str, twins: Twins) -> None:
        self.twins = twins
        self.operator = Operator(name, twins)

    def look_at(self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Kept:
        """Whether a new instance was constructed as the kernels were verified."""
        twins = self.twins
        alike = twins.constructed_alike(args, kwargs) and twins.able()
        if not (alike and set(tensors_by_name(model)) == set(twins.homes)):
            return Kept(False, [])
        return Kept(True, [(model.get_submodule(name), mode) for name, mode in twins.modes])

    def call(
        self, model: Any, kept: Kept, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[bool, Any]:
        """Whether a kernel took a call, and what it returned."""
        inputs = self.twins.tensors_of(args, kwargs) if kept.verified else None
        if inputs is None:
            return False, None
        for module, training in kept.modes:
            if module.training is not training:
                return False, None
        traced = torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0
        row = self.twins.row_for(inputs, traced)
        if row is None or torch.is_autocast_enabled(row.device):
            return False, None
        if transformed() or not (traced or all_plain(inputs)):
            return False, None
        device = inputs[0].device
        state = self._traced_state(model, device) if traced else self._state(model, kept, device)
        if state is None:
            return False, None
        grown = torch.is_grad_enabled() and any(t.requires_grad for t in (*inputs, *state))
        if not (traced or grown):
            return True, self._directly(kept, row, inputs, state)
        if self.twins.pack is None or (grown and not model.recompute):
            return False, None
        return True, self._by_operator(inputs, state)

    def _traced_state(self, model: Any, device: torch.device) -> list[torch.Tensor] | None:
        """As `_state`, by the attributes that lead to the tensors: by these, tracers know them."""
        if not self._is_whole(model):
            return None
        for part in model.modules():
            if part is not model and listened_to(part):
                return None
        state = [functools.reduce(getattr, name.split("."), model) for name in self.twins.homes]
        return state if self._fits(state, device) else None

    def _state(self, model: Any, kept: Kept, device: torch.device) -> list[torch.Tensor] | None:
        """An instance's tensors; None where they are not as they were verified.

        So it is where a part was added or exchanged, or is listened to by a hook.
        """
        parts = kept.parts or self._find(model, kept)
        if parts is None or not (parts.same_parts() and parts.unheard()):
            return None
        if not parts.same_values():
            # It is looked at anew: another value may be as good.
            kept.forget()
            return None
        if kept.state and kept.state[0].device == device:
            for (holder, key), tensor, address in kept.places:
                if holder.get(key) is not tensor or tensor.data_ptr() != address:
                    break
            else:
                # The very tensors, with their memory, that fitted last time.
                return kept.state
        state: list[Any] = [holder.get(key) for holder, key in kept.spots]
        if not (self._fits(state, device) and all_plain(state)):
            return None
        kept.state = state
        addresses = [tensor.data_ptr() for tensor in state]
        kept.places = list(zip(kept.spots, state, addresses, strict=True))
        return state

    def _find(self, model: Any, kept: Kept) -> Parts | None:
        """Look at an instance for the first time; None where it is not whole."""
        if not self._is_whole(model):
            return None
        known = tensors_by_name(model)
        # A tensor that is gone has a spot in which there is none.
        kept.spots = [known.get(name, ({}, name)) for name in self.twins.homes]
        parts = list(model.modules())
        # Whoever sets a value of the model itself is noticed by that.
        kept.parts = Parts(parts, heard=parts[1:], valued=parts[1:])
        return kept.parts

    def _is_whole(self, model: Any) -> bool:
        """Whether an instance has the parts that the reference has, no more, and with their values.

        In words that a tracer can follow.
        """
        for path, kind, children, plain in self.twins.whole:
            part = functools.reduce(_attribute, path, model)
            if path and type(part) is not kind:
                return False
            if children_of(part) != children:
                return False
            for name, value in plain:
                if _attribute(part, name) != value:
                    return False
        return True

    def _fits(self, state: Sequence[Any], device: torch.device) -> bool:
        for tensor, (dtype, shape, _) in zip(state, self.twins.expected, strict=True):
            # A parametrization takes a parameter away.
            if not isinstance(tensor, torch.Tensor) or tensor.dtype is not dtype:
                return False
            if tensor.shape != shape or tensor.device != device:
                return False
        return self.twins.laid(state)

    def _directly(
        self, kept: Kept, row: Row, inputs: Sequence[torch.Tensor], state: list[torch.Tensor]
    ) -> Any:
        place = row.kernel, inputs[0].device
        entry = kept.kernels.get(place)
        if entry is None or entry[2] is not state:
            with self.twins.lock:
                entry = self._shared(kept, place, state)
        call, spots, _ = entry
        with on_device_of(inputs[0]):
            returned = call(*self.twins.rebuilt(inputs))
        for index in self.twins.updated:
            holder, key = spots[index]
            if holder[key] is not state[index]:
                state[index].copy_(holder[key])
                holder[key] = state[index]
        return returned

    def _shared(
        self, kept: Kept, place: Any, state: list[torch.Tensor]
    ) -> tuple[Callable[..., Any], list[Spot], Sequence[torch.Tensor]]:
        """What calls a kernel that has an instance's tensors; one thread at a time comes here."""
        entry = kept.kernels.get(place)
        if entry is None:
            module, spots = self.twins.placed(*place)
            # Called as a module it would look for hooks, of which it can have none.
            call = module if module._compiled_call_impl is not None else module.forward
        else:
            call, spots, _ = entry
        for (holder, key), tensor in zip(spots, state, strict=True):
            holder[key] = tensor
        kept.kernels[place] = entry = call, spots, state
        return entry

    def _by_operator(self, inputs: Sequence[torch.Tensor], state: list[torch.Tensor]) -> Any:
        made = self.operator.call(list(inputs), state)
        made = (made,) if isinstance(made, torch.Tensor) else made
        count = self.twins.count
        for index, value in zip(self.twins.updated, made[count:], strict=True):
            with torch.no_grad():
                state[index].copy_(value)
        assert self.twins.pack is not None
        return self.twins.pack(made[:count])


def _attribute(holder: Any, name: str) -> Any:
    return getattr(holder, name, None)


def ship(
    operator: dict[str, Any],
    kernels: tuple[type[torch.nn.Module], ...],
    references: tuple[types.ModuleType, ...],
    table: Sequence[dict[str, Any]],
    home: str,
) -> type[torch.nn.Module]:
    """`ModelNew`: the reference's class, its calls going to the kernels where those were verified.

    Args:
        operator: its `name`, unique to these texts, and what of forward is known: `returns` and
            `updates`; see `Twins`.
        kernels: the classes that the table speaks of.
        references: the module that holds `Model`, and it again for each other way to construct it
            that the table speaks of. Each way has an operator of its own.
        table: what was verified; see `Row`.
        home: the module in which the class will be found.
    """
    # The same file, imported again, has the same operators, which torch takes once.
    shared: tuple[Dispatch, ...] | None = vars(references[0]).get("_dispatches")
    if shared is None:
        rows = [Row(told) for told in table]
        shared = tuple(
            Dispatch(
                f"{operator['name']}_{way}" if way else operator["name"],
                Twins(
                    reference, kernels, tuple(row for row in rows if row.built == way),
                    operator["returns"], operator["updates"],
                ),
            )
            for way, reference in enumerate(references)
            if any(row.built == way for row in rows)
        )  # fmt: skip
        vars(references[0])["_dispatches"] = shared
    return _drop_in(shared, references[0].Model, home)


def _drop_in(shared: tuple[Dispatch, ...], model: Any, home: str) -> type[torch.nn.Module]:
    class ModelNew(model):  # type: ignore[misc]
        """The reference's `Model`; kernels take the calls that they were verified for.

        `recompute`: calls that need gradients too, for which backward runs the reference once more.
        With False those go to the reference altogether.
        """

        recompute = True

        @functools.wraps(model.__init__)  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.drop_in_state = tuple(one.look_at(self, args, kwargs) for one in shared)

        def __setattr__(self, name: str, value: Any) -> None:
            held = None if name in TORCHS else vars(self).get(name)
            known = held is not None and not isinstance(held, torch.Tensor)
            slight = name.startswith("_") or isinstance(value, torch.Tensor)
            harmless = name in HARMLESS or (slight and not known)
            super().__setattr__(name, value)
            state = vars(self).get("drop_in_state", ())
            if not harmless:
                for kept in state:
                    # A number that the kernel has in its code, say.
                    kept.verified = False

        @functools.wraps(model.forward)
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            for way, dispatch in enumerate(shared):
                taken, returned = dispatch.call(self, self.drop_in_state[way], args, kwargs)
                if taken:
                    return returned
            return super().forward(*args, **kwargs)

        def takes_kernel(self, *args: Any, **kwargs: Any) -> bool:
            """Whether a call without gradients goes to a kernel; it runs, to find out."""
            with torch.no_grad():
                return any(
                    dispatch.call(self, kept, args, kwargs)[0]
                    for dispatch, kept in zip(shared, self.drop_in_state, strict=True)
                )

    ModelNew.__module__, ModelNew.__qualname__ = home, "ModelNew"
    made: type[torch.nn.Module] = ModelNew
    return made
