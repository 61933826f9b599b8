"""The roofline rung: what this machine could do at best, and how near to it a measured kernel is.

The ceilings are measured, not looked up, since what a core gets depends on the neighbours, the
caches and the footprint. Where a ceiling errs it must err upwards: kernels are held against it.
"""

import functools
import mmap
import statistics
import time
from collections.abc import Callable, Sequence

import torch

from tools.facts import ReferenceFacts, Roofline
from tools.verdict import Profile, Timing

RUNG = "wall clock and analytic roofline"
SAMPLE_SECONDS = 0.1
LARGE_BYTES = 128 << 20
SMALLEST_BYTES = 1 << 20
LARGEST_BYTES = 512 << 20
FAULT_PAGES = 8192
# The judge calls a kernel on up to four sets of inputs in turn (tools/judge/rotation.py).
COLD_SHARE = 4


def measure_roofline(facts: ReferenceFacts) -> Roofline:
    """Measure this machine's ceilings for an op; takes about a second, all cores busy."""
    footprint = min(max(facts.moved_bytes, SMALLEST_BYTES), LARGEST_BYTES)
    sizes = sorted({footprint, LARGE_BYTES, SMALLEST_BYTES if footprint < 4 << 20 else footprint})
    rates = {size: bandwidth_gbps(size) for size in sizes}
    best_size = max(rates, key=lambda size: max(rates[size]))
    read, copy = rates[best_size]
    instrument = "summing" if read >= copy else "copying"
    size = 1024
    peak, torchs_own = matmul_gflops(size)
    return Roofline(
        bandwidth_gbps=max(read, copy),
        peak_gflops=peak,
        moved_bytes=facts.moved_bytes,
        flops=facts.flops,
        fault_us=_fault_us(),
        measured=(
            f"Bandwidth from {instrument} {best_size / 2**20:.0f} MiB, the best of sums and copies "
            f"at {len(sizes)} sizes; peak from a float32 product of {size}x{size} matrices; "
            f"{torch.get_num_threads()} threads, fastest repetition."
        ),
        cold_gbps=cold_gbps(footprint),
        product_gflops=torchs_own,
    )


def profile_from(timing: Timing, roofline: Roofline) -> Profile:
    """What a measured time says once it is held against the roofline."""
    milliseconds = timing.candidate_ms
    fault_ms = timing.page_faults * roofline.fault_us / 1e3
    return Profile(
        rung=RUNG,
        median_ms=milliseconds,
        achieved_gbps=roofline.moved_bytes / (milliseconds * 1e6),
        achieved_gflops=roofline.flops / (milliseconds * 1e6),
        roofline_fraction=roofline.fraction(milliseconds),
        bound=roofline.bound_at(milliseconds),
        page_faults=timing.page_faults,
        page_fault_ms=fault_ms,
        notes=tuple(_notes(timing, roofline, fault_ms)),
    )


def _notes(timing: Timing, roofline: Roofline, fault_ms: float) -> list[str]:
    milliseconds = timing.candidate_ms
    moved = roofline.moved_bytes / 1e6
    notes = [
        f"It must move {moved:.1f} MB, {roofline.memory_ms:.3g} ms at "
        f"{roofline.bandwidth_gbps:.0f} GB/s, and takes {milliseconds:.3g} ms."
    ]
    if milliseconds < roofline.compute_ms:
        notes.append(
            f"The op as written would need {roofline.compute_ms:.3g} ms at peak arithmetic, so "
            "this kernel does fewer operations; memory is the only bound it is held against."
        )
    elif roofline.bound == "compute":
        notes.append(
            f"Arithmetic bounds it: {roofline.flops / 1e9:.3g} GFLOP, "
            f"{roofline.compute_ms:.3g} ms at {roofline.peak_gflops:.0f} GFLOP/s."
        )
    share = fault_ms / milliseconds
    if share >= 0.05:
        notes.append(
            f"{timing.page_faults:.0f} page faults a call cost about {fault_ms:.2g} ms, "
            f"{share:.0%} of its time, if each brings one small page: huge pages "
            "would save most of that."
        )
    return notes


def best_seconds(work: Callable[[], object], budget_s: float = SAMPLE_SECONDS) -> float:
    """The fastest of as many repetitions as fit: neighbours can only ever add to a time."""
    work()
    best = float("inf")
    end = time.perf_counter() + budget_s
    while (start := time.perf_counter()) < end:
        work()
        best = min(best, time.perf_counter() - start)
    return best


def bandwidth_gbps(footprint: int) -> tuple[float, float]:
    """Bytes moved per nanosecond by a sum that reads `footprint` bytes, and by a copy within it."""
    buffer = torch.ones(footprint // 4)
    half = buffer.numel() // 2
    source, target = buffer[:half], buffer[half : 2 * half]
    read = 4 * buffer.numel() / best_seconds(buffer.sum)
    copy = 8 * half / best_seconds(lambda: target.copy_(source))
    return read / 1e9, copy / 1e9


def cold_gbps(footprint: int) -> float:
    """Bytes moved per nanosecond, in the median, through four times what an op moves.

    The better of a sum and a copy, each of which comes to a part again when the rest has been by.
    """
    buffer = torch.ones(min(COLD_SHARE * footprint, LARGEST_BYTES) // 4)
    parts = buffer.chunk(COLD_SHARE)
    rates = [4 * parts[0].numel() / _median_seconds([part.sum for part in parts])]
    copies = [
        functools.partial(target.copy_, source)
        for target, source in zip(parts[::2], parts[1::2], strict=True)
    ]
    rates.append(8 * parts[0].numel() / _median_seconds(copies))
    return max(rates) / 1e9


def _median_seconds(works: Sequence[Callable[[], object]]) -> float:
    """Of as many rounds as fit, each work once in turn; the first round does not count."""
    for work in works:
        work()
    times: list[float] = []
    end = time.perf_counter() + SAMPLE_SECONDS
    while not times or time.perf_counter() < end:
        for work in works:
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def matmul_gflops(size: int) -> tuple[float, float]:
    """The faster of torch's two libraries, and the one that `torch.mm` calls.

    The latter is MKL, which is slow on other makers' processors.
    """
    left, right = torch.ones(size, size), torch.ones(size, size)
    out = torch.empty(size, size)
    best = own = best_seconds(lambda: torch.mm(left, right, out=out), 0.15)
    if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        linear = torch.ops.mkldnn._linear_pointwise
        best = min(best, best_seconds(lambda: linear(left, right, None, "none", [], ""), 0.15))
    return 2 * size**3 / best / 1e9, 2 * size**3 / own / 1e9


def _fault_us() -> float:
    """What the first touch of a small page adds to a kernel's time, all threads touching."""
    costs = []
    for _ in range(5):
        with mmap.mmap(-1, FAULT_PAGES * mmap.PAGESIZE) as memory:
            # With transparent huge pages one fault would bring 512 pages, and the figure with it.
            if hasattr(mmap, "MADV_NOHUGEPAGE"):
                memory.madvise(mmap.MADV_NOHUGEPAGE)
            pages = torch.frombuffer(memory, dtype=torch.float32)
            first, again = _seconds_to_fill(pages), _seconds_to_fill(pages)
            del pages
        costs.append((first - again) / FAULT_PAGES)
    return max(min(costs), 0.0) * 1e6


def _seconds_to_fill(pages: torch.Tensor) -> float:
    start = time.perf_counter()
    pages.fill_(1.0)
    return time.perf_counter() - start
