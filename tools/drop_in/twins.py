"""The reference and the kernels as they were verified, to be called with the tensors of others."""

import inspect
import threading
import types
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _disable_current_modes

from tools.drop_in.modules import (
    Spot,
    are_alike,
    call_with,
    children_of,
    example_of,
    mode_matters,
    plain_of,
    tensors_by_name,
    undisturbed,
)
from tools.drop_in.table import Row

# The place of the reference; kernels are numbered from 0.
REFERENCE_PLACE = -1
CPU, META = torch.device("cpu"), torch.device("meta")
Whole = tuple[tuple[str, ...], type[torch.nn.Module], list[str], tuple[tuple[str, Any], ...]]
# Where a tensor stands among arguments that are none; None may be one of these.
TENSOR = object()
PACKINGS: dict[str, Callable[[Sequence[Any]], Any]] = {
    "tensor": lambda made: made[0], "tuple": tuple, "list": list,
}  # fmt: skip


class Twins:
    """Modules to call in the place of a user's.

    Args:
        reference: the module that holds `Model`, `get_inputs` and `get_init_inputs`.
        kernels: classes with `Model`'s constructor and forward.
        rows: what was verified.
        returns: how forward packs what it returns; None where that is to be found out.
        updates: names of the buffers that forward changes; None where that is not known.

    Attributes:
        homes: names of the tensors that a module keeps, in the operator's order.
        expected: their dtypes, shapes and strides, in that order: the kernels' own, whose tensors
            were filled with the values that they were verified on.
        whole: of each part its path, its class, the names of those that hang in it, and what plain
            values it holds; of the module itself those names alone.
        updated: the places of those that forward changes.
        modes: for each part whose mode matters, its name and the mode it was verified in.
        pack: packs outputs as forward returns them; None where the operator can't be used.
        count: how many tensors forward returns.
        lock: is held by whoever builds a module.
    """

    def __init__(
        self,
        reference: types.ModuleType,
        kernels: tuple[type[torch.nn.Module], ...],
        rows: tuple[Row, ...],
        returns: str | None,
        updates: tuple[str, ...] | None,
    ) -> None:
        self.reference, self.kernels, self.rows = reference, kernels, rows
        self.count = next(len(row.outputs) for row in rows if row.outputs)
        self.updates = updates
        self.pack = PACKINGS.get(returns or "")
        self.homes: tuple[str, ...] = ()
        self.expected: tuple[tuple[torch.dtype, torch.Size, tuple[int, ...]], ...] = ()
        self.whole: tuple[Whole, ...] = ()
        self.updated: tuple[int, ...] = ()
        self.modes: tuple[tuple[str, bool], ...] = ()
        self.capabilities: dict[int | None, str] = {}
        self._parameters = [*inspect.signature(reference.Model.forward).parameters][1:]
        self._template: tuple[list[Any], Any] | None = None
        # Quicker to compare; a tracer must not be asked whether a size that may vary is this one.
        self._exact_first = sorted(rows, key=lambda row: bool(row.sizes))
        self._spare: dict[int, torch.nn.Module] = {}
        self._benches = threading.local()
        self.lock = threading.RLock()
        self._able: bool | None = None

    def able(self) -> bool:
        """Whether a kernel can stand for the reference at all: whether both keep the same tensors.

        Found out once, by constructing them.
        """
        if self._able is None:
            with self.lock:
                if self._able is None:
                    self._able = self._compare()
        return self._able

    def _compare(self) -> bool:
        twin = self._outline()
        spots = tensors_by_name(twin)
        values = {name: holder[key] for name, (holder, key) in spots.items()}
        laid: dict[str, tuple[int, ...]] = {}
        for place in range(len(self.kernels)):
            kernel = self.build(place, CPU)
            there = {name: h[key] for name, (h, key) in tensors_by_name(kernel).items()}
            for name, value in values.items():
                like = there.get(name)
                if like is None or like.shape != value.shape or like.dtype != value.dtype:
                    return False
                if laid.setdefault(name, like.stride()) != like.stride():
                    return False
            self._spare[place] = kernel
        self.homes = tuple(sorted(values))
        self.expected = tuple(
            (values[name].dtype, values[name].shape, laid[name]) for name in self.homes
        )
        self.whole = tuple(
            (
                tuple(name.split(".")) if name else (),
                type(part),
                children_of(part),
                tuple(plain_of(part).items()) if name else (),
            )
            for name, part in twin.named_modules(remove_duplicate=False)
        )
        self.updated = tuple(self.homes.index(name) for name in self.updates or ())
        self.modes = tuple(
            (name, part.training)
            for name, part in twin.named_modules()
            if mode_matters(part, self.reference)
        )
        tensors = self._learn_template()
        if len(tensors) != len(self.rows[0].places):
            return False
        self._ask_devices()
        if self.updates is None and any(True for _ in twin.buffers()):
            self.pack = None
        elif self.pack is None:
            self._learn_packing(tensors)
        return True

    def _outline(self) -> torch.nn.Module:
        """The reference; its tensors without memory, if that can be."""
        try:
            return self.build(REFERENCE_PLACE, META)
        except Exception:  # noqa: BLE001 - whatever a constructor does with its tensors
            return self.build(REFERENCE_PLACE, CPU)

    def _learn_template(self) -> list[torch.Tensor]:
        """How the inputs are packed, and what stands between their tensors; returns these."""
        with undisturbed(), _disable_current_modes():
            example = example_of(self.reference)
        leaves, packing = pytree.tree_flatten(example)
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        if len(tensors) != len(example) or packing != pytree.tree_flatten(tensors)[1]:
            kept = [TENSOR if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
            self._template = kept, packing
        return tensors

    def _ask_devices(self) -> None:
        if any(row.device == "cuda" for row in self.rows) and torch.cuda.is_available():
            for index in range(torch.cuda.device_count()):
                major, minor = torch.cuda.get_device_capability(index)
                self.capabilities[index] = f"sm_{major}{minor}"

    def _learn_packing(self, tensors: Sequence[torch.Tensor]) -> None:
        """How forward packs its results; it stays open where that takes values to find out."""
        module, spots = self.bench(REFERENCE_PLACE, CPU)
        try:
            with _disable_current_modes(), META, torch.no_grad():
                state = [torch.empty(shape, dtype=dtype) for dtype, shape, _ in self.expected]
                given = self.rebuilt([torch.empty(t.shape, dtype=t.dtype) for t in tensors])
                returned, _ = call_with(module, spots, state, given)
        except Exception:  # noqa: BLE001 - whatever a reference does with such tensors
            return
        leaves, packing = pytree.tree_flatten(returned)
        there = [isinstance(leaf, torch.Tensor) for leaf in leaves]
        # What is no tensor is None, or the operator knows nothing of it.
        plain = all(leaf is None for leaf in leaves if not isinstance(leaf, torch.Tensor))
        if sum(there) != self.count or not plain:
            return

        def pack(made: Sequence[Any]) -> Any:
            left = iter(made)
            return pytree.tree_unflatten([next(left) if one else None for one in there], packing)

        self.pack = pack

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What kernels and reference were constructed with when they were verified."""
        with undisturbed(), _disable_current_modes(), CPU:
            given: Any = getattr(self.reference, "get_init_inputs", list)()
        if isinstance(given, dict):
            return (), given
        if len(given) == 2 and isinstance(given[0], list | tuple) and isinstance(given[1], dict):
            try:
                inspect.signature(self.reference.Model).bind(*given[0], **given[1])
            except TypeError:
                return tuple(given), {}
            return tuple(given[0]), given[1]
        return tuple(given), {}

    def constructed_alike(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether these constructor arguments are those that were verified."""
        positional, named = self.arguments()
        bind = inspect.signature(self.reference.Model).bind
        one, other = bind(*args, **kwargs), bind(*positional, **named)
        one.apply_defaults()
        other.apply_defaults()
        return are_alike(dict(one.arguments), dict(other.arguments))

    def bench(self, place: int, device: torch.device) -> tuple[torch.nn.Module, list[Spot]]:
        """This thread's own module of a place, and the spots that others' tensors go to."""
        benches: dict[Any, tuple[torch.nn.Module, list[Spot]]] = vars(self._benches)
        name = place, device
        if name not in benches:
            benches[name] = self.placed(place, device)
            for holder, key in benches[name][1]:
                holder[key] = None  # nobody calls it with its own
        return benches[name]

    def placed(self, place: int, device: torch.device) -> tuple[torch.nn.Module, list[Spot]]:
        """A fresh module of a place, and those spots."""
        module = self.build(place, device)
        known = tensors_by_name(module)
        return module, [known[name] for name in self.homes]

    def build(self, place: int, device: torch.device) -> torch.nn.Module:
        """A module as it was verified: constructed alike, in float32 unless it says otherwise."""
        with self.lock:
            return self._built(place, device)

    def _built(self, place: int, device: torch.device) -> torch.nn.Module:
        spare = self._spare.pop(place, None) if device == CPU else None
        if spare is not None:
            return spare
        kind = self.reference.Model if place == REFERENCE_PLACE else self.kernels[place]
        positional, named = self.arguments()
        dtype = torch.get_default_dtype()
        try:
            torch.set_default_dtype(torch.float32)
            # Whoever calls first may do so in inference mode, and others not.
            own = torch.inference_mode(False)
            with own, undisturbed(), _disable_current_modes(), META if device == META else CPU:
                module: torch.nn.Module = kind(*positional, **named)
                if device not in (CPU, META):
                    module.to(device)
                    for part in module.modules():
                        for name, value in list(vars(part).items()):
                            if isinstance(value, torch.Tensor):
                                vars(part)[name] = value.to(device)
        finally:
            torch.set_default_dtype(dtype)
        return module

    def tensors_of(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[torch.Tensor, ...] | None:
        """A call's tensors, in order; None where they are not packed as the verified ones were."""
        if kwargs:
            named = self._parameters[len(args) : len(args) + len(kwargs)]
            if any(name not in kwargs for name in named) or len(named) != len(kwargs):
                return None
            args = (*args, *(kwargs[name] for name in named))
        if self._template is None:
            for value in args:
                if not isinstance(value, torch.Tensor):
                    return None
            return args
        kept, packing = self._template
        given, packed = pytree.tree_flatten(list(args))
        if packed != packing:
            return None
        tensors = []
        for value, expected in zip(given, kept, strict=True):
            if isinstance(value, torch.Tensor) and expected is TENSOR:
                tensors.append(value)
            elif type(value) is not type(expected) or value != expected:
                return None
        return tuple(tensors)

    def rebuilt(self, tensors: Sequence[Any]) -> Sequence[Any]:
        """The arguments of forward, from their tensors."""
        if self._template is None:
            return tensors
        left = iter(tensors)
        kept, packing = self._template
        leaves = [next(left) if value is TENSOR else value for value in kept]
        given: list[Any] = pytree.tree_unflatten(leaves, packing)
        return given

    def row_for(
        self, tensors: Sequence[torch.Tensor], traced: bool, laid: bool = True
    ) -> Row | None:
        """The first line of the table that holds for these tensors."""
        for row in self.rows if traced else self._exact_first:
            if row.fits(tensors, traced, laid) and (
                not row.capability
                or self.capabilities.get(tensors[0].device.index) == row.capability
            ):
                return row
        return None

    def laid(self, state: Sequence[torch.Tensor]) -> bool:
        """Whether a module's tensors lie in memory as those that a kernel was verified with."""
        for tensor, (_, _, strides) in zip(state, self.expected, strict=True):
            for size, one, other in zip(tensor.shape, tensor.stride(), strides, strict=True):
                if size > 1 and one != other:
                    return False
        return True

    def fresh(self, state: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The tensors of a module, with copies of those that forward changes."""
        return [t.clone() if i in self.updated else t for i, t in enumerate(state)]
