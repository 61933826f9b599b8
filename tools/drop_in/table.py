"""The table of what was verified, and texts that become modules."""

import linecache
import sys
import types
from collections.abc import Sequence
from typing import Any

import torch

# torch's own allocator gives no less; a kernel that was not tried elsewhere may count on it.
ALIGNMENT = 64


def load_text(name: str, text: str) -> types.ModuleType:
    """A module from its text, which tracebacks, `inspect` and compilers can read; once a name."""
    if name in sys.modules:
        return sys.modules[name]
    module = types.ModuleType(name)
    module.__file__ = file = f"<{name}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    sys.modules[name] = module
    try:
        exec(compile(text, file, "exec"), module.__dict__)  # noqa: S102 - text of the same file
    except BaseException:
        del sys.modules[name]
        raise
    return module


class Row:
    """A line of the table, ready to be compared with the tensors of a call.

    `told` has `kernel` (its place), `built` (which way it was constructed; 0 where not there),
    `device` (`cpu`, or `cuda:sm_90`), `inputs` (dtype and sizes of each tensor; a name stands for a
    size within the bounds in `sizes`; strides follow where only those were tried), `layout` (`any`,
    or `contiguous`), `aligned` (nothing was tried at an odd address) and, where all sizes are
    given, `outputs`.
    """

    def __init__(self, told: dict[str, Any]) -> None:
        self.kernel: int = told["kernel"]
        self.built: int = told.get("built", 0)
        self.device, _, self.capability = told["device"].partition(":")
        self.flag = f"is_{self.device}"
        self.sizes: dict[str, tuple[int, int]] = told.get("sizes", {})
        self.places = [
            (getattr(torch, dtype), tuple(shape), tuple(rest[0]) if rest else None)
            for dtype, shape, *rest in told["inputs"]
        ]
        self.contiguous: bool = told["layout"] == "contiguous"
        self.aligned: bool = told["aligned"]
        self.outputs = tuple((getattr(torch, d), tuple(s)) for d, s in told.get("outputs", ()))

    def fits(self, tensors: Sequence[torch.Tensor], traced: bool, laid: bool = True) -> bool:
        """Whether the kernel was verified for such tensors; `laid`: for such memory, too."""
        if len(tensors) != len(self.places):
            return False
        for tensor, (dtype, shape, strides) in zip(tensors, self.places, strict=True):
            if tensor.dtype is not dtype or (not self.sizes and tensor.shape != shape):
                return False
            # A device says its type as a new string each time; a tracer knows none of these flags.
            here = tensor.device.type == self.device if traced else getattr(tensor, self.flag)
            if not here or tensor.layout is not torch.strided:
                return False
            if laid and not self._is_laid(tensor, strides, traced):
                return False
            if self.capability and tensor.device != tensors[0].device:
                return False
        return not self.sizes or self._sizes_fit(tensors)

    def _is_laid(self, tensor: torch.Tensor, strides: tuple[int, ...] | None, traced: bool) -> bool:
        if self.contiguous and not tensor.is_contiguous():
            return False
        if tensor.is_complex() and tensor.is_conj():
            return False
        if strides is not None and tensor.stride() != strides:
            return False
        # A tracer's tensors have no address; the operator looks again when it is called.
        return not self.aligned or traced or tensor.data_ptr() % ALIGNMENT == 0

    def _sizes_fit(self, tensors: Sequence[torch.Tensor]) -> bool:
        found: dict[str, Any] = {}
        for tensor, (_, shape, _) in zip(tensors, self.places, strict=True):
            if tensor.dim() != len(shape):
                return False
            for size, wanted in zip(tensor.shape, shape, strict=True):
                if isinstance(wanted, str) and wanted not in found:
                    found[wanted] = size
                elif size != (found[wanted] if isinstance(wanted, str) else wanted):
                    return False
        for name, (least, most) in self.sizes.items():
            if found[name] < least or found[name] > most:
                return False
        return True
