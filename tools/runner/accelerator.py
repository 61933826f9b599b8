"""A runner's own hold on its GPU, taken before any candidate is loaded.

A candidate shares the process and may patch torch's names, so the C functions are kept here from
the start. Even so their figures are the runner's word: what the judge believes is its own clock.
"""

import contextlib
from collections.abc import Callable
from typing import Any, Literal

import torch

Precision = Literal["strict", "tf32", "half"]
# torch's names for what float32 products may be computed in.
PRODUCTS: dict[Precision, str] = {"strict": "highest", "tf32": "high", "half": "medium"}


def set_precision(precision: Precision) -> None:
    """One policy for matrix products and convolutions; torch lets the latter use TF32 unasked."""
    torch.set_float32_matmul_precision(PRODUCTS[precision])
    torch.backends.cudnn.allow_tf32 = precision != "strict"


class Accelerator:
    """The current GPU, its context made.

    Raises:
        RuntimeError: there is none, or it cannot be used from here.
    """

    def __init__(self, precision: Precision) -> None:
        set_precision(precision)
        torch.cuda.init()  # type: ignore[no-untyped-call]
        self.device = torch.device("cuda", torch.cuda.current_device())
        self._spark = torch.zeros(1, device=self.device)
        native: Any = torch._C
        self._synchronise: Callable[[], None] = native._cuda_synchronize
        self._record = native._CudaEventBase.record
        self._elapsed = native._CudaEventBase.elapsed_time
        self._current_stream = torch.cuda.current_stream
        self._began = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        self._ended = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        self._synchronise()

    def begin(self) -> None:
        """Nothing is at work from here on but what follows."""
        self._synchronise()
        self._record(self._began, self._current_stream(self.device))

    def end(self) -> None:
        """Wait for all that was begun, on whatever stream."""
        self._record(self._ended, self._current_stream(self.device))
        self._synchronise()

    def elapsed_ns(self) -> int:
        """What CUDA's events say of the time between `begin` and `end` on the current stream."""
        # A candidate may have destroyed what it found of ours; then its figure is missing.
        with contextlib.suppress(RuntimeError, TypeError):
            return int(1e6 * self._elapsed(self._began, self._ended))
        return 0

    def wait(self) -> None:
        """Wait for everything on the device."""
        self._synchronise()

    def spark(self) -> None:
        """Run the least that a device can do, and wait for it."""
        self._spark.zero_()
        self._synchronise()
