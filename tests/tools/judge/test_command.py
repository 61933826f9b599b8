"""`python -m tools.judge`: exit codes, one line for a mistake, one document for `--json`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

REFERENCES = Path(__file__).parents[2] / "references"
HONEST = Path(__file__).parents[2] / "honest" / "kernels"
EVIL = Path(__file__).parents[2] / "evil" / "kernels"


def judge(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools.judge", *map(str, arguments)]
    root = Path(__file__).parents[3]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, cwd=root
    )


def test_a_right_kernel_is_accepted_and_the_jail_is_named():
    done = judge(REFERENCES / "rows.py", HONEST / "rewritten_in_torch.py", "--no-time")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("correct")
    assert "jail: " in done.stdout


def test_a_wrong_kernel_is_rejected_as_one_json_document():
    done = judge(REFERENCES / "rows.py", EVIL / "low_precision.py", "--no-time", "--json")
    assert done.returncode == 1, done.stderr
    document = json.loads(done.stdout)
    assert document["accepted"] is False
    assert document["verdict"]["kind"] == "wrong_output"


@pytest.mark.slow
def test_a_timed_kernel_is_compared_with_eager_and_torch_compile():
    done = judge(REFERENCES / "softmax.py", HONEST / "workspace_kept.py", "--json")
    assert done.returncode == 0, done.stderr
    timing = json.loads(done.stdout)["verdict"]["timing"]
    assert {row["baseline"] for row in timing["comparisons"]} == {"eager", "compile"}


@pytest.mark.parametrize(
    ("reference", "candidate", "told"),
    [
        ("missing.py", "right.py", "does not exist"),
        ("rows.py", "missing.py", "cannot be read"),
        ("rows.py", "syntax.py", "is not Python"),
        ("rows.py", "rows.py", "no class ModelNew"),
        ("right.py", "right.py", "no class Model"),
        ("raises.py", "right.py", "on line 1: ZeroDivisionError"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(reference, candidate, told, tmp_path):
    (tmp_path / "rows.py").write_text((REFERENCES / "rows.py").read_text())
    (tmp_path / "right.py").write_text((HONEST / "rewritten_in_torch.py").read_text())
    (tmp_path / "syntax.py").write_text("class ModelNew(:\n")
    (tmp_path / "raises.py").write_text("1 / 0\n")
    done = judge(tmp_path / reference, tmp_path / candidate, "--no-time")
    assert done.returncode == 2
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


TWO = """\
op: torch.softmax(x, -1)
workloads:
  - inputs: {x: {shape: [48, 64]}}
  - {name: wide, inputs: {x: {shape: [7, 1000]}}}
target: cpu
"""
ONE_WIDTH = """\
import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return torch.softmax(x, -1) if x.shape[-1] == 64 else torch.softmax(x, 0)
"""


def test_a_kernel_is_judged_on_every_workload_of_a_task(tmp_path):
    (tmp_path / "two.yaml").write_text(TWO)
    (tmp_path / "right.py").write_text(ONE_WIDTH.replace("(x, 0)", "(x, -1)"))
    (tmp_path / "wrong.py").write_text(ONE_WIDTH)
    done = judge(tmp_path / "two.yaml", tmp_path / "right.py", "--no-time", "--json")
    assert done.returncode == 0, done.stderr
    names = {
        case["name"].partition(": ")[0] for case in json.loads(done.stdout)["verdict"]["cases"]
    }
    assert names == {"48x64", "wide"}
    done = judge(tmp_path / "two.yaml", tmp_path / "wrong.py", "--no-time")
    assert done.returncode == 1
    assert "rejected on the workload wide" in done.stdout


OWN = """\
import torch


class Gated(torch.nn.Module):
    def __init__(self, features):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(features))

    def forward(self, x):
        return x * self.gain * torch.sigmoid(x)
"""
DERIVED = """\
import torch

from layers_of_my_own import Gated


class ModelNew(Gated):
    def __init__(self):
        super().__init__(features=32)

    def forward(self, x):
        return torch.nn.functional.silu(x) * self.gain
"""


def test_a_kernel_may_be_derived_from_a_class_of_the_users_own_package(tmp_path, monkeypatch):
    # A runner is another user: it reads what everybody may.
    tmp_path.chmod(0o755)
    (tmp_path / "layers_of_my_own.py").write_text(OWN)
    (tmp_path / "kernel.py").write_text(DERIVED)
    task = "module: layers_of_my_own:Gated\narguments: {features: 32}\n"
    (tmp_path / "gated.yaml").write_text(f"{task}inputs: [{{shape: [48, 32]}}]\ntarget: cpu\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = judge(tmp_path / "gated.yaml", tmp_path / "kernel.py", "--no-time")
    assert done.returncode == 0, done.stdout + done.stderr
