"""One task under judgement: all that is known of it, and the operations that a client asks for.

Every operation stands on its own; what is kept between them (exam, baselines, input sets) is a
cache.
"""

import functools
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from knowledge.errors import BadInput
from tools.backends.cpp.build import compile_sources, extract_sources
from tools.candidate import Candidate
from tools.examine import examine
from tools.facts import Baselines, ReferenceFacts, Roofline
from tools.judge.baselines import COMPILE, BaselineFailed
from tools.judge.begun import Begun
from tools.judge.case import Weights
from tools.judge.digest import judge_digest
from tools.judge.exam import Exam
from tools.judge.gauntlet import Gauntlet
from tools.judge.inductor import Furnishing
from tools.judge.inputs import secret_seed
from tools.judge.lane import Lane, Program
from tools.judge.oracle import CannotRun
from tools.judge.provenance import provenance_labels
from tools.judge.runners import RUNNER_FAILURES, ZygoteGone
from tools.judge.site import Site, site_of
from tools.judge.source import parse_candidate
from tools.judge.subject import Subject
from tools.judge.timing import Ground, Legacy
from tools.judge.trial import Trial
from tools.judge.wire import JudgeLimits
from tools.judge.zygote import Zygote
from tools.profile.roofline import profile_from
from tools.runner.device_memory import DriverError
from tools.runner.jail import scrubbed_environment
from tools.task import Task, device_of
from tools.verdict import (
    BuildFailed,
    Correct,
    Crashed,
    Hashes,
    JudgeError,
    Profile,
    Timing,
    Verdict,
)

CPP_CACHE, CUDA_CACHE = "KERNELWRIGHT_CPP_CACHE", "KERNELWRIGHT_CUDA_CACHE"
INDUCTOR = "KERNELWRIGHT_INDUCTOR"
COMPILER_MEMORY = 4 << 30
# So many times as long as without, torch.compile may take where it tunes.
TUNING = 2.0

# A device has none left: a candidate took it, and the driver has not got it back yet.
NO_MEMORY = (DriverError, torch.OutOfMemoryError)


