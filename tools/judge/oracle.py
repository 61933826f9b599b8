"""The truth: the reference run in float32 as it is, and in float64 for what it means.

Runs in the judge's process. Each question is answered by a fresh copy of the module, so that no
call leaves anything behind for the next.
"""

import contextlib
import copy
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from knowledge.errors import BadInput
from tools.judge.compare import Expected, expect
from tools.judge.picks import Noted, Turned
from tools.reference import LoadedReference, named_tensors, tensors_of
from tools.runner.handover import absent_from
from tools.runner.memory import collapse

HIGHER = {
    torch.float16: torch.float64, torch.bfloat16: torch.float64, torch.float32: torch.float64,
    torch.complex64: torch.complex128,
}  # fmt: skip
NO_FLOAT64 = (
    "the reference cannot be run in float64 ({reason}), "
    "so its own float32 result stands for the truth"
)


# Operations of aten whose result is NaN wherever a NaN goes in, in any honest implementation:
# nothing that compares, clamps, selects or sorts.
ARITHMETIC = frozenset({
    "add", "sub", "rsub", "mul", "div", "neg", "exp", "expm1", "log", "log1p", "log2", "sqrt",
    "rsqrt", "reciprocal", "square", "pow", "sin", "cos", "tanh", "sigmoid", "erf", "abs",
    "sum", "mean", "var", "std", "var_mean", "linalg_vector_norm", "logsumexp", "cumsum",
    "mm", "addmm", "bmm", "baddbmm", "dot", "mv", "addmv", "convolution", "linear", "matmul",
    "_softmax", "_log_softmax", "native_layer_norm", "native_group_norm", "silu", "gelu",
    "view", "reshape", "_unsafe_view", "_reshape_alias", "transpose", "t", "permute", "expand",
    "unsqueeze", "squeeze", "clone", "detach", "alias", "slice", "select", "cat", "stack",
    "split", "split_with_sizes", "chunk", "unbind", "_to_copy", "contiguous", "empty",
    "empty_like", "zeros", "ones", "full", "zeros_like", "ones_like", "copy_", "add_", "mul_",
    "sub_", "div_", "scalar_tensor", "lift_fresh",
})  # fmt: skip
# What moves together when inputs are shaken: nothing, rows, columns (a sum that is rounded is one
# whose terms have moved together). Several times, for one shaking may change little by chance.
SHAKES = (None, -1, -2) * 3


class CannotRun(Exception):
    """The reference refuses these inputs; the case is of no use."""


@dataclass(frozen=True)
class Truth:
    """What is expected of every output, and the reference's own outputs.

    `absent` are the places among what forward returns that hold None.
    """

    expected: tuple[Expected, ...]
    reference: tuple[torch.Tensor, ...]
    absent: tuple[int, ...] = ()

    @property
    def like(self) -> tuple[torch.Tensor, ...]:
        """The outputs' shapes and dtypes, without their values."""
        return tuple(tensor.to("meta") for tensor in self.reference)

    @functools.cached_property
    def finite(self) -> int:
        """How many elements of the reference's outputs are numbers."""
        return finite_in(self.reference)

    @property
    def nbytes(self) -> int:
        """What it takes of the memory."""
        return sum(tensor.nbytes for tensor in self.reference) + sum(
            expected.nbytes for expected in self.expected
        )


