"""The judge, as the rest of the house sees it: another process, asked over a pipe. No torch here.

If that process dies, another one is started and asked the same thing once; a second death is a
`JudgeError`, which is never a pass, or, where only the reference was running, the reference's own
fault.
"""

import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from knowledge.errors import BadInput
from tools.candidate import Candidate
from tools.facts import Baselines, ReferenceFacts, Roofline
from tools.judge.wire import (
    REPLY,
    Build,
    Built,
    Caution,
    Cautioned,
    Confirm,
    Examine,
    Examined,
    Judged,
    JudgeLimits,
    Measure,
    Open,
    Opened,
    Profiled,
    Profiling,
    Refused,
    Reply,
    Request,
    Survey,
    Surveyed,
    Verify,
)
from tools.runner.jail import PROJECT, check_choice
from tools.secrets import without_secrets
from tools.task import Task
from tools.verdict import BuildFailed, JudgeError, Profile, Verdict

# torch's own allocations of 2 MiB and more ask for huge pages.
HUGE_TENSORS = "THP_MEM_ALLOC_ENABLE"
GOODBYE_SECONDS = 10.0
LOG_LIMIT = 3000


class JudgeDied(Exception):
    """The judge's process ended without a reply; the message is the end of its log."""


class JudgeClosed(Exception):
    """The judge was abandoned: there is no answer, and nothing is said of whatever was asked."""


