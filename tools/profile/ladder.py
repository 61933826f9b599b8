"""The ladder of instruments: the best that this machine allows is read, others are named.

On a GPU: Nsight Compute, torch's profiler (CUPTI), the compiler's report. On a CPU: torch's
profiler with `perf stat`. Below them all stands the judge's wall clock with the analytic roofline,
which every timed trial has. The candidate runs in a jail, and what is read advises only.
"""

import functools
import subprocess
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from knowledge.device import Device
from knowledge.opgraph import Frozen
from tools.ahead import compiled_uses
from tools.backends.jailed import MEMORY, ask
from tools.candidate import Candidate
from tools.profile import counters, nsight
from tools.profile.occupancy import capability_of
from tools.verdict import (
    BuildFailed,
    CounterReadings,
    KernelTime,
    Profile,
    Readings,
    ReportReadings,
    SkippedRung,
    TimeReadings,
)

COUNTERS = "Nsight Compute"
TIMES = "torch profiler"
REPORT = "compiler report and analytic roofline"
WALL_CLOCK = "wall clock and analytic roofline"
SYSTEM_COUNTERS = "perf stat"
COMMAND = ("tools.profile.child",)
# A CUDA context reserves more addresses than a machine has memory.
UNCAPPED = 1 << 62
DEADLINE_SECONDS = 180.0
LOOP_SECONDS = 0.4
LEAST_FOOTPRINT, LARGEST_FOOTPRINT = 1 << 20, 512 << 20


class Climb(Frozen):
    """What the ladder gave: the rung that was reached, those above it and why not, the readings."""

    rung: str
    skipped: tuple[SkippedRung, ...] = ()
    readings: Readings | None = None

    def added_to(self, profile: Profile) -> Profile:
        """The judge's profile with these readings; its rung where none was reached."""
        rung = profile.rung if self.readings is None else f"{self.rung}; {WALL_CLOCK}"
        update = {"rung": rung, "skipped": self.skipped, "readings": self.readings}
        return profile.model_copy(update=update)


class Subject(Frozen):
    """What is profiled: a kernel, the source whose inputs it gets, and the op's least traffic."""

    candidate: Candidate
    reference: str
    moved_bytes: int


def climb(
    subject: Subject, device: Device, *, present: bool = True, hot_spots: bool = False
) -> Climb:
    """Read the best instrument there is for a kernel on a device.

    Args:
        subject: what is profiled.
        device: where it runs, or is compiled for.
        present: whether this machine has the device.
        hot_spots: also ask Nsight Compute for the lines of source that warps wait at.
    """
    if device.kind == "cpu":
        return _on_cpu(subject)
    if not present:
        absent = "there is no such device on this machine"
        skipped = tuple(SkippedRung(rung=rung, reason=absent) for rung in (COUNTERS, TIMES))
        return _report(subject, device, skipped)
    found = _count(subject, device, hot_spots)
    if isinstance(found, CounterReadings):
        return Climb(rung=found.tool, readings=found)
    skipped = (SkippedRung(rung=COUNTERS, reason=found),)
    timed = _time(subject, cuda=True)
    if isinstance(timed, TimeReadings):
        return Climb(rung=f"{TIMES} (CUPTI)", skipped=skipped, readings=timed)
    return _report(subject, device, (*skipped, SkippedRung(rung=TIMES, reason=timed)))


def _on_cpu(subject: Subject) -> Climb:
    found = _time(subject, cuda=False)
    if not isinstance(found, TimeReadings):
        return Climb(rung=WALL_CLOCK, skipped=(SkippedRung(rung=TIMES, reason=found),))
    hardware = {"cycles", "instructions"} & set(found.counters)
    rung = f"{TIMES} and {SYSTEM_COUNTERS}" if hardware else TIMES
    reason = found.counters_refused or "it counted nothing"
    skipped = () if hardware else (SkippedRung(rung=SYSTEM_COUNTERS, reason=reason),)
    return Climb(rung=rung, skipped=skipped, readings=found)