class Oracle:
    """Answers what the reference means.

    Args:
        loaded: the reference; `caution` is empty, or says that float64 is not to be had from it.

    Attributes:
        written: places of the input tensors that the reference writes to; what it leaves in them
            stands behind its outputs.
        absent: places among what forward returns that hold None.
    """

    def __init__(self, loaded: LoadedReference) -> None:
        self.loaded = loaded
        self.caution = ""
        self.written: tuple[int, ...] = ()
        self.absent: tuple[int, ...] = ()

    def run(self, model: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[torch.Tensor, ...]:
        """The reference's results on a private copy of everything.

        Raises:
            CannotRun: it raises on these inputs.
            torch.OutOfMemoryError: the device has no room for that now.
        """
        return tuple(tensor.detach() for tensor in self._results(copy.deepcopy(model), own(inputs)))

    def _results(self, model: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[torch.Tensor, ...]:
        """What a call returns, and what it leaves in the inputs that it writes to.

        None is left out: it is known where that stands.
        """
        returned = self._call(model, inputs)
        if absent_from(returned) != self.absent:
            raise CannotRun("forward returns None in other places than it does at first")
        return (*tensors_of(returned), *written_of(inputs, self.written))

    def _call(self, model: torch.nn.Module, inputs: tuple[Any, ...]) -> Any:
        try:
            return self.loaded.run(model, inputs)
        except BadInput as error:
            # That says nothing of the inputs: the device may have room for them the next time.
            if isinstance(error.__cause__, torch.OutOfMemoryError):
                raise error.__cause__ from None
            raise CannotRun(error.what) from error

    def answer(self, model: torch.nn.Module, inputs: tuple[Any, ...]) -> Truth:
        """The truth for these weights and inputs.

        Raises:
            CannotRun: the reference raises on these inputs.
            torch.OutOfMemoryError: the device has no room for that now.
        """
        reference = self.run(model, inputs)
        higher = self._higher(model, inputs, reference)
        pairs = zip(higher or reference, reference, strict=True)
        expected = tuple(expect(truth, made) for truth, made in pairs)
        return Truth(expected, reference, self.absent)

    def shaken(
        self,
        model: torch.nn.Module,
        inputs: tuple[Any, ...],
        chance: torch.Generator,
        units: float = 1.0,
    ) -> Iterator[tuple[torch.Tensor, ...]]:
        """What the reference means on inputs that differ from these in their last bits.

        One after the other, for a large op has no room for all of them. Each time every element is
        moved by up to `units` in the last place of float32, as which kernels of narrower types
        compute too: alone, or with its row or its column. Results of other shapes, and inputs that
        the reference refuses, are left out; empty where float64 is not to be had.
        """
        if self.caution:
            return

        def shake(tensor: torch.Tensor, together: int | None) -> torch.Tensor:
            if not tensor.is_floating_point():
                return _widen(tensor)
            eps = units * min(torch.finfo(torch.float32).eps, torch.finfo(tensor.dtype).eps)
            shape = list(tensor.shape)
            if together is not None and len(shape) >= -together:
                shape[together] = 1
            moves = torch.rand(shape, generator=chance, dtype=torch.float64) * 2 - 1
            return tensor.to(torch.float64) * (1 + eps * moves.to(tensor.device))

        like = _shapes(self.run(model, inputs))
        for together in SHAKES:
            shaking = functools.partial(shake, together=together)
            moved: tuple[Any, ...] = pytree.tree_map_only(torch.Tensor, shaking, own(inputs))
            try:
                results = self._results(_double(model), moved)
            except CannotRun:
                continue
            del moved
            if _shapes(results) == like:
                yield results

    def turned(
        self, model: torch.nn.Module, inputs: tuple[Any, ...], yardstick: float
    ) -> tuple[torch.Tensor, ...] | None:
        """What the reference means where each pick among as good as equals is another.

        None where float64 is not to be had, nothing is decided, or what comes of it can't be run.
        """
        if self.caution:
            return None
        with contextlib.suppress(CannotRun):
            with Noted() as noted:
                plain = self._results(copy.deepcopy(model), own(inputs))
            if noted.values:
                with Turned(noted.values, yardstick):
                    turned = self._results(_double(model), _wide(inputs))
                return turned if _shapes(turned) == _shapes(plain) else None
        return None

    def left_behind(
        self, model: torch.nn.Module, inputs: tuple[Any, ...], names: Sequence[str]
    ) -> tuple[Expected, ...]:
        """What one call leaves in these parameters and buffers.

        Raises:
            CannotRun: the reference raises on these inputs.
        """
        made = self._after_call(copy.deepcopy(model), own(inputs), names)
        # Without float64, the reference's own result stands for the truth here too.
        truths = made if self.caution else self._after_call(_double(model), _wide(inputs), names)
        return tuple(expect(truth, tensor) for truth, tensor in zip(truths, made, strict=True))

    def _after_call(
        self, model: torch.nn.Module, inputs: tuple[Any, ...], names: Sequence[str]
    ) -> list[torch.Tensor]:
        self._call(model, inputs)
        held = named_tensors(model)
        return [held[name].detach() for name in names]

    def carries_nan(self, model: torch.nn.Module, inputs: tuple[Any, ...]) -> bool:
        """Whether all that the reference does is arithmetic in which a NaN stays one.

        Raises:
            CannotRun: the reference raises on these inputs.
        """
        copied, given, seen = copy.deepcopy(model), own(inputs), _Operators()
        with seen:
            self._call(copied, given)
        return seen.names <= ARITHMETIC

    def _higher(
        self, model: torch.nn.Module, inputs: tuple[Any, ...], reference: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, ...] | None:
        """The outputs in float64; None where the reference can't."""
        if self.caution:
            return None
        try:
            outputs = self._results(_double(model), _wide(inputs))
        except CannotRun as error:
            self.caution = NO_FLOAT64.format(reason=str(error).rstrip("."))
            return None
        for output, made in zip(outputs, reference, strict=True):
            if output.dtype != HIGHER.get(made.dtype, made.dtype) or output.shape != made.shape:
                self.caution = NO_FLOAT64.format(reason="it casts to a fixed dtype inside")
                return None
        return tuple(output.detach() for output in outputs)


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the name of every operator of aten that runs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func._schema.name.removeprefix("aten::"))
        return func(*args, **(kwargs or {}))


def finite_in(tensors: Sequence[torch.Tensor]) -> int:
    """How many elements are neither NaN nor Inf."""
    return sum(int(tensor.isfinite().sum()) for tensor in tensors)


def _shapes(tensors: Sequence[torch.Tensor]) -> list[torch.Size]:
    return [tensor.shape for tensor in tensors]


def written_of(inputs: tuple[Any, ...], written: Sequence[int]) -> tuple[torch.Tensor, ...]:
    """The input tensors at these places."""
    tensors = tensors_of(inputs)
    return tuple(tensors[place] for place in written)


def _double(model: torch.nn.Module) -> torch.nn.Module:
    """A copy in float64, plain tensor attributes included."""
    copied = copy.deepcopy(model).double()
    for module in copied.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, torch.Tensor):
                setattr(module, name, _widen(value))
    return copied


def _wide(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """A private copy of the inputs in float64."""
    widened: tuple[Any, ...] = pytree.tree_map_only(torch.Tensor, _widen, own(inputs))
    return widened


def _widen(tensor: torch.Tensor) -> torch.Tensor:
    wider = HIGHER.get(tensor.dtype)
    return tensor.to(wider) if wider is not None else tensor


def own(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Inputs whose tensors nobody else holds, strides kept."""
    copied: tuple[Any, ...] = pytree.tree_map_only(torch.Tensor, _own_tensor, inputs)
    return copied


def _own_tensor(tensor: torch.Tensor) -> torch.Tensor:
    made = torch.empty_strided(
        tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device
    )
    collapse(made, made).copy_(collapse(tensor.detach(), made))
    return made
