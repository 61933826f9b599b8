"""What is exported works where nobody has heard of Kernelwright, and its test can fail."""

import subprocess
import sys
from pathlib import Path

import pytest

from tools.candidate import Candidate
from tools.export import export, stand_alone
from tools.verdict import Comparison, Correct, Timing

REFERENCE = '''"""Scale and shift."""
import torch

class Model(torch.nn.Module):
    def __init__(self, features, by=3.0):
        super().__init__()
        self.shift = torch.nn.Parameter(torch.randn(features))
        self.by = by

    def forward(self, x):
        return x * self.by + self.shift

def get_inputs():
    return [torch.randn(9, 5)]

def get_init_inputs():
    return [5]
'''
KERNEL = '''"""One pass over rows."""

from __future__ import annotations

import torch

from tools.backends.cpp.loader import cpp_kernel as compiled

FLAGS = ("-O2",)
SOURCE = r"""
#include <cstdint>
extern "C" void run(const float* x, const float* s, float* y, int64_t n, int64_t f, double by) {
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < f; j++) y[i * f + j] = x[i * f + j] * (float)by + s[j];
}
"""
run = compiled(SOURCE, "run", "pppiid", FLAGS)


class ModelNew(torch.nn.Module):
    def __init__(self, features, by=3.0):
        super().__init__()
        self.shift = torch.nn.Parameter(torch.zeros(features))
        self.by = by

    def forward(self, x):
        y = torch.empty_like(x)
        run(x, self.shift, y, x.shape[0], x.shape[1], self.by)
        return y
'''
TIMING = Timing(
    candidate_ms=0.5,
    comparisons=(
        Comparison(
            baseline="eager", baseline_ms=1.0, candidate_ms=0.5, speedup=2.0, low=1.9, high=2.1,
            blocks=20,
        ),
    ),
    noise=0.01, page_faults=0, checked_outputs=4, confirmed=True,
)  # fmt: skip
FOREIGN = """
import runpy, sys
try:
    runpy.run_path(sys.argv[1], run_name="__main__")
finally:
    ours = {name.split(".")[0] for name in sys.modules} & {"tools", "knowledge", "agents", "graph"}
    assert not ours, ours
"""


def exported(folder: Path, kernel: str = KERNEL, reference: str = REFERENCE) -> Path:
    candidate = Candidate(source=kernel, backend="cpp", labels=("assumes: frozen weights",))
    return export(
        candidate, reference, Correct(timing=TIMING), folder / "best",
        subject="scale and shift", device="a small machine",
    )  # fmt: skip


def run_elsewhere(kernel: Path, elsewhere: Path) -> subprocess.CompletedProcess[str]:
    """Runs the exported test in an isolated interpreter, far from the project."""
    command = [sys.executable, "-I", "-c", FOREIGN, str(kernel.with_name("test_kernel.py"))]
    environment = {"PATH": "/usr/bin:/bin", "XDG_CACHE_HOME": str(elsewhere)}
    return subprocess.run(
        command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False
    )


def test_the_exported_kernel_passes_its_own_test_without_kernelwright(tmp_path: Path) -> None:
    done = run_elsewhere(exported(tmp_path), tmp_path)
    assert done.returncode == 0, done.stderr
    assert "agrees with the float64 reference" in done.stdout


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("* (float)by +", "* (float)by * 1.0001f +", "off by"),
        ("+ s[j]", "", "off by"),
        ("return y\n", "return y.double()\n", "dtype"),
        ("return y\n", "return y[:1]\n", "shape"),
        ("return y\n", "return y, y\n", "outputs"),
        ("return y\n", "return y * float('nan')\n", "off by inf"),
    ],
)
def test_the_exported_test_fails_a_wrong_kernel(
    tmp_path: Path, right: str, wrong: str, said: str
) -> None:
    assert right in KERNEL
    done = run_elsewhere(exported(tmp_path, KERNEL.replace(right, wrong)), tmp_path)
    assert done.returncode == 1
    assert said in done.stderr


def test_the_exported_test_runs_under_pytest(tmp_path: Path) -> None:
    kernel = exported(tmp_path, KERNEL.replace("+ s[j]", ""))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", kernel.parent]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "1 failed" in done.stdout


def test_the_header_quotes_the_verdict_and_the_labels(tmp_path: Path) -> None:
    text = exported(tmp_path).read_text(encoding="utf-8")
    for words in (
        "scale and shift on a small machine", "2.00x (95% interval 1.90 to 2.10) over eager",
        "confirmed in a fresh process", "assumes: frozen weights", "One pass over rows.",
    ):  # fmt: skip
        assert words in text
    assert "tools.backends" not in text


def test_an_untimed_kernel_claims_no_speed(tmp_path: Path) -> None:
    candidate = Candidate(source="import torch\n", backend="torch")
    text = export(candidate, REFERENCE, Correct(), tmp_path).read_text(encoding="utf-8")
    assert "was not measured" in text
    assert "x (95%" not in text


def test_a_kernel_without_cpp_is_left_as_it_is() -> None:
    assert stand_alone("import torch\nX = 1\n", "Head.") == '"""Head.\n"""\n\nimport torch\nX = 1\n'


def test_quotes_and_backslashes_in_the_words_do_not_break_the_file() -> None:
    text = stand_alone('"""Says \\\\n and more."""\nX = 1\n', 'A """quoted""" head \\ ends.')
    namespace: dict[str, object] = {}
    exec(compile(text, "kernel.py", "exec"), namespace)  # noqa: S102 - the text under test
    assert namespace["X"] == 1
    assert "quoted" in str(namespace["__doc__"])
