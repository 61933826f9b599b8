"""What one module can be told from another by, and how one is called with another's tensors."""

import copy
import inspect
import random
import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch.utils import _pytree as pytree

PLAIN = (bool, int, float, complex, str, torch.dtype)
PLAIN_TENSORS = (torch.Tensor, torch.nn.Parameter)
# Where a tensor is kept: a dict of its module's, and the key there.
Spot = tuple[dict[str, Any], str]
# Their own forward says `training`, but what they compute depends on it through children alone.
MODELESS = (
    torch.nn.TransformerEncoder, torch.nn.TransformerEncoderLayer, torch.nn.TransformerDecoderLayer,
)  # fmt: skip
# Where the tensors of a call are on the current device already, or on none.
HERE = nullcontext()
_on_every_module: Any = torch.nn.modules.module._has_any_global_hook


class Parts:
    """What a module is beside its tensors, as it is now: a kernel has all of that in its code.

    Args:
        parts: all of the module's.
        heard: those on which no hook may be.
        valued: those whose plain values count.
    """

    def __init__(
        self,
        parts: Sequence[torch.nn.Module],
        heard: Sequence[torch.nn.Module],
        valued: Sequence[torch.nn.Module],
    ) -> None:
        self._hung = [(part, dict(part._modules)) for part in parts]
        self._heard = heard
        self._modes = [(part, part.training) for part in parts]
        # A value of the class is none of the part's own, as long as nobody sets one there.
        self._values = [
            (part, name, copy.deepcopy(vars(part).get(name, ...)))
            for part in valued
            for name in plain_of(part)
        ]

    def same_parts(self) -> bool:
        """Whether the same parts hang in the same places, and no others."""
        for part, hung in self._hung:  # noqa: SIM110 - a generator takes as long as all the rest
            if part._modules != hung:
                return False
        return True

    def unheard(self) -> bool:
        """Whether no hook wants to see their calls."""
        for part in self._heard:
            if listened_to(part):
                return False
        return not (self._heard and _on_every_module())

    def same_modes(self) -> bool:
        """Whether each is in the mode, train or eval, that it was in."""
        for part, training in self._modes:  # noqa: SIM110 - as above
            if part.training is not training:
                return False
        return True

    def same_values(self) -> bool:
        """Whether they hold the plain values that they held."""
        for part, name, value in self._values:
            now = part.__dict__.get(name, ...)
            if now is not value and not is_same(now, value):
                return False
        return True


def is_same(now: Any, then: Any) -> bool:
    """Whether it is the same object, or a plain value that equals it."""
    return now is then or (type(now) is type(then) and _is_plain(now) and bool(now == then))


def plain_of(part: torch.nn.Module) -> dict[str, Any]:
    """The plain values that a module or its class holds, such as an epsilon, by name."""
    named: dict[str, Any] = {}
    for owner in reversed(type(part).__mro__):
        if owner not in torch.nn.Module.__mro__:
            named.update(vars(owner))
    return {
        name: value
        for name, value in {**named, **vars(part)}.items()
        if name != "training" and not name.startswith("_") and _is_plain(value)
    }


def children_of(part: torch.nn.Module) -> list[str]:
    """The names of the parts that hang in a module, in order; in words that a tracer can follow."""
    return [name for name, child in part._modules.items() if child is not None]


def listened_to(part: torch.nn.Module) -> bool:
    """Whether a hook on a part wants to see its calls."""
    return bool(
        part._forward_hooks
        or part._forward_pre_hooks
        or part._backward_hooks
        or part._backward_pre_hooks
    )


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    # What does not equal itself can't be compared later.
    return value is None or (isinstance(value, PLAIN) and value == value)


def transformed() -> bool:
    """Whether vmap, grad, jvp or torch.jit looks on, to whom a kernel is a stranger."""
    return (
        torch._C._functorch.peek_interpreter_stack() is not None
        or torch.autograd.forward_ad._current_level >= 0
        or torch._C._get_tracing_state() is not None
    )


# A compiler can't follow these words: it calls the function, and takes the answer for what it
# compiles. torch.compiler.assume_constant_result says so too, and would import the compiler here.
vars(transformed)["_dynamo_marked_constant"] = True


def all_plain(tensors: Sequence[Any]) -> bool:
    """Whether all are torch's own tensors, with memory that a kernel can read."""
    for tensor in tensors:  # noqa: SIM110 - a generator takes as long as all the rest
        if type(tensor) not in PLAIN_TENSORS:
            return False
    return True


def tensors_by_name(module: torch.nn.Module) -> dict[str, Spot]:
    """The spot of each tensor of a module: parameters, buffers and plain attributes."""
    found: dict[str, Spot] = {}
    for path, part in module.named_modules(remove_duplicate=False):
        for holder in (part._parameters, part._buffers, vars(part)):
            for key, value in holder.items():
                if isinstance(value, torch.Tensor):
                    found[f"{path}.{key}" if path else key] = (holder, key)
    return found