class Session:
    """The judge of one task.

    Args:
        task: what is judged.
        folder: scratch; compiled kernels are kept in it.
        limits: deadlines.
        zygote: forks the runners.
        site: where it is judged; None for what the task asks for.

    Raises:
        BadInput: the reference can't be loaded, run or judged.
    """

    def __init__(
        self,
        task: Task,
        folder: Path,
        limits: JudgeLimits,
        zygote: Zygote,
        site: Site | None = None,
    ) -> None:
        self.task = task
        self.limits = limits
        self.zygote = zygote
        self.site = site or site_of(task)
        self.subject = Subject(task, self.site)
        self.cache = folder / "compiled"
        self.cache.mkdir(exist_ok=True)
        self.isolation = zygote.jail.name
        self._facts: ReferenceFacts | None = None
        self._exam: Exam | None = None
        self._ground: Ground | None = None
        self._roofline: Roofline | None = None
        self._timings: dict[str, Timing] = {}
        self._furnishing = Furnishing(zygote.jail)
        self._begun = Begun()

    @property
    def facts(self) -> ReferenceFacts:
        """What is known of the reference.

        Raises:
            BadInput: it fails on inputs drawn from another seed.
        """
        if self._facts is None:
            here = self.site.device.type
            if here == "cpu" == device_of(self.task, "task: target").kind:
                self._begin_compiling()
            facts = examine(self.subject.loaded, self.task, self._begun.alone)
            # Measured while nothing else is at work; then what torch.compile needs is made while
            # the exam, which the cautions are read from, is written.
            with self._begun.alone():
                self._roofline = self._roofline or self.site.roofline(facts)
            self._furnish()
            cautions = dict.fromkeys((*facts.cautions, *self.cautions))
            self._facts = facts.model_copy(update={"cautions": tuple(cautions)})
        return self._facts

    @functools.cached_property
    def cautions(self) -> tuple[str, ...]:
        """What a reader of any verdict on this task must know.

        Raises:
            BadInput: the reference fails on inputs drawn from another seed.
        """
        try:
            ordinary = self.exam.cases[:2]
        except CannotRun as error:
            told = f"works on some inputs and not on others: {error}"
            raise BadInput(self.subject.origin, told) from error
        return self.subject.cautions(ordinary)

    @property
    def exam(self) -> Exam:
        """The correctness cases of this session."""
        if self._exam is None:
            # Its cases are as many as there is time for: none may go missing.
            with self._begun.alone() as release:
                seconds = self.limits.preparation_s
                trial = Trial(self.subject, self._make_lane) if self.site.brittle else None
                self._exam = Exam(self.subject, seconds, release, trial)
        return self._exam

    @property
    def ground(self) -> Ground:
        """Where times are taken in this session."""
        if self._ground is None:
            exam = self.exam
            with self._begun.alone():
                self._ground = Ground(
                    self.subject, exam, self._make_lane, self.limits, self._settle
                )
            if (lane := self._begun.take()) is not None:
                self._ground.baselines.adopt(COMPILE, lane)
        return self._ground

    @property
    def roofline(self) -> Roofline:
        """The bound on this op on this machine."""
        if self._roofline is None:
            self._roofline = self.site.roofline(self.facts)
        return self._roofline

    def survey(self) -> tuple[Baselines, Roofline]:
        """Baselines, interleaved, and the roofline.

        Raises:
            BaselineFailed: the reference can't be run in a jail.
        """
        roofline = self.roofline
        self._furnish()
        return self.ground.survey(), roofline

    def _furnish(self) -> None:
        """Begin to make what torch.compile needs for a CPU's kernels."""
        if self.site.device.type == "cpu":
            self._furnishing.start()

    def build(self, candidate: Candidate) -> BuildFailed | None:
        """Parse a candidate, and compile its C++ in the jail; None where nothing is wrong."""
        failed = parse_candidate(candidate.source)
        if failed is None:
            sources = extract_sources(candidate.source)
            failed = compile_sources(sources, self.cache, self._compile)
            failed = failed or self.site.build(candidate.source, self.cache)
        return failed and failed.model_copy(
            update={"isolation": self.isolation, "hashes": self._hashes(candidate)}
        )

    def verify(self, candidate: Candidate) -> Verdict:
        """Judge correctness alone."""
        return self._finish(candidate, lambda: self._verify(candidate, self.exam))

    def measure(
        self, candidate: Candidate, against: tuple[str, ...], to_beat: float | None = None
    ) -> Verdict:
        """Time a candidate that was verified before; its timed outputs are checked."""
        return self._finish(
            candidate, lambda: self._measure(candidate, against, self.ground, to_beat)
        )

    def profile(self, candidate: Candidate) -> Profile | None:
        """Where its time goes, from its last measurement; None where it was not measured here."""
        timing = self._timings.get(candidate.digest)
        return profile_from(timing, self.roofline) if timing is not None else None

    def confirm(self, candidate: Candidate) -> Verdict:
        """Judge it once more: new runner, new seeds, all baselines measured again."""
        return self._finish(candidate, lambda: self._confirm(candidate))

    def _verify(self, candidate: Candidate, exam: Exam) -> Verdict:
        failed = self.build(candidate)
        try:
            return failed or Gauntlet(exam, self._make_lane).run(candidate)
        finally:
            # Before anything is timed, for which several processes hold results of their own.
            exam.put_away()

    def _measure(
        self,
        candidate: Candidate,
        against: tuple[str, ...],
        ground: Ground,
        to_beat: float | None,
    ) -> Verdict:
        if failed := self.build(candidate):
            return failed
        program = Program(candidate.source, "ModelNew", packages=self.subject.packages)
        measured = ground.measure(program, against, to_beat)
        if not isinstance(measured, Timing):
            return measured
        self._timings[candidate.digest] = measured
        return Correct(timing=measured)

    def _confirm(self, candidate: Candidate) -> Verdict:
        """Exam and ground are made anew, and are the session's from then on; baselines run on."""
        # What is left is freed first: a large op's truths would not be in memory twice.
        legacy = self._ground.leave() if self._ground is not None else Legacy()
        self._ground, self._exam = None, None
        try:
            self._ground = Ground(
                self.subject, self.exam, self._make_lane, self.limits, self._settle, legacy
            )
        except BaseException:
            legacy.close()
            raise
        verdict = self._verify(candidate, self.exam)
        if not isinstance(verdict, Correct):
            return verdict
        timed = self._measure(candidate, self._ground.baselines.available(), self._ground, None)
        if isinstance(timed, Correct) and timed.timing is not None:
            confirmed = timed.timing.model_copy(update={"confirmed": True})
            return verdict.model_copy(update={"timing": confirmed})
        return timed

    def _finish(self, candidate: Candidate, judge: Callable[[], Verdict]) -> Verdict:
        """Run a judgement, twice where the zygote died, and add what was in force."""
        try:
            # No candidate shares a core with a baseline that is still being compiled.
            with self._begun.alone():
                try:
                    verdict = judge()
                except ZygoteGone:
                    self._drop_ground()
                    verdict = judge()
        except (ZygoteGone, BaselineFailed, CannotRun, TimeoutError, *NO_MEMORY) as error:
            verdict = JudgeError(log=str(error))
        labels = [*candidate.labels, *verdict.labels]
        if not isinstance(verdict, BuildFailed | Crashed | JudgeError):
            labels += provenance_labels(candidate.source, self.subject.loaded.source)
        signed = {
            "isolation": self.isolation, "labels": tuple(dict.fromkeys(labels)),
            "hashes": self._hashes(candidate),
        }  # fmt: skip
        return verdict.model_copy(update=signed)

    def _hashes(self, candidate: Candidate) -> Hashes:
        reference = self.subject.loaded.digest
        return Hashes(source=candidate.digest, reference=reference, judge=judge_digest())

    def _settle(self) -> None:
        """Wait until nothing is at work that a measurement would notice."""
        self._begun.hold()
        self.zygote.settle()

    def _begin_compiling(self) -> None:
        """Set torch.compile to work on the reference, if it needs to wait for nothing."""
        if not self._furnishing.ready:
            return
        subject, seed = self.subject, secret_seed()
        # Timed on first use, and so used while nothing else is at work.
        _ = subject.quick_s
        sets = subject.share([subject.loaded.inputs(seed)])
        lane = None
        try:
            lane = self._bare_lane(program := subject.program(compile_it=True))
            lane.begin(program, subject.constructor(seed), seed, sets)
        except (ZygoteGone, *RUNNER_FAILURES):
            # It is begun anew, and what went wrong told, when the baseline is wanted.
            if lane is not None:
                lane.close()
        else:
            self._begun.watch(lane)
        finally:
            sets.close()

    def _make_lane(self, program: Program, weights: Weights) -> Lane:
        lane = self._bare_lane(program)
        try:
            lane.load(program, self.subject.constructor(weights.seed), weights.seed)
        except Exception:
            lane.close()
            raise
        return lane

    def _bare_lane(self, program: Program) -> Lane:
        """A runner that has loaded nothing yet, with the deadlines for a program."""
        environment = {CPP_CACHE: str(self.cache), CUDA_CACHE: str(self.cache)}
        if program.compile and (made := self._furnishing.folder()):
            environment[INDUCTOR] = str(made)
        runner = self.zygote.fork(self._memory(), environment, program.visible)
        limits = self.limits
        if program.compile:
            # Tuning tries out one kernel after the other.
            seconds = limits.compile_s * (TUNING if program.mode else 1.0)
            limits = limits.model_copy(update={"first_call_s": seconds})
        lane = self.site.lane(runner, limits, self.subject.reference_s)
        self.isolation = ", ".join([self.zygote.jail.name, *lane.in_force])
        return lane

    def _memory(self) -> int:
        """Bytes a runner may have."""
        tensors = [*self.subject.model.state_dict().values(), *self.subject.outputs]
        return self.site.memory(self.subject.input_bytes + sum(tensor.nbytes for tensor in tensors))

    def _compile(self, command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
        """Run a compiler in the jail, with one folder to write to."""
        limits = ["--memory", str(COMPILER_MEMORY), "--seconds", str(int(self.limits.compile_s))]
        try:
            return subprocess.run(
                self.zygote.jail.compiling(command, folder, limits), cwd=folder,
                env=scrubbed_environment(folder), capture_output=True, text=True, errors="replace",
                timeout=self.limits.compile_s, check=False, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            said = f"the compiler was ended after {self.limits.compile_s:g} s"
            return subprocess.CompletedProcess(command, 1, "", said)

    def _drop_ground(self) -> None:
        self._begun.close()
        if self._ground is not None:
            self._ground.close()
            self._ground = None

    def close(self) -> None:
        """End every runner and free all shared memory."""
        self._drop_ground()
        self._furnishing.close()


def open_session(task: Task, folder: Path, limits: JudgeLimits, zygote: Zygote) -> Session:
    """A session, in a process set up for judging.

    Raises:
        BadInput: as `Session`.
    """
    tempfile.tempdir = str(folder)
    torch.set_grad_enabled(True)
    return Session(task, folder, limits, zygote)
