"""A run's folder: where its files lie, and how one is written whole or not at all."""

import os
import re
import secrets
from datetime import UTC, datetime
from pathlib import Path

import yaml

from knowledge.errors import BadInput
from tools.task import Task, parse_task
from tools.verdict import BuildFailed, Crashed, JudgeError, Trial


class RunFolder:
    """The files of one run, under `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, parent: Path, task: Task) -> "RunFolder":
        """A fresh folder for a run of `task`, holding `task.yaml`.

        Raises:
            BadInput: the folder cannot be made.
        """
        slug = re.sub(r"[^a-z0-9]+", "-", task.name.lower()).strip("-") or "task"
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        folder = cls(parent.resolve() / f"{stamp}-{slug}-{secrets.token_hex(2)}")
        folder.adopt(task)
        return folder

    def adopt(self, task: Task) -> None:
        """Make the folder if need be and write `task.yaml` into it.

        Raises:
            BadInput: the folder cannot be made.
        """
        try:
            self.trials.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(
                str(self.path), f"cannot be made ({error.strerror}).", "Give another --out."
            ) from error
        if not self.task_file.exists():
            text = yaml.safe_dump(
                task.model_dump(mode="json", exclude_defaults=True), sort_keys=False
            )
            write_whole(self.task_file, text)

    @classmethod
    def reopen(cls, path: Path) -> tuple["RunFolder", Task]:
        """The folder of an earlier run, and its task.

        Raises:
            BadInput: it is not a run's folder.
        """
        folder = cls(path.resolve())
        if not folder.task_file.is_file() or not folder.checkpoint.is_file():
            raise BadInput(
                f"--resume {path}",
                "is not the folder of a run.",
                "It should hold task.yaml and checkpoint.sqlite.",
            )
        raw = yaml.safe_load(folder.task_file.read_text(encoding="utf-8"))
        return folder, parse_task(raw, str(folder.task_file), folder.path)

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
    def trials(self) -> Path:
        """One folder a trial."""
        return self.path / "trials"

    @property
    def best(self) -> Path:
        """The exported winner."""
        return self.path / "best"

    @property
    def scratch(self) -> Path:
        """The judge's working space; it may be deleted when the run is over."""
        return self.path / "scratch"

    def claim_trial(self) -> int:
        """The next free trial number, taken for good: also across threads and restarts."""
        taken = [int(entry.name) for entry in self.trials.iterdir() if entry.name.isdigit()]
        number = max(taken, default=0) + 1
        while True:
            try:
                (self.trials / str(number)).mkdir()
            except FileExistsError:
                number += 1
            else:
                return number

    def write_trial(self, trial: Trial) -> None:
        """Source, verdict, log and profile of a judged trial, under its number."""
        folder = self.trials / str(trial.number)
        write_whole(folder / "kernel.py", trial.candidate.source)
        write_whole(folder / "verdict.json", trial.verdict.model_dump_json(indent=2))
        if isinstance(trial.verdict, BuildFailed | Crashed | JudgeError):
            write_whole(folder / "build.log", trial.verdict.log)
        if trial.profile is not None:
            write_whole(folder / "profile.json", trial.profile.model_dump_json(indent=2))


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the whole new one, never a part."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
