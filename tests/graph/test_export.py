"""A run's kernel as a package that installs and works by itself, or one line on what is wrong."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from graph.export import app
from graph.record import RunRecord
from tests.graph import builders
from tests.tools.shipping import KERNEL, REFERENCE, TIMING
from tools.candidate import Candidate
from tools.verdict import CaseResult, Correct

CASES = (
    CaseResult(name="another batch size", passed=True, worst=0.1, shapes=((1, 5),)),
    CaseResult(name="a batch of one more", passed=True, worst=0.1, shapes=((10, 5),)),
    CaseResult(name="at an odd address", passed=True, worst=0.1),
)
SPEC = builders.SPEC.model_copy(update={"shape": (9, 5), "strides": (5, 1)})


def record(**changes: Any) -> RunRecord:
    """A run whose winner scales and shifts."""
    usual = builders.a_win()
    assert usual.winner is not None
    verdict = Correct(timing=TIMING, cases=CASES)
    candidate = Candidate(source=KERNEL, backend="cpp", labels=("assumes: a test",))
    winner = usual.trial(usual.winner).model_copy(
        update={"candidate": candidate, "verdict": verdict}
    )
    graph = builders.graph().model_copy(update={"mutations": {}})
    facts = usual.facts.model_copy(
        update={"source": REFERENCE, "graph": graph, "inputs": (SPEC,), "outputs": (SPEC,)}
    )
    task = usual.task.model_copy(update={"name": "scale and shift"})
    return usual.model_copy(
        update={
            "facts": facts, "task": task, "confirmation": verdict,
            "trials": tuple(winner if t.number == winner.number else t for t in usual.trials),
            **changes,
        }
    )  # fmt: skip


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "report.json").write_text(record().model_dump_json(), encoding="utf-8")
    return folder


def export(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


USED = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from fast_scale import Model, ModelNew

model, new = Model(5), ModelNew(5)
new.load_state_dict(model.state_dict())
for rows in (1, 9, 10, 11):
    x = torch.randn(rows, 5)
    assert new.takes_kernel(x) == (rows < 11)
    torch.testing.assert_close(new(x), model(x))
ours = {name.split(".")[0] for name in sys.modules} & {"tools", "knowledge", "agents", "graph"}
assert not ours, ours
"""


def test_the_package_installs_and_works_by_itself(run_dir: Path, tmp_path: Path) -> None:
    done = export(run_dir, "--package", "fast-scale", "--out", tmp_path, "--json")
    assert done.exit_code == 0, done.output
    sources = tmp_path / "fast-scale"
    assert json.loads(done.stdout) == {"written": {"package": str(sources)}}
    target = tmp_path / "installed"
    command = [
        sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
        "--no-index", "--disable-pip-version-check", "--target", target, sources,
    ]  # fmt: skip
    subprocess.run(command, check=True)
    environment = {"PATH": "/usr/bin:/bin", "XDG_CACHE_HOME": str(tmp_path)}
    script = tmp_path / "used.py"
    script.write_text(USED, encoding="utf-8")
    subprocess.run(
        [sys.executable, "-I", script, target], cwd=tmp_path, env=environment, check=True
    )
    said = subprocess.run(
        [sys.executable, "-m", "fast_scale.test_kernel"], cwd=target, env=environment, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    assert "agrees with the float64 reference" in said.stdout


def test_the_packages_page_has_the_evidence(run_dir: Path, tmp_path: Path) -> None:
    assert export(run_dir, "--package", "fast-scale", "--out", tmp_path).exit_code == 0
    page = (tmp_path / "fast-scale" / "README.md").read_text(encoding="utf-8")
    for words in (
        "2.00x (95% interval 1.90 to 2.10) over eager", "Test CPU, 2 cores", "torch",
        "cpu: float32 [n, 5]; n from 1 to 10", "assumes: a test",
        "python -m fast_scale.test_kernel",
    ):  # fmt: skip
        assert words in page


def test_nothing_is_overwritten(run_dir: Path, tmp_path: Path) -> None:
    there = tmp_path / "fast-scale" / "mine.txt"
    there.parent.mkdir()
    there.write_text("mine", encoding="utf-8")
    done = export(run_dir, "--package", "fast-scale", "--out", tmp_path)
    assert done.exit_code == 2
    assert "is there already" in done.stderr
    assert [path.name for path in there.parent.iterdir()] == ["mine.txt"]
    assert not list(tmp_path.glob(".fast-scale*"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fast scale", "is no name of a package"), ("-fast", "is no name of a package"),
        ("../fast", "is no name of a package"), ("class", "imported as class, which is taken"),
        ("torch", "imported as torch, which is taken"), ("JSON", "imported as json"),
    ],
)  # fmt: skip
def test_a_name_that_pip_or_python_would_not_take_is_refused(
    run_dir: Path, tmp_path: Path, name: str, said: str
) -> None:
    done = export(run_dir, f"--package={name}", "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_what_is_no_run_gets_a_line(tmp_path: Path) -> None:
    done = export(tmp_path, "--package", "fast-scale")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "is not the folder of a finished run" in done.stderr
    (tmp_path / "report.json").write_text("{}", encoding="utf-8")
    done = export(tmp_path, "--package", "fast-scale")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "is no report of this version" in done.stderr


def test_a_run_without_a_kernel_has_nothing_to_hand_over(run_dir: Path) -> None:
    failed = record(winner=None, confirmation=None)
    (run_dir / "report.json").write_text(failed.model_dump_json(), encoding="utf-8")
    done = export(run_dir, "--package", "fast-scale")
    assert done.exit_code == 2
    assert "has no correct kernel to hand over" in done.stderr


def test_it_has_to_be_said_what_to_write(run_dir: Path) -> None:
    done = export(run_dir)
    assert done.exit_code == 2
    assert "--package NAME, --flashinfer, or both" in done.stderr


def test_the_flashinfer_set_is_written_beside_the_package(run_dir: Path, tmp_path: Path) -> None:
    done = export(run_dir, "--package", "fast-scale", "--flashinfer", "--out", tmp_path)
    assert done.exit_code == 0, done.stderr
    written = tmp_path / "scale_and_shift-flashinfer"
    (definition,) = written.glob("definitions/*/*.json")
    assert json.loads(definition.read_text(encoding="utf-8"))["axes"]["n"] == {"type": "var"}
