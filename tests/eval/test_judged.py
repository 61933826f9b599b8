"""Other people's kernels through the real judge: one problem, several samples."""

import json
import math
from pathlib import Path

import pytest
from typer.testing import CliRunner

from eval.run import app

REFERENCE = """
import torch
from torch import nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, x):
        return torch.relu(x) * self.scale


def get_inputs():
    return [torch.randn(256, 512)]


def get_init_inputs():
    return []
"""
KERNEL = """
import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, x):
        {body}
"""
BODIES = {
    0: "return x.clamp(min=0).mul_(self.scale)",
    1: "return torch.relu(x)",
    2: "return torch.relu(torch.relu(torch.relu(x))) * self.scale",
}


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, object], str, Path]:
    """A suite of two problems, kernels for one of them and for none, and what came of it."""
    home = tmp_path_factory.mktemp("judged")
    (home / "level1").mkdir()
    for name in ("3_scaled relu", "4_other"):
        (home / "level1" / f"{name}.py").write_text(REFERENCE)
    kernels = home / "kernels"
    kernels.mkdir()
    for number, body in BODIES.items():
        name = f"level_1_problem_3_sample_{number}_kernel.py"
        (kernels / name).write_text(KERNEL.format(body=body))
    (kernels / "level_9_problem_9.py").write_text(KERNEL.format(body="return x"))
    out = home / "out"
    given = [str(home / "level1"), "--candidates", str(kernels), "--out", str(out), "--json"]
    result = CliRunner().invoke(app, [*given, "--set", "target=cpu", "--set", "autotune=true"])
    assert result.exit_code == 0, result.stderr
    document: dict[str, object] = json.loads(result.stdout)
    return document, result.stderr, out


def test_samples_are_judged_and_the_best_right_one_stands_for_the_problem(
    judged: tuple[dict[str, object], str, Path],
) -> None:
    document, _, _ = judged
    first, second = document["rows"]  # type: ignore[misc]
    assert first["document"]["status"] in ("faster", "correct")
    verdicts = [sample["verdict"] for sample in first["document"]["samples"]]
    assert verdicts == ["correct", "wrong_output", "correct"]
    assert first["verdicts"] == {"correct": 2, "wrong_output": 1}
    assert first["document"]["speedup"]["best_baseline"] > 0
    assert set(first["document"]["baselines"]) == {"eager", "compile", "max-autotune"}
    assert second["reason"] == "no_candidate"
    summary = document["summary"]
    assert summary["pass_at_1"] == pytest.approx(1 / 3)  # type: ignore[index]
    assert summary["correct"] == 0.5  # type: ignore[index]


def test_a_kernel_for_no_problem_is_said(judged: tuple[dict[str, object], str, Path]) -> None:
    document, told, out = judged
    assert "level_9_problem_9.py (fits no problem)" in told
    assert document["unmatched"][0]["file"] == "level_9_problem_9.py"  # type: ignore[index]
    assert (out / "results.html").is_file()
    assert len(list((out / "problems").glob("*/samples/*/verdict.json"))) == 3


def test_a_kernel_is_right_only_if_it_is_right_on_every_workload(tmp_path: Path) -> None:
    reference = REFERENCE.replace("def get_inputs", "ROWS = 64\n\n\ndef get_inputs")
    (tmp_path / "op.py").write_text(reference.replace("256, 512", "ROWS, 512"))
    (tmp_path / "suite.yaml").write_text(
        "- name: op\n  reference: op.py\n  target: cpu\n"
        "  workloads: [{name: short, ROWS: 64}, {name: long, ROWS: 4096}]\n"
    )
    kernels = tmp_path / "kernels"
    kernels.mkdir()
    bodies = ("return torch.relu(x) * self.scale * (x.shape[0] < 2000)", BODIES[2])
    for number, body in enumerate(bodies):
        (kernels / f"op_sample_{number}.py").write_text(KERNEL.format(body=body))
    given = [str(tmp_path / "suite.yaml"), "--candidates", str(kernels)]
    result = CliRunner().invoke(app, [*given, "--out", str(tmp_path / "out"), "--json"])
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)["rows"][0]["document"]
    wrong, right = document["samples"]
    assert wrong["verdict"] == "wrong_output"
    assert "rejected on the workload long" in wrong["labels"]
    assert right["verdict"] == "correct"
    assert [one["name"] for one in document["workloads"]] == ["short", "long"]
    mean = math.sqrt(math.prod(one["speedup"] for one in document["workloads"]))
    assert document["speedup"]["best_baseline"] == pytest.approx(mean)
    assert document["roofline_fraction"] > 0
