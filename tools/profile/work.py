"""The untrusted side of profiling: runs a candidate's forward for an instrument to look at.

Started by `tools.profile.child`, in a jail, with a job's file. Whatever it answers advises the crew
and is never a verdict: the candidate shares the process.
"""

import contextlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from tools.backends.triton.child import constructor_arguments, load, map_tensors
from tools.profile.roofline import bandwidth_gbps
from tools.reference import moved
from tools.runner.accelerator import set_precision

WARM_UP, FEWEST, MOST = 3, 5, 2000
TRACED = 10
NAMED = 12
# What cpp_kernel returns, also where an exported kernel has it written out.
LAUNCHER = "cpp_kernel.<locals>.launch"


class Perf:
    """Switches `perf stat` on and off over its named pipes; without them it does nothing."""

    def __init__(self, control: str = "", answer: str = "") -> None:
        self._control, self._answer = control, answer

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """Count what happens inside."""
        if not self._control:
            yield
            return
        with (
            Path(self._control).open("w", encoding="ascii", buffering=1) as control,
            Path(self._answer).open(encoding="ascii") as answer,
        ):
            control.write("enable\n")
            answer.readline()
            yield
            control.write("disable\n")
            answer.readline()


def build(job: dict[str, Any]) -> tuple[Callable[[], object], ModuleType]:
    """A call of the candidate's forward on the reference's inputs, and the candidate's module.

    Weights are the reference's where names and shapes are the same, else from the same seed.
    """
    reference = load(job["reference"], "reference")
    candidate = load(job["candidate"], "candidate")
    arguments = constructor_arguments(reference)
    torch.manual_seed(0)
    model = reference.Model(*arguments)
    inputs = reference.get_inputs()
    torch.manual_seed(0)
    ours = candidate.ModelNew(*arguments)
    with contextlib.suppress(RuntimeError):
        ours.load_state_dict(model.state_dict(), strict=False)
    if job["cuda"]:
        # As the judge has it.
        set_precision("strict")
        ours = moved(ours, torch.device("cuda", torch.cuda.current_device()))
        inputs = map_tensors(lambda tensor: tensor.cuda(), inputs)

    def forward() -> object:
        with torch.no_grad():
            found = ours(*inputs)
        if job["cuda"]:
            torch.cuda.synchronize()
        return found

    return forward, candidate


def name_kernels(candidate: ModuleType) -> None:
    """Make every C++ kernel of a module an event of the profiler, by its own name."""
    for name, launch in list(vars(candidate).items()):
        if getattr(launch, "__qualname__", "") == LAUNCHER:
            setattr(candidate, name, _named(name, launch))


def _named(name: str, launch: Callable[..., None]) -> Callable[..., None]:
    def recorded(*arguments: object) -> None:
        with torch.profiler.record_function(name):
            launch(*arguments)

    return recorded


def times(job: dict[str, Any], perf: Perf) -> dict[str, Any]:
    """Median of a forward, then each kernel's share by torch's profiler, and a copy's bandwidth."""
    forward, candidate = build(job)
    for _ in range(WARM_UP):
        forward()
    took: list[float] = []
    end = time.perf_counter() + job["seconds"]
    with perf.counting():
        while len(took) < FEWEST or (time.perf_counter() < end and len(took) < MOST):
            start = time.perf_counter()
            forward()
            took.append(time.perf_counter() - start)
    name_kernels(candidate)
    forward()
    calls = max(1, min(TRACED, int(job["seconds"] / statistics.median(took))))
    copied = 0.0 if job["cuda"] else bandwidth_gbps(job["footprint"])[1]
    return {
        "forward_us": statistics.median(took) * 1e6,
        "calls": len(took),
        "kernels": trace(forward, calls, job["cuda"]),
        "copy_gbps": copied,
    }


def trace(forward: Callable[[], object], calls: int, cuda: bool) -> list[dict[str, Any]]:
    """The kernels of a forward, the longest first; on a GPU those that ran there."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if cuda:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities):
        forward()  # what starting it costs falls on this one
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in range(calls):
            forward()
    found = []
    for event in profiler.key_averages():
        on_device = event.device_type.name == "CUDA"
        self_us = event.self_device_time_total if cuda else event.self_cpu_time_total
        if self_us > 0 and on_device == cuda:
            found.append((self_us / calls, event.count / calls, event.key))
    total = sum(self_us for self_us, _, _ in found) or 1.0
    return [
        {"name": name, "calls": count, "self_us": self_us, "share": self_us / total}
        for self_us, count, name in sorted(found, reverse=True)[:NAMED]
    ]


def launch(job: dict[str, Any]) -> dict[str, Any]:
    """One forward between the marks that Nsight Compute profiles from and to."""
    forward, _ = build(job)
    for _ in range(WARM_UP):
        forward()
    with torch.cuda.profiler.profile():
        forward()
    return {}


def main(what: str, job_file: str, answer_file: str, *pipes: str) -> None:
    """Do what is asked of the job in a file, and write the answer to another."""
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    answer = times(job, Perf(*pipes)) if what == "times" else launch(job)
    Path(answer_file).write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