def call_with(
    module: torch.nn.Module,
    spots: Sequence[Spot],
    tensors: Sequence[Any],
    given: Sequence[Any],
) -> tuple[Any, list[torch.Tensor]]:
    """What a module returns with other tensors in these spots, and what is there afterwards."""
    kept = [holder[key] for holder, key in spots]
    try:
        for (holder, key), tensor in zip(spots, tensors, strict=True):
            holder[key] = tensor
        returned = module(*given)
        return returned, [holder[key] for holder, key in spots]
    finally:
        for (holder, key), tensor in zip(spots, kept, strict=True):
            holder[key] = tensor


def on_device_of(tensor: torch.Tensor) -> AbstractContextManager[Any]:
    """Has a tensor's device be the current one: there Triton launches, whatever it is given."""
    if tensor.is_cuda and tensor.get_device() != torch.cuda.current_device():
        return torch.cuda.device(tensor.get_device())
    return HERE


def tensors_in(packed: Any) -> list[torch.Tensor]:
    """The tensors in what forward takes or returns, in order."""
    if isinstance(packed, torch.Tensor):
        return [packed]
    return [leaf for leaf in pytree.tree_leaves(packed) if isinstance(leaf, torch.Tensor)]


def owned(made: Sequence[torch.Tensor], given: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The tensors dense and in memory of their own: an operator may not return its arguments."""
    taken = {tensor.untyped_storage().data_ptr() for tensor in given if tensor.numel()}
    kept = []
    for tensor in made:
        dense = tensor.contiguous()
        if dense.numel() and dense.untyped_storage().data_ptr() in taken:
            dense = dense.clone()
        taken.add(dense.untyped_storage().data_ptr())
        kept.append(dense)
    return kept


def mode_matters(module: torch.nn.Module, home: types.ModuleType) -> bool:
    """Whether a module itself, apart from its children, may compute otherwise after `eval()`.

    Where that can't be told, because its class is neither torch's nor defined in `home`, it may.
    """
    nn = torch.nn
    if isinstance(module, MODELESS):
        return False
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return module.p > 0
    if isinstance(module, nn.modules.batchnorm._NormBase):
        return module.running_mean is not None
    if isinstance(module, nn.RNNBase | nn.MultiheadAttention):
        return module.dropout > 0
    classes = type(module).__mro__
    members: list[Any] = []
    for owner in classes[: classes.index(nn.Module)]:
        members += vars(owner).values()
        if owner.__module__ == home.__name__:
            # A function beside the class may be given the module, and ask it.
            members += [value for value in vars(home).values() if inspect.isfunction(value)]
        elif owner.__module__.partition(".")[0] != "torch":
            return True
    return any("training" in names for code in _codes(members) for names in _names(code))


def _codes(members: Sequence[Any]) -> Iterator[types.CodeType]:
    for member in members:
        function = member.fget if isinstance(member, property) else member
        function = getattr(function, "__func__", function)
        if inspect.isfunction(function):
            yield function.__code__


def _names(code: types.CodeType) -> Iterator[tuple[str, ...]]:
    yield code.co_names
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from _names(const)
        elif isinstance(const, tuple):
            # The names of a call's keyword arguments, F.batch_norm(..., training=True) say.
            yield tuple(name for name in const if isinstance(name, str))


@contextmanager
def undisturbed() -> Iterator[None]:
    """The random numbers that the user's own code draws are as they would have been."""
    cuda: Any = torch.cuda
    devices = [cuda.current_device()] if cuda.is_initialized() else []
    numpy: Any = sys.modules.get("numpy")
    drawn, others = random.getstate(), numpy and numpy.random.get_state()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(drawn)
        if numpy:
            numpy.random.set_state(others)


def example_of(reference: types.ModuleType) -> list[Any]:
    """What get_inputs() returns; its tensors without memory, if that can be."""
    try:
        with torch.device("meta"):
            given = reference.get_inputs()
    except Exception:  # noqa: BLE001 - whatever a reference does to make its inputs
        given = reference.get_inputs()
    return [given] if isinstance(given, torch.Tensor) else list(given)


def are_alike(one: Any, other: Any) -> bool:
    """Whether two sets of constructor arguments are: the values of tensors are weights."""
    ones, packing = pytree.tree_flatten(one)
    others, expected = pytree.tree_flatten(other)
    if packing != expected:
        return False
    for a, b in zip(ones, others, strict=True):
        if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
            if a.shape != b.shape or a.dtype != b.dtype:
                return False
        elif type(a) is not type(b) or bool(a != b):
            return False
    return True
