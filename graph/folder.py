"""A run's folder: where its files lie, and how one is written whole or not at all."""

import fcntl
import os
import re
import secrets
import shlex
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import yaml
from pydantic import ValidationError

from agents.brief import Plan
from knowledge.errors import BadInput
from tools.task import Task, load_task
from tools.verdict import BuildFailed, Crashed, JudgeError, Trial

PLAN = "plan.json"
VERDICT = "verdict.json"


class RunFolder:
    """The files of one run, under `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._claiming = threading.Lock()

    @classmethod
    def create(cls, parent: Path, task: Task) -> "RunFolder":
        """A fresh folder for a run of `task`, holding `task.yaml`.

        Raises:
            BadInput: the folder cannot be made.
        """
        folder = cls.named(parent, task.name)
        folder.adopt(task)
        return folder

    @classmethod
    def named(cls, parent: Path, name: str) -> "RunFolder":
        """Where a fresh run of that name goes; nothing is made yet."""
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "task"
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        return cls(parent.resolve() / f"{stamp}-{slug}-{secrets.token_hex(2)}")

    def adopt(self, task: Task) -> None:
        """Make the folder if need be and write `task.yaml` into it.

        Raises:
            BadInput: the folder cannot be made.
        """
        try:
            self.trials.mkdir(parents=True, exist_ok=True)
            if not self.task_file.exists():
                text = yaml.safe_dump(
                    task.model_dump(mode="json", exclude_defaults=True), sort_keys=False
                )
                write_whole(self.task_file, text)
        except OSError as error:
            raise BadInput(
                str(self.path), f"cannot be made ({error.strerror}).", "Give another --out."
            ) from error

    @classmethod
    def reopen(cls, path: Path, named: str = "--resume") -> tuple["RunFolder", Task]:
        """The folder of an earlier run, and its task.

        Args:
            path: of the folder.
            named: how the user gave it.

        Raises:
            BadInput: it is not a run's folder, or its task.yaml can't be read.
        """
        folder = cls(path.resolve())
        if not folder.task_file.is_file() or not folder.trials.is_dir():
            raise BadInput(
                f"{named} {path}",
                "is not the folder of a run.",
                "It should hold task.yaml and trials/.",
            )
        return folder, load_task(folder.task_file)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from working on this run; the system lets go of it with ours.

        Raises:
            BadInput: another process works on it, or it can't be written.
        """
        try:
            lock = (self.path / "lock").open("w")
        except OSError as error:
            raise BadInput(
                str(self.path),
                f"cannot be worked in ({error.strerror}).",
                "Let yourself write there.",
            ) from error
        with lock:
            for left in reversed(range(3)):
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not left:
                        raise BadInput(
                            str(self.path),
                            "is being worked on by another process.",
                            "Wait for its end.",
                        ) from None
                    # `is_held` of a process that only watches has it for a moment.
                    time.sleep(0.05)
            yield

    def is_held(self) -> bool:
        """Whether a process works on this run."""
        try:
            with (self.path / "lock").open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    @property
    def going_on(self) -> str:
        """The command by which a run goes on that stopped before its end."""
        return f"python -m graph.run --resume {shlex.quote(str(self.path))}"

    @property
    def beginning(self) -> str:
        """The command that begins a run with the same task."""
        return f"python -m graph.run {shlex.quote(str(self.task_file))}"

    @property
    def task_file(self) -> Path:
        """The task as it was run, paths absolute."""
        return self.path / "task.yaml"

    @property
    def checkpoint(self) -> Path:
        """LangGraph's checkpoints."""
        return self.path / "checkpoint.sqlite"

    @property
    def events(self) -> Path:
        """One JSON object a line, as things happen."""
        return self.path / "events.jsonl"

    @property
    def exchanges(self) -> Path:
        """Every exchange with a model, one a line, before its answer was used."""
        return self.path / "exchanges.jsonl"

    @property
    def spent(self) -> Path:
        """The clock's laps: wall time, and time on the device."""
        return self.path / "spent.jsonl"

    @property
    def planning(self) -> Path:
        """What the planner and its model said."""
        return self.path / "planning"

    @property
    def trials(self) -> Path:
        """One folder a trial."""
        return self.path / "trials"

    @property
    def best(self) -> Path:
        """The exported winner."""
        return self.path / "best"

    @property
    def taken(self) -> Path:
        """The op as it was taken from somebody's process: its reference, its weights."""
        return self.path / "taken"

    @property
    def scratch(self) -> Path:
        """The judge's working space; it may be deleted when the run is over."""
        return self.path / "scratch"

    def claim_trial(self, plan: Plan) -> int:
        """The number of the trial that carries out `plan`, which lies in its folder from then on.

        The next free one, taken for good; across threads and restarts a plan has one number. Once
        judged, a trial is never written over: where a run is forked, a plan is carried out again
        under a number of its own.
        """
        with self._claiming:
            taken = [int(entry.name) for entry in self.trials.iterdir() if entry.name.isdigit()]
            for number in taken:
                folder = self.trials / str(number)
                if not (folder / VERDICT).exists() and _plan_in(folder) == plan.id:
                    return number
            number = max(taken, default=0) + 1
            # The folder appears with its plan in it, so that a killed process leaves no empty one.
            draft = self.trials / f".{number}.{os.getpid()}.draft"
            draft.mkdir(exist_ok=True)
            (draft / PLAN).write_text(plan.model_dump_json(indent=2), encoding="utf-8")
            draft.rename(self.trials / str(number))
            return number

    def release_trial(self, number: int) -> None:
        """Give back the number of a plan of which nothing came; what was said of it stays."""
        folder = self.trials / str(number)
        if [entry.name for entry in folder.iterdir()] == [PLAN]:
            shutil.rmtree(folder)

    def write_trial(self, trial: Trial) -> None:
        """Source, verdict, log and profile of a judged trial, under its number."""
        folder = self.trials / str(trial.number)
        write_whole(folder / "kernel.py", trial.candidate.source)
        write_whole(folder / VERDICT, trial.verdict.model_dump_json(indent=2))
        if isinstance(trial.verdict, BuildFailed | Crashed | JudgeError):
            write_whole(folder / "build.log", trial.verdict.log)
        if trial.profile is not None:
            write_whole(folder / "profile.json", trial.profile.model_dump_json(indent=2))


def _plan_in(folder: Path) -> str:
    """The id of the plan that a trial's folder is for; empty where none can be read."""
    try:
        return Plan.model_validate_json((folder / PLAN).read_text(encoding="utf-8")).id
    except (OSError, ValidationError):
        return ""


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the whole new one, never a part."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
