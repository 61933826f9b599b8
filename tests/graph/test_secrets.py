"""No key of the user's reaches a candidate, a reference, or any file of a run."""

from pathlib import Path

import pytest

from graph.drive import work
from graph.folder import RunFolder
from graph.state import RunInput
from graph.workbench import Workbenches
from tests.graph.conftest import HEADER, LIMITS, RIGHT
from tests.graph.speaking import speaking_crew
from tools.secrets import is_secret, redact, without_secrets
from tools.task import Budget, Task

KEY = "sk-planted-4f1d77c0a9"
VARIABLES = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "LANGSMITH_API_KEY", "HF_TOKEN")
# It prints all that it sees of the environment, into the judge's log.
REFERENCE = """import os
import torch


class Model(torch.nn.Module):
    def forward(self, x):
        print(dict(os.environ))
        return torch.relu(x)


def get_inputs():
    return [torch.randn(64, 64)]


def get_init_inputs():
    return []
"""
TELLING = HEADER + "import os; raise RuntimeError(f'sees {sorted(os.environ.items())}')\n"
# Looks into the environment of every process that it can see.
PRYING = (
    HEADER
    + """import glob
        found = []
        for path in glob.glob("/proc/[0-9]*/environ"):
            try:
                with open(path, "rb") as file:
                    found += [path] * (b"sk-planted" in file.read())
            except OSError:
                pass
        raise RuntimeError(f"the key is in {len(found)} processes")
"""
)


@pytest.mark.parametrize(
    "name",
    [
        "OPENAI_API_KEY",
        "AWS_SECRET_ACCESS_KEY",
        "hf_token",
        "DB_PASSWORD",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "LANGSMITH_RUNS_ENDPOINTS",
        "OTEL_EXPORTER_OTLP_HEADERS",
    ],
)
def test_variables_that_hold_keys_are_known_by_their_names(name: str) -> None:
    assert is_secret(name)
    assert without_secrets({name: "x", "PATH": "/bin"}) == {"PATH": "/bin"}


@pytest.mark.parametrize(
    "name", ["PATH", "KEYBOARD", "MONKEY", "OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM"]
)
def test_other_variables_are_not(name: str) -> None:
    assert not is_secret(name)


def test_a_short_value_is_a_word_and_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "true")
    assert redact("it is true") == "it is true"


def test_a_planted_key_is_in_no_file_of_a_run_and_no_candidate_sees_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, KEY)
    monkeypatch.setenv("LANGSMITH_TRACING", "false")
    reference = tmp_path / "reference.py"
    reference.write_text(REFERENCE)
    task = Task(name="relu", reference=reference, width=3, budget=Budget(repairs=0))
    folder = RunFolder.create(tmp_path / "runs", task)
    crew = speaking_crew(tmp_path / "paid", (TELLING,), (PRYING,), (RIGHT,))
    benches = Workbenches(tmp_path / "library", crew, LIMITS)
    record = work(
        folder, task, RunInput(task=task, run_dir=str(folder.path)), quiet=True, benches=benches
    )
    kinds = sorted(trial.verdict.kind for trial in record.trials[:3])
    assert kinds == ["correct", "crashed", "crashed"]
    logs = [getattr(trial.verdict, "log", "") for trial in record.trials]
    assert any("sees" in log and "PATH" in log for log in logs)
    assert any("the key is in 0 processes" in log for log in logs)
    for path in folder.path.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path
