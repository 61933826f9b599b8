"""`python -m tools.profile.measure_device [cpu|cuda]`: measure this machine, and keep it as a page.

A CPU's copy bandwidth and peak of multiply-adds, or those of a GPU that has no page. The page lies
in the user's cache, and whoever asks for the device finds the figures there. Neighbours can only
ever make them too low: measure while the machine is idle.
"""

import sys
from collections.abc import Callable
from typing import Annotated, Literal

import torch
import typer

from knowledge.device import Device, Figure, describe_gpu, detect, keep, known_devices
from knowledge.errors import BadInput
from knowledge.gpu import DriverFacts, ask_driver
from tools.backends.cpp.loader import cpp_kernel
from tools.judge.ceilings import fastest_ms
from tools.profile.roofline import LARGE_BYTES, bandwidth_gbps, best_seconds, matmul_gflops

BAD_INPUT = 2
STEPS = 1_000_000
# Independent chains hide the latency of a multiply-add, 4 or 5 clocks on two pipes, with some to
# spare; more would spill.
CHAINS = 12
FMA = f"""
#include <cstdint>
#include <omp.h>
// As wide as the processor's registers at most; the compiler splits it where they are narrower.
#ifdef __AVX512F__
typedef float lanes __attribute__((vector_size(64)));
#elif defined(__AVX__)
typedef float lanes __attribute__((vector_size(32)));
#else
typedef float lanes __attribute__((vector_size(16)));
#endif
extern "C" void chains(float* out, int64_t steps) {{
    #pragma omp parallel
    {{
        lanes sum[{CHAINS}];
        for (int i = 0; i < {CHAINS}; i++) sum[i] = lanes{{}} + (1.0f + float(i));
        lanes factor = lanes{{}} + 0.999f, more = lanes{{}} + 0.001f;
        for (int64_t step = 0; step < steps; step++) {{
            for (int i = 0; i < {CHAINS}; i++) sum[i] = sum[i] * factor + more;
        }}
        float total = 0.0f;
        for (int i = 0; i < {CHAINS}; i++)
            for (unsigned lane = 0; lane < sizeof(lanes) / 4; lane++) total += sum[i][lane];
        out[omp_get_thread_num()] = total;
    }}
}}
extern "C" void width(float* out) {{ out[0] = sizeof(lanes) / 4; }}
"""
GPU_BYTES, GPU_SIZE, GPU_SAMPLES = 1 << 30, 8192, 10


def measure_cpu(device: Device) -> Device:
    """The CPU with its copy bandwidth, its read bandwidth and two float32 peaks."""
    read, copy = bandwidth_gbps(LARGE_BYTES)
    threads = torch.get_num_threads()
    how = f"measured, {threads} threads, fastest repetition"
    figures = {
        "copy_bandwidth": Figure(value=copy, unit="GB/s", source=f"{how}: a copy of 64 MiB"),
        "read_bandwidth": Figure(value=read, unit="GB/s", source=f"{how}: a sum over 128 MiB"),
        "fp32_fma": Figure(
            value=fma_gflops() / 1e3, unit="TFLOPS", source=f"{how}: multiply-adds in registers"
        ),
        "fp32_matmul": Figure(
            value=matmul_gflops(1024)[0] / 1e3, unit="TFLOPS", source=f"{how}: 1024 x 1024 matrices"
        ),
    }
    return device.model_copy(update={"figures": {**device.figures, **figures}})


def fma_gflops() -> float:
    """The rate of independent vector multiply-adds on every thread, two operations each."""
    out = torch.zeros(max(64, torch.get_num_threads()))
    cpp_kernel(FMA, "width", "p")(out)
    lanes = int(out[0])
    chains = cpp_kernel(FMA, "chains", "pi")
    seconds = best_seconds(lambda: chains(out, STEPS), 0.3)
    return 2 * STEPS * CHAINS * lanes * torch.get_num_threads() / seconds / 1e9


def measure_gpu(facts: DriverFacts) -> Device:
    """A GPU without a page: what its driver tells, and what copies and products reach on it."""
    device = describe_gpu(facts)
    seconds = _copy_seconds()
    figures = {
        "memory_bandwidth": Figure(
            value=2 * GPU_BYTES / seconds / 1e9, unit="GB/s", source="measured: a copy of 1 GiB"
        )
    }
    for name, dtype, tf32 in _products(facts.capability):
        figures[name] = Figure(
            value=2 * GPU_SIZE**3 / _product_seconds(dtype, tf32) / 1e12,
            unit="TFLOPS",
            source=f"measured: a product of {GPU_SIZE} x {GPU_SIZE} matrices",
        )
    return device.model_copy(update={"figures": {**device.figures, **figures}})


def _copy_seconds() -> float:
    source = torch.ones(GPU_BYTES // 4, device="cuda")
    target = torch.empty_like(source)
    return _device_seconds(lambda: target.copy_(source))


def _product_seconds(dtype: torch.dtype, tf32: bool) -> float:
    torch.backends.cuda.matmul.allow_tf32 = tf32
    left, right = (torch.randn(GPU_SIZE, GPU_SIZE, device="cuda").to(dtype) for _ in range(2))
    out = torch.empty_like(left)
    return _device_seconds(lambda: torch.mm(left, right, out=out))


def _products(capability: int) -> list[tuple[str, torch.dtype, bool]]:
    """What to multiply: by name of the figure, dtype, and whether TensorFloat-32 is allowed."""
    found = [("fp32", torch.float32, False), ("fp16", torch.float16, False)]
    if capability >= 80:
        found += [("tf32", torch.float32, True), ("bf16", torch.bfloat16, False)]
    return found


def _device_seconds(work: Callable[[], object]) -> float:
    return fastest_ms(work, GPU_SAMPLES) / 1e3


def run(
    what: Annotated[Literal["cpu", "cuda"], typer.Argument(help="which device")] = "cpu",
) -> None:
    """Measure this machine's CPU or GPU, and keep its page in the user's cache.

    Exit code 0; 2 where there is no such device.
    """
    try:
        device = measure_cpu(detect()) if what == "cpu" else _gpu()
    except BadInput as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(BAD_INPUT) from error
    path = keep(device)
    sys.stdout.write(f"{device.title}: {path}\n")
    for name, figure in device.figures.items():
        sys.stdout.write(f"  {name}: {figure.value:,.4g} {figure.unit} ({figure.source})\n")


def _gpu() -> Device:
    facts = ask_driver()
    if facts is None or not torch.cuda.is_available():
        raise BadInput("measure_device", "no NVIDIA GPU can be used on this machine.")
    shipped = next((d for d in known_devices().values() if facts.name in d.detected_as), None)
    measured = measure_gpu(facts)
    # A page that has a source for each figure is worth more: it is kept out of its way.
    return (
        measured
        if shipped is None
        else measured.model_copy(update={"name": f"{measured.name}-measured", "detected_as": ()})
    )


def main() -> None:
    """The command."""
    typer.run(run)


if __name__ == "__main__":
    main()