class Judge:
    """A judge of one task; thread-safe, since requests wait for each other. To be closed.

    Args:
        task: what is judged.
        folder: scratch, made if missing; compiled kernels stay in it, nothing else.
        limits: deadlines, for those who must not wait long.
    """

    def __init__(self, task: Task, folder: Path, limits: JudgeLimits | None = None) -> None:
        self._task = task
        self._folder = folder.resolve()
        self._limits = limits or JudgeLimits()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._requests = -1
        self._replies = -1
        self._unread = b""
        self._abandoned = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def examine(self) -> ReferenceFacts:
        """The facts of the reference.

        Raises:
            BadInput: it can't be loaded, run or judged.
        """
        reply = self._of_reference(Examine())
        assert isinstance(reply, Examined)
        return reply.facts

    def cautions(self) -> tuple[str, ...]:
        """What a reader of any verdict on this task must know; part of the facts, and sooner there.

        Raises:
            BadInput: as `examine`.
        """
        reply = self._of_reference(Caution())
        assert isinstance(reply, Cautioned)
        return reply.cautions

    def survey(self) -> tuple[Baselines, Roofline]:
        """The baselines, measured interleaved, and the roofline.

        Raises:
            BadInput: the reference can't be loaded, run or judged.
        """
        reply = self._of_reference(Survey())
        assert isinstance(reply, Surveyed)
        return reply.baselines, reply.roofline

    def build(self, candidate: Candidate) -> BuildFailed | None:
        """Parse and compile a candidate; None where nothing is wrong.

        Raises:
            JudgeDied: the judge's own machinery failed twice.
        """
        reply = self._ask_twice(Build(candidate=candidate))
        assert isinstance(reply, Built)
        return reply.failure

    def verify(self, candidate: Candidate) -> Verdict:
        """Judge its correctness: `Correct` without timing, or the rejection."""
        return self._verdict(Verify(candidate=candidate))

    def measure(
        self, candidate: Candidate, against: tuple[str, ...], to_beat: float | None = None
    ) -> Verdict:
        """Time a candidate against baselines by name: `Correct` with timing, or the rejection.

        The cases of `verify` are not repeated, but outputs of timed calls are checked. A candidate
        whose speedup lies wholly below `to_beat` is let go early, and its timing says so.
        """
        return self._verdict(Measure(candidate=candidate, against=against, to_beat=to_beat))

    def profile(self, candidate: Candidate) -> Profile | None:
        """Where its time goes, from its last measurement; None where it has not been measured.

        Raises:
            JudgeDied: the judge's own machinery failed twice.
        """
        reply = self._ask_twice(Profiling(candidate=candidate))
        assert isinstance(reply, Profiled)
        return reply.profile

    def confirm(self, candidate: Candidate) -> Verdict:
        """Judge and time it again: new runner, new seeds, every baseline measured anew."""
        return self._verdict(Confirm(candidate=candidate))

    def close(self) -> None:
        """End the process with everything it started; twice is fine."""
        with self._lock:
            self._stop()

    def abandon(self) -> None:
        """End the process at once, from any thread, also while it works.

        Whoever waits for an answer, and whoever asks from now on, gets `JudgeClosed`.
        """
        self._abandoned = True
        process = self._process
        if process is not None:
            # The zygote and all runners end with the channel that it holds.
            process.kill()

    def _verdict(self, request: Request) -> Verdict:
        try:
            reply = self._ask_twice(request)
        except JudgeDied as death:
            return JudgeError(log=str(death))
        assert isinstance(reply, Judged)
        return reply.verdict

    def _of_reference(self, request: Request) -> Reply:
        try:
            return self._ask_twice(request)
        except JudgeDied as death:
            origin = str(self._task.reference or self._task.definition or self._task.name)
            last = str(death).strip().splitlines()
            said = f" ({last[-1][:200]})" if last else ""
            raise BadInput(
                origin, f"the judge's process ended while it ran the reference{said}."
            ) from death

    def _ask_twice(self, request: Request) -> Reply:
        """A reply, from a second process where the first one dies.

        Raises:
            BadInput: the user's input is wrong.
            JudgeClosed: it was abandoned.
            JudgeDied: both died.
        """
        with self._lock:
            try:
                return self._ask(request)
            except JudgeDied:
                self._stop()
            try:
                return self._ask(request)
            except JudgeDied as death:
                self._stop()
                if self._abandoned:
                    raise JudgeClosed from death
                raise

    def _ask(self, request: Request) -> Reply:
        if self._abandoned:
            raise JudgeClosed
        if self._process is None:
            self._start()
            opened = self._exchange(Open(task=self._task, limits=self._limits))
            assert isinstance(opened, Opened)
        return self._exchange(request)

    def _exchange(self, request: Request) -> Reply:
        line = request.model_dump_json().encode() + b"\n"
        try:
            while line:
                line = line[os.write(self._requests, line) :]
            while b"\n" not in self._unread:
                data = os.read(self._replies, 1 << 16)
                if not data:
                    raise JudgeDied(self._log())
                self._unread += data
        except BrokenPipeError as error:
            raise JudgeDied(self._log()) from error
        answer, self._unread = self._unread.split(b"\n", 1)
        reply = REPLY.validate_json(answer)
        if isinstance(reply, Refused):
            if isinstance(request, Open):
                self._stop()
            raise BadInput(reply.where, reply.what, reply.mend)
        return reply

    def _start(self) -> None:
        check_choice()
        self._folder.mkdir(parents=True, exist_ok=True)
        to_read, self._requests = os.pipe()
        self._replies, to_write = os.pipe()
        command = [
            sys.executable, "-m", "tools.judge.service",
            str(self._folder), str(to_read), str(to_write),
            *(["--huge-pages"] if self._task.pages == "huge" else []),
        ]  # fmt: skip
        search = [str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])]
        # The reference runs in there, and where there is no jail a candidate could look at it.
        environment = {**without_secrets(os.environ), "PYTHONPATH": os.pathsep.join(search)}
        # Its own copies in float64 come and go; what is timed has an environment of its own.
        environment.setdefault(HUGE_TENSORS, "1")
        with (self._folder / "judge.log").open("wb") as log:
            self._process = subprocess.Popen(
                command, pass_fds=(to_read, to_write), env=environment, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        os.close(to_read)
        os.close(to_write)
        self._unread = b""
        if self._abandoned:
            # By another thread, before there was a process that it could have ended.
            self._process.kill()

    def _stop(self) -> None:
        if self._process is None:
            return
        for descriptor in (self._requests, self._replies):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        try:
            self._process.wait(GOODBYE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _log(self) -> str:
        path = self._folder / "judge.log"
        text = path.read_text(errors="replace")[-LOG_LIMIT:] if path.exists() else ""
        code = self._process.wait(GOODBYE_SECONDS) if self._process else None
        return f"{text}\nthe judge's process ended with status {code}"
