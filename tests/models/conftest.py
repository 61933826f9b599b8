"""Runs of the command, in a process of its own, against a server that plays a script."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.models.minds import Able
from tests.models.script import Script
from tests.models.server import MODELS, ModelServer, serving

ROOT = Path(__file__).parents[2]
# Looks like nothing else that a run could write.
KEY = "sk-planted-7f3a9c51d2e84b06"
# A run waits where others measure, so this only ends what hangs.
PATIENCE_S = 900.0
# Small trials, prompt retries, and no playbook before the model unless a test asks for it.
QUICK = (
    "budget.minutes=20", "budget.repairs=2", "crew=model", "width=1",
    "model_settings.timeout_s=20", "model_settings.retries=2",
)  # fmt: skip


@dataclass(frozen=True)
class Finished:
    """A command that ended."""

    code: int
    out: str
    err: str
    folder: Path

    @property
    def report(self) -> dict[str, Any]:
        """What the run says of itself."""
        document: dict[str, Any] = json.loads((self.folder / "report.json").read_text())
        return document

    @property
    def kinds(self) -> list[str]:
        """The verdicts on what the model wrote, in order; not on the baseline kept at the end."""
        return [
            trial["verdict"]["kind"]
            for trial in self.report["trials"]
            if trial["plan"] != "baseline"
        ]

    @property
    def notes(self) -> str:
        """Everything that the run's own files say in words: events, exchanges, planning."""
        texts = sorted(self.folder.rglob("*.jsonl"))
        return "\n".join(path.read_text(encoding="utf-8") for path in texts)

    def messages(self, trial: int) -> list[dict[str, Any]]:
        """The exchanges that a trial came from."""
        lines = (self.folder / "trials" / str(trial) / "messages.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def files_with(self, secret: str) -> list[Path]:
        """The files of the run that hold these bytes anywhere."""
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        return [path for path in files if secret.encode() in path.read_bytes()]


@dataclass(frozen=True)
class Command:
    """`python -m graph.run`, with a library that is shared and runs that are not."""

    library: Path
    folder: Path

    def run(
        self, task: Path, server: ModelServer, *overrides: str, provider: str = "openai"
    ) -> Finished:
        """Start a run and wait for its end."""
        where = {"openai": f"{server.address}/v1", "anthropic": server.address}[provider]
        settings = (*QUICK, f"model={provider}:{MODELS[0]}", f"base_url={where}", *overrides)
        sets = [part for setting in settings for part in ("--set", setting)]
        out = self.folder / f"{len(list(self.folder.iterdir())):02d}"
        return self._ended(out, str(task), *sets, "--out", str(out))

    def resume(self, run: Finished) -> Finished:
        """Go on with a run."""
        return self._ended(run.folder.parent, "--resume", str(run.folder))

    def _ended(self, out: Path, *arguments: str) -> Finished:
        keys = dict.fromkeys(("OPENAI_API_KEY", "ANTHROPIC_API_KEY"), KEY)
        done = subprocess.run(
            [sys.executable, "-m", "graph.run", *arguments, "--quiet"],
            cwd=ROOT,
            env={**os.environ, "KERNELWRIGHT_LIBRARY": str(self.library), **keys},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        folders = list(out.iterdir()) if out.is_dir() else []
        assert len(folders) == 1, f"the run made {len(folders)} folders:\n{done.stderr}"
        return Finished(done.returncode, done.stdout, done.stderr, folders[0])


@pytest.fixture(scope="package")
def command(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The command; all runs share one library, since filling it takes seconds."""
    return Command(tmp_path_factory.mktemp("library"), tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="package")
def tiny_task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example of scale, GELU and sum on a thousandth of its rows' work."""
    folder = tmp_path_factory.mktemp("tiny")
    reference = (ROOT / "examples" / "scale_gelu_sum.py").read_text(encoding="utf-8")
    small = reference.replace("ROWS, COLUMNS = 4096, 4096", "ROWS, COLUMNS = 256, 512")
    assert small != reference
    (folder / "tiny.py").write_text(small, encoding="utf-8")
    task = folder / "tiny.yaml"
    task.write_text("name: tiny\nreference: tiny.py\nbudget: {trials: 3}\n", encoding="utf-8")
    return task


Play = Callable[[Script], ModelServer]


@pytest.fixture(scope="module")
def play() -> Iterator[Play]:
    """One server for a whole module, which changes its script."""
    with serving(Able(), KEY) as server:

        def changed(script: Script) -> ModelServer:
            server.script = script
            server.questions.clear()
            server.answers.clear()
            return server

        yield changed
