"""The tools that look at one kernel: `judge`, `compile` and `profile`. No run, no budget."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field

from graph.folder import RunFolder
from graph.mcp.follow import Call, errand
from graph.mcp.hall import Hall
from graph.mcp.replies import Built, Judged, Profiled, baselines_of
from graph.subjects import (
    Arguments,
    CandidateSource,
    Inputs,
    Op,
    Reference,
    Subject,
    Target,
    candidate_text,
)
from graph.workbench import Workbenches
from knowledge.errors import BadInput
from tools.ahead import AheadOfTime, compiled_uses
from tools.candidate import Candidate, backend_of
from tools.judge.client import Judge, JudgeClosed
from tools.judge.panel import Panel
from tools.judge.whole import Judgement, judge_whole
from tools.runner.jail import PROJECT
from tools.secrets import without_secrets
from tools.task import Task, device_of
from tools.told import quote
from tools.verdict import BuildFailed

Bench = Judge | AheadOfTime | Panel
Answer = TypeVar("Answer")

# What a kernel is built against where no op is named; C++ and CUDA C++ don't look at it.
ANY_OP = {"op": "torch.relu", "inputs": [{"shape": [8, 8]}]}


class Lookers:
    """The tools, for one server."""

    def __init__(self, hall: Hall) -> None:
        self._hall = hall

    async def judge(  # noqa: PLR0913 - a tool's parameters are its schema
        self,
        call: Call,
        candidate: CandidateSource,
        reference: Reference = "",
        op: Op = "",
        inputs: Inputs = None,
        arguments: Arguments = None,
        target: Target = "auto",
        timed: Annotated[
            bool, Field(description="also time it against eager and torch.compile; a minute")
        ] = True,
    ) -> Judged:
        """Judge any kernel against its PyTorch reference: is it right, and how fast is it?

        The kernel runs in a jail and is compared, element by element, with a float64 oracle on
        hidden inputs: ordinary, huge, tiny, with NaN and Inf, in other shapes and layouts. A right
        one is timed by the judge's own clock, interleaved with eager and torch.compile. Takes some
        seconds, with timing up to a minute. For repeated attempts on one op, start_task is faster.
        """
        kernel = self._candidate(candidate)
        task = self._task(kernel, reference, op, inputs, arguments, target)
        found = await self._apart(call, task, lambda bench: self._judged(bench, kernel, timed))
        return Judged.of(
            found.verdict,
            kernel.digest,
            cautions=found.cautions,
            baselines=baselines_of(found.baselines) if found.baselines is not None else (),
        )

    async def compile(
        self,
        call: Call,
        candidate: CandidateSource,
        reference: Reference = "",
        op: Op = "",
        inputs: Inputs = None,
        target: Target = "auto",
    ) -> Built:
        """Compile a kernel, and say what the compiler says. Nothing is run and nothing judged.

        C++ and CUDA C++ need no reference. Triton is compiled for the launches that the reference's
        inputs lead to, so it needs one. Takes about a second.
        """
        kernel = self._candidate(candidate)
        if not reference and not op:
            if kernel.backend == "triton":
                raise BadInput("compile", "Triton kernels need the reference, for their launches.")
            task = Subject(target=target).task(self._hall, settings=ANY_OP)
        else:
            task = self._task(kernel, reference, op, inputs, None, target)
        device = device_of(task, "target")
        on_gpu = kernel.backend in ("triton", "cuda")
        if on_gpu and device.kind != "cuda":
            mend = "Name one, e.g. cuda:h200-sxm; it need not be here."
            raise BadInput("target", f"{device.title} is no GPU, which this kernel is for.", mend)

        def build(bench: Bench) -> BuildFailed | None:
            if not on_gpu or isinstance(bench, AheadOfTime):
                return bench.build(kernel)
            # A judge on a GPU leaves Triton to the first launch.
            found = compiled_uses(kernel, bench.examine().source, device)
            return found if isinstance(found, BuildFailed) else None

        failed = await self._apart(call, task, build)
        return Built(
            compiles=failed is None,
            told=quote(failed.log) if isinstance(failed, BuildFailed) else "",
            backend=kernel.backend,
        )

    async def profile(  # noqa: PLR0913 - a tool's parameters are its schema
        self,
        call: Call,
        candidate: CandidateSource,
        reference: Reference = "",
        op: Op = "",
        inputs: Inputs = None,
        arguments: Arguments = None,
        target: Target = "auto",
    ) -> Profiled:
        """Say where a kernel's time goes, by the best instrument that this machine allows.

        Nsight Compute, torch's profiler with the system's counters, or the compiler's report,
        beside the roofline of the op. Says on which rung of that ladder it stands and why not
        higher. Nothing is judged: whether the kernel is right, `judge` says. Some seconds.
        """
        kernel = self._candidate(candidate)
        task = self._task(kernel, reference, op, inputs, arguments, target)
        work = Profiling(kernel, task, self._hall)
        return Profiled.model_validate(await errand(call, self._hall, work.run, work.abandon))

    async def _apart(self, call: Call, task: Task, question: Callable[[Bench], Answer]) -> Answer:
        """What a judge of its own says; it is abandoned where the call is cancelled."""
        apart = Apart(task, self._hall)
        return await errand(call, self._hall, lambda: apart.ask(question), apart.bench.abandon)

    def _candidate(self, given: str) -> Candidate:
        source = candidate_text(given, self._hall.base)
        return Candidate(source=source, backend=backend_of(source))

    def _task(
        self,
        kernel: Candidate,
        reference: str,
        op: str,
        inputs: Any,
        arguments: Any,
        target: str,
    ) -> Task:
        subject = Subject(
            reference=reference, op=op, inputs=inputs, arguments=arguments, target=target
        )
        # On a machine with a GPU, `auto` would mean that.
        settings = {"backend": "cpp"} if kernel.backend == "cpp" else None
        return subject.task(self._hall, settings=settings)

    def _judged(self, bench: Bench, kernel: Candidate, timed: bool) -> Judgement:
        with self._hall.lane:
            if isinstance(bench, Judge | Panel):
                return judge_whole(bench, kernel, timed=timed)
            return Judgement(bench.examine().cautions, None, bench.verify(kernel))


class Apart:
    """A judge for one question, with a scratch folder of its own; no process before it is asked."""

    def __init__(self, task: Task, hall: Hall) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="judge-", ignore_cleanup_errors=True)
        benches = Workbenches(limits=hall.settings.limits)
        self.bench: Bench = benches.judge_of(task, RunFolder(Path(self._scratch.name)))

    def ask(self, question: Callable[[Bench], Answer]) -> Answer:
        """The answer; the judge then ends, with everything that it started."""
        try:
            return question(self.bench)
        finally:
            self.bench.close()
            self._scratch.cleanup()


class Profiling:
    """`python -m tools.profile` as a process, since it runs the reference in its own.

    Args:
        kernel: what is profiled.
        task: names the op and the target.
        hall: has the lane.
    """

    def __init__(self, kernel: Candidate, task: Task, hall: Hall) -> None:
        self._kernel = kernel
        self._task = task
        self._hall = hall
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._apart: Apart | None = None
        self._abandoned = False

    def run(self) -> dict[str, Any]:
        """What it prints.

        Raises:
            BadInput: the reference can't be loaded or traced.
            JudgeClosed: it was abandoned.
        """
        with tempfile.TemporaryDirectory(prefix="profile-", ignore_cleanup_errors=True) as scratch:
            return self._run_in(Path(scratch))

    def _run_in(self, scratch: Path) -> dict[str, Any]:
        candidate, reference = scratch / "kernel.py", self._task.reference
        if reference is None:
            reference = scratch / "reference.py"
            reference.write_text(self._reference(), encoding="utf-8")
        candidate.write_text(self._kernel.source, encoding="utf-8")
        device = device_of(self._task, "target")
        target = device.kind if device.kind == "cpu" else f"{device.kind}:{device.name}"
        with self._hall.lane:
            output, complaint, code = self._work(
                [str(reference), str(candidate), "--target", target, "--json"]
            )
        if code == 0:
            document: dict[str, Any] = json.loads(output)
            return document
        said = complaint.strip().splitlines() or ["without a word"]
        raise BadInput("profile", f"ended with status {code}: {said[-1][:300]}")

    def _reference(self) -> str:
        """The text of an op that no file holds."""
        with self._lock:
            if self._abandoned:
                raise JudgeClosed
            apart = self._apart = Apart(self._task, self._hall)
        return apart.ask(lambda bench: bench.examine().source)

    def _work(self, arguments: list[str]) -> tuple[str, str, int]:
        search = [str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**without_secrets(os.environ), "PYTHONPATH": os.pathsep.join(search)}
        with self._lock:
            if self._abandoned:
                raise JudgeClosed
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tools.profile", *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        output, complaint = self._process.communicate()
        if self._abandoned:
            raise JudgeClosed
        return output, complaint, self._process.returncode

    def abandon(self) -> None:
        """End the process with those of its group, and the judge."""
        with self._lock:
            self._abandoned = True
            if self._apart is not None:
                self._apart.bench.abandon()
            if self._process is not None and self._process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
