"""What a GPU could do at best: copies and sums for its memory, products for its arithmetic.

Measured with CUDA's events in the judge's own process, where no candidate is. Where a ceiling errs
it must err upwards: kernels are held against it.
"""

from collections.abc import Callable

import torch

from tools.facts import ReferenceFacts, Roofline

LARGE_BYTES, SMALLEST_BYTES = 1 << 30, 256 << 20
PRODUCT_SIZE = 4096
REPEATS = 9
# A product in single precision on tensor cores is three products of TensorFloat-32.
PRODUCTS_OF_TF32 = 3


def measure_ceilings(facts: ReferenceFacts, device: torch.device) -> Roofline:
    """The ceilings for an op; takes a fraction of a second, alone on the device."""
    footprint = min(LARGE_BYTES, max(SMALLEST_BYTES, facts.moved_bytes))
    copied, summed = bandwidth_gbps(footprint, device)
    peak, how = peak_gflops({spec.dtype for spec in facts.inputs}, device)
    return Roofline(
        bandwidth_gbps=max(copied, summed),
        peak_gflops=peak,
        moved_bytes=facts.moved_bytes,
        flops=facts.flops,
        fault_us=0.0,
        measured=(
            f"Bandwidth from {'copying' if copied >= summed else 'summing'} "
            f"{footprint / 2**20:.0f} MiB; peak from {how}; fastest of {REPEATS}, by CUDA's events."
        ),
    )


def bandwidth_gbps(footprint: int, device: torch.device) -> tuple[float, float]:
    """Bytes a nanosecond of a copy within so many bytes, reads and writes counted, and of a sum."""
    buffer = torch.ones(footprint // 4, device=device)
    half = buffer.numel() // 2
    source, target = buffer[:half], buffer[half : 2 * half]
    copy = 8 * half / fastest_ms(lambda: target.copy_(source))
    read = 4 * buffer.numel() / fastest_ms(buffer.sum)
    return copy / 1e6, read / 1e6


def peak_gflops(dtypes: set[str], device: torch.device) -> tuple[float, str]:
    """The rate of matrix products for inputs of these dtypes, and how it was found."""
    if dtypes & {"bfloat16", "float16"} and "float32" not in dtypes:
        dtype = torch.bfloat16 if "bfloat16" in dtypes else torch.float16
        return product_gflops(dtype, device), f"a {dtype} product".replace("torch.", "")
    if "float64" in dtypes:
        return product_gflops(torch.float64, device), "a float64 product"
    plain = product_gflops(torch.float32, device)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        split = product_gflops(torch.float32, device) / PRODUCTS_OF_TF32
    finally:
        torch.set_float32_matmul_precision(before)
    if split > plain:
        return split, "a TF32 product, three of which make one of float32"
    return plain, "a float32 product"


def product_gflops(dtype: torch.dtype, device: torch.device, size: int = PRODUCT_SIZE) -> float:
    """The rate of one square product of random numbers: of zeros it would be another."""
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(left)
    return 2 * size**3 / fastest_ms(lambda: torch.mm(left, right, out=out)) / 1e6


def fastest_ms(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """The fastest of some repetitions, after one that is not counted."""
    work()
    took: list[float] = []
    for _ in range(repeats):
        start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        start.record()
        work()
        end.record()
        end.synchronize()
        took.append(start.elapsed_time(end))
    return min(took)
