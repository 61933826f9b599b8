"""One problem of the GPU benchmark at a time: the playbook's candidates before the judge."""

import importlib.metadata
import platform
import tempfile
import time
from datetime import datetime
from pathlib import Path

import torch

from benchmarks import gpu_prepare
from benchmarks.gpu_prepare import SUITE, Preparation, Prepared, Tried
from benchmarks.gpu_results import Results, Row
from knowledge.device import Device, load_devices
from knowledge.errors import BadInput
from tools.candidate import Backend, Candidate
from tools.judge.client import Judge
from tools.judge.wire import JudgeLimits
from tools.runner.jail import PROJECT
from tools.task import parse_task
from tools.verdict import Correct, JudgeError, Verdict

# A part of the benchmark must end within minutes, so each measurement is a short one.
LIMITS = JudgeLimits(preparation_s=4.0, timing_s=1.5, compile_s=120.0)
# Where no page describes the present GPU: the nearest one whose figures do for choosing recipes.
FALLBACKS = {(9, 0): "h100-sxm5", (8, 0): "a100-sxm4-80gb", (10, 0): "b200"}
VERSIONS = ("torch", "triton", "pydantic", "numpy", "cuda-bindings", "nvidia-ml-py")
DETAIL_LIMIT = 1500


class Bench:
    """The problems, prepared for the present GPU.

    Args:
        prepared: a file of `prepare`, used where it fits; None to prepare here.
        autotune: measure torch.compile's max-autotune as well.
        width: how many candidates of a problem to try.
        confirm: judge winners again under new seeds.
    """

    def __init__(self, prepared: Path | None, autotune: bool, width: int, confirm: bool) -> None:
        self.device = torch.cuda.get_device_name()
        self._baselines = ("eager", "compile", "max-autotune") if autotune else ("eager", "compile")
        self._width, self._confirm = width, confirm
        self._page = page_of(self.device, torch.cuda.get_device_capability())
        path = prepared or PROJECT / "build" / "gpu" / "prepared.json"
        found = gpu_prepare.read(path)
        fits = found is not None and found.device == self._page.name
        self._preparation = found if fits else None

    def names(self) -> list[str]:
        """All problems."""
        return [entry["name"] for entry in gpu_prepare.entries()]

    def started(self, when: datetime) -> Results:
        """Results without a row."""
        found = {}
        for name in VERSIONS:
            try:
                found[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                found[name] = "absent"
        return Results(
            device=self.device, driver=driver_version(), started=f"{when:%Y-%m-%d %H:%M} UTC",
            versions={"python": platform.python_version(), **found},
        )  # fmt: skip

    def row(self, name: str) -> Row:
        """Judge a problem's candidates, and measure those that are right."""
        began = time.monotonic()
        problem = self._problem(name)
        row = Row(
            name=name, family=problem.family, moved_bytes=problem.moved_bytes, flops=problem.flops,
            outcome="unprepared", detail=problem.failed,
        )  # fmt: skip
        if problem.candidates:
            try:
                row = self._judged(row, problem)
            except BadInput as error:
                row = row.model_copy(update={"outcome": "bad_input", "detail": str(error)})
        return row.model_copy(update={"seconds": time.monotonic() - began})

    def _problem(self, name: str) -> Prepared:
        ready: Preparation | None = self._preparation
        for problem in ready.problems if ready is not None else ():
            if problem.name == name:
                return problem
        (made,) = gpu_prepare.prepare(self._page, (name,), width=self._width).problems
        return made

    def _judged(self, row: Row, problem: Prepared) -> Row:
        path = SUITE.parent / problem.reference
        raw = {"name": problem.name, "reference": str(path), "target": "cuda"}
        task = parse_task(raw, problem.name, SUITE.parent)
        best = row
        with (
            tempfile.TemporaryDirectory(prefix="gpu-", ignore_cleanup_errors=True) as folder,
            Judge(task, Path(folder), LIMITS) as judge,
        ):
            for tried, one in enumerate(problem.candidates[: self._width], start=1):
                made = self._tried(judge, row, one)
                if better(made, best):
                    best = made
                best = best.model_copy(update={"tried": tried})
        return best

    def _tried(self, judge: Judge, row: Row, one: Tried) -> Row:
        backend: Backend = "triton" if one.backend == "triton" else "torch"
        candidate = Candidate(source=one.source, backend=backend)
        verdict = judge.verify(candidate)
        if isinstance(verdict, Correct):
            measured = self._measured(judge, candidate)
            if self._confirm and isinstance(measured, Correct) and is_faster(measured):
                measured = judge.confirm(candidate)
            verdict = measured
        return row.model_copy(
            update={
                "outcome": verdict.kind, "detail": detail_of(verdict)[:DETAIL_LIMIT],
                "title": one.title, "digest": candidate.digest, "labels": verdict.labels,
                "timing": verdict.timing if isinstance(verdict, Correct) else None,
                "isolation": verdict.isolation,
            }
        )  # fmt: skip

    def _measured(self, judge: Judge, candidate: Candidate) -> Verdict:
        """Against all baselines but those that torch can't compile here."""
        names = list(self._baselines)
        while True:
            verdict = judge.measure(candidate, tuple(names))
            broken = [
                name for name in names[1:]
                if isinstance(verdict, JudgeError) and verdict.log.startswith(f"{name} does not")
            ]  # fmt: skip
            if not broken:
                return verdict
            names.remove(broken[0])


def probe(target: str = "cuda") -> Verdict:
    """An honest kernel before the judge, untimed: whether a runner can use the device at all."""
    path = PROJECT / "tests" / "references" / "gpu" / "mean.py"
    source = path.read_text(encoding="utf-8").replace("class Model(", "class ModelNew(")
    task = parse_task(
        {"name": "probe", "reference": str(path), "target": target}, "probe", path.parent
    )
    with (
        tempfile.TemporaryDirectory(prefix="gpu-", ignore_cleanup_errors=True) as folder,
        Judge(task, Path(folder), LIMITS) as judge,
    ):
        return judge.verify(Candidate(source=source, backend="torch"))


def is_faster(verdict: Correct) -> bool:
    """Whether a verdict says that a kernel won."""
    return verdict.timing is not None and verdict.timing.faster


def better(one: Row, other: Row) -> bool:
    """Whether a row tells of a better kernel; anything is better than nothing tried."""
    if one.timing is None or other.timing is None:
        return one.timing is not None or other.outcome == "unprepared"
    return one.timing.candidate_ms < other.timing.candidate_ms


def detail_of(verdict: Verdict) -> str:
    """What a rejection says."""
    return str(getattr(verdict, "detail", "") or getattr(verdict, "log", ""))


def page_of(name: str, capability: tuple[int, int]) -> Device:
    """The page of the present GPU, or of one like it: recipes need its figures, no row does."""
    devices = load_devices()
    for device in devices.values():
        if name in device.detected_as:
            return device
    return devices[FALLBACKS.get(capability, "h100-sxm5")]


def driver_version(path: Path = Path("/proc/driver/nvidia/version")) -> str:
    """The kernel driver's, by its own word."""
    try:
        words = path.read_text(encoding="utf-8").split()
    except OSError:
        return "unknown"
    return next((word for word in words if word.count(".") >= 1 and word[0].isdigit()), "unknown")