def _report(subject: Subject, device: Device, skipped: tuple[SkippedRung, ...]) -> Climb:
    """The last rung: nothing runs."""
    found = compiled_uses(subject.candidate, subject.reference, device)
    if isinstance(found, BuildFailed):
        last = SkippedRung(rung=REPORT, reason=found.log.strip().splitlines()[-1][:300])
        return Climb(rung=WALL_CLOCK, skipped=(*skipped, last))
    return Climb(rung=REPORT, skipped=skipped, readings=ReportReadings(kernels=found))


def _job(subject: Subject, *, cuda: bool) -> dict[str, Any]:
    footprint = min(max(subject.moved_bytes, LEAST_FOOTPRINT), LARGEST_FOOTPRINT)
    return {
        "candidate": subject.candidate.source,
        "reference": subject.reference,
        "cuda": cuda,
        "seconds": LOOP_SECONDS,
        "footprint": footprint,
    }


def _time(subject: Subject, *, cuda: bool) -> TimeReadings | str:
    """Times by kernel, or why there are none."""
    perf = None if cuda else counters.find_perf()
    memory = UNCAPPED if cuda else MEMORY
    job = _job(subject, cuda=cuda) | {"perf": perf}
    answer = ask(COMMAND, job, DEADLINE_SECONDS, memory=memory)
    if isinstance(answer, str):
        return answer
    return read_times(answer, "" if perf or cuda else "perf is not installed")


def read_times(answer: dict[str, Any], refused: str = "") -> TimeReadings | str:
    """Times by kernel from the jailed process's answer, or why there are none."""
    found = answer.get("times")
    if not isinstance(found, dict):
        return _last_line(str(answer.get("log", ""))) or "its process gave no answer"
    try:
        kernels = tuple(KernelTime.model_validate(one) for one in found.get("kernels", []))
        readings = TimeReadings(
            forward_us=found.get("forward_us", 0.0),
            kernels=kernels,
            copy_gbps=found.get("copy_gbps", 0.0),
        )
        calls = max(1, int(found.get("calls", 1)))
    except (ValidationError, TypeError, ValueError):
        return "its answer has another form"
    if not kernels:
        return "it named no kernel"
    if "perf" not in answer:
        told = refused or str(answer.get("perf_refused", ""))
        return readings.model_copy(update={"counters_refused": told})
    counted, missing = counters.read_counters(str(answer["perf"]))
    per_call = {event: value / calls for event, value in counted.items()}
    update = {"counters": per_call, "counters_refused": counters.sentence(missing)}
    return readings.model_copy(update=update)


def _count(subject: Subject, device: Device, hot_spots: bool) -> CounterReadings | str:
    """Hardware counters, or why there are none."""
    ncu = nsight.find_ncu()
    if ncu is None:
        return "it was not found on PATH, in the usual folders, or by NCU"
    version = _version(ncu)
    if version is None:
        return f"{ncu} does not say its version"
    if old := nsight.too_old(version, capability_of(device)):
        return old
    kernels = nsight.own_kernels(subject.candidate.source)
    job = {"ncu": str(ncu), "kernels": kernels, "hot_spots": hot_spots}
    answer = ask(COMMAND, _job(subject, cuda=True) | job, DEADLINE_SECONDS, memory=UNCAPPED)
    if isinstance(answer, str):
        return answer
    return read_counted(answer, f"{COUNTERS} {version[0]}.{version[1]}")


def read_counted(answer: dict[str, Any], tool: str) -> CounterReadings | str:
    """Hardware counters from the jailed process's answer, or why there are none."""
    told = str(answer.get("told", ""))
    try:
        kernels = nsight.read_counters(str(answer.get("table", "")))
    except ValueError as error:
        return nsight.refusal(told) or str(error)
    if not any(kernel.metrics for kernel in kernels):
        return nsight.refusal(told) or "it read no metric"
    lines = str(answer.get("lines", ""))
    spots = nsight.read_hot_spots(lines, kernels[0].function) if lines else ()
    return CounterReadings(tool=tool, kernels=kernels, hot_spots=spots)


@functools.cache
def _version(ncu: Path) -> tuple[int, int] | None:
    try:
        done = subprocess.run(
            [str(ncu), "--version"], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return nsight.version_of(done.stdout)


def _last_line(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
