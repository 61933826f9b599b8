"""What is exported works where nobody has heard of Kernelwright, and its test can fail."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from knowledge.emit import emit_as_given
from knowledge.errors import BadInput
from tests.tools.shipping import KERNEL, REFERENCE, TIMING, shipment
from tools.candidate import Candidate
from tools.capture import take
from tools.export import export, is_as_given, kernel_text, stand_alone
from tools.package import write_package
from tools.verdict import CaseResult, Compiled, Correct

FOREIGN = """
import runpy, sys
try:
    runpy.run_path(sys.argv[1], run_name="__main__")
finally:
    ours = {name.split(".")[0] for name in sys.modules} & {"tools", "knowledge", "agents", "graph"}
    assert not ours, ours
"""


def exported(folder: Path, kernel: str = KERNEL, **changes: Any) -> Path:
    candidate = Candidate(source=kernel, backend="cpp", labels=("assumes: frozen weights",))
    return export(shipment(**{"candidate": candidate, **changes}), folder / "best")


def run_elsewhere(kernel: Path, elsewhere: Path) -> subprocess.CompletedProcess[str]:
    """Runs the exported test in an isolated interpreter, far from the project."""
    return run_foreign(elsewhere, str(kernel.with_name("test_kernel.py")))


def run_foreign(
    elsewhere: Path, script: str, path: str = "/usr/bin:/bin"
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-c", FOREIGN, script]
    environment = {"PATH": path, "XDG_CACHE_HOME": str(elsewhere)}
    return subprocess.run(
        command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False
    )


def test_the_exported_kernel_passes_its_own_test_without_kernelwright(tmp_path: Path) -> None:
    done = run_elsewhere(exported(tmp_path), tmp_path)
    assert done.returncode == 0, done.stderr
    assert "agrees with the float64 reference" in done.stdout
    assert "its gradients are the reference's" in done.stdout


USED = """
import sys
sys.path.insert(0, {folder!r})
import torch
from kernel import ModelNew, OPERATOR

operator = getattr(torch.ops.kernelwright, OPERATOR["name"])
model = ModelNew(5)
x = torch.randn(9, 5)
assert model.takes_kernel(x)
assert torch.equal(operator([x], [model.shift]), model(x))
made = torch.compile(model, fullgraph=True, backend="aot_eager")(x)
torch.testing.assert_close(made, x * 3 + model.shift)
made.sum().backward()
assert torch.equal(model.shift.grad, torch.full((5,), 9.0))
"""


def test_the_kernel_file_alone_is_compiled_and_trained_without_kernelwright(
    tmp_path: Path,
) -> None:
    kernel = exported(tmp_path)
    for name in ("reference.py", "test_kernel.py"):
        kernel.with_name(name).unlink()
    script = tmp_path / "used.py"
    script.write_text(USED.format(folder=str(kernel.parent)), encoding="utf-8")
    done = run_foreign(tmp_path, str(script))
    assert done.returncode == 0, done.stderr


def test_without_a_compiler_the_test_says_so_in_a_line(tmp_path: Path) -> None:
    kernel = exported(tmp_path)
    done = run_foreign(tmp_path, str(kernel.with_name("test_kernel.py")), path="/nowhere")
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "kernel.py can't be built here: No C++ compiler was found. Install g++, or set CXX to the "
        "path of one."
    )


def test_a_call_that_the_kernel_does_not_take_proves_nothing(tmp_path: Path) -> None:
    kernel = exported(tmp_path)
    reference = kernel.with_name("reference.py")
    text = reference.read_text(encoding="utf-8").replace("randn(9, 5)", "randn(90, 5)")
    reference.write_text(text, encoding="utf-8")
    done = run_elsewhere(kernel, tmp_path)
    assert done.returncode == 1
    assert "go to the reference, not to the kernel" in done.stderr


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
    assert "1 failed, 1 passed" in done.stdout


def test_the_header_quotes_the_verdict_and_the_labels(tmp_path: Path) -> None:
    text = exported(tmp_path).read_text(encoding="utf-8")
    for words in (
        "scale and shift on a small machine", "2.00x (95% interval 1.90 to 2.10) over eager",
        "confirmed in a fresh process", "assumes: frozen weights", "One pass over rows.",
    ):  # fmt: skip
        assert words in text
    assert "tools.backends" not in text


def test_the_header_has_a_line_for_each_of_several_workloads(tmp_path: Path) -> None:
    gains = ("small: 9x5 float32: 1.20x over eager", "large: 900x5 float32: 2.00x over eager")
    text = exported(tmp_path, gains=gains).read_text(encoding="utf-8")
    assert "Verified on, the figures above being geometric means:\n" in text
    assert all(f"  {line}\n" in text for line in gains)


@pytest.mark.parametrize("case", ["in doubt", "as given", "compiled"])
def test_only_what_was_shown_to_be_faster_is_called_so(case: str, tmp_path: Path) -> None:
    row = TIMING.comparisons[0].model_copy(update={"low": 0.95})
    changes: dict[str, Any] = {
        "in doubt": {"verdict": Correct(timing=TIMING.model_copy(update={"comparisons": (row,)}))},
        "as given": {
            "candidate": Candidate(source=REFERENCE.replace("Model", "ModelNew"), backend="torch")
        },
        "compiled": {"verdict": Compiled(kernels=(), device="h200-sxm", logic="not checked")},
    }[case]
    assert "A faster" not in exported(tmp_path, **changes).read_text(encoding="utf-8")
    assert "A faster" in exported(tmp_path / "usual").read_text(encoding="utf-8")


def test_an_untimed_kernel_claims_no_speed(tmp_path: Path) -> None:
    text = exported(tmp_path, verdict=Correct()).read_text(encoding="utf-8")
    assert "was not measured" in text
    assert "x (95%" not in text


def test_the_table_can_be_read_in_the_file(tmp_path: Path) -> None:
    text = exported(tmp_path).read_text(encoding="utf-8")
    assert "    cpu: float32 [n, 5]; n from 1 to 10\n" in text
    for words in (
        '"inputs": (("float32", ("n", 5)),),', '"sizes": {"n": (1, 10)},', '"device": "cpu",',
    ):  # fmt: skip
        assert words in text


ALONE: dict[str, tuple[dict[str, Any], str]] = {
    "compiled": (
        {"verdict": Compiled(device="NVIDIA H100", logic="not run")}, "Nothing was verified",
    ),
    "other weights": (
        {"verdict": Correct(cases=(CaseResult(name="rebuilt weights", passed=True, worst=0.1),))},
        "other names than the reference's",
    ),
    "no tensors": ({"signatures": ()}, "Its inputs are not tensors alone"),
    "in place": ({"in_place": True}, "changes its own inputs"),
    "as given": (
        {"candidate": Candidate(source=emit_as_given(REFERENCE), backend="torch")},
        "the op as it was given",
    ),
    "compiled as given": (
        {"candidate": Candidate(source=emit_as_given(REFERENCE, compiled=True), backend="torch")},
        "the op as it was given",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ALONE)
def test_where_the_reference_can_not_stand_in_the_kernel_is_alone_and_says_why(case: str) -> None:
    changes, why = ALONE[case]
    what = shipment(**changes)
    assert why in what.why_alone


@pytest.mark.parametrize(("backend", "told"), [("triton", True), ("cpp", False)])
def test_a_kernel_alone_in_triton_says_where_it_has_to_be_called(
    backend: Literal["triton", "cpp"], told: bool
) -> None:
    candidate = Candidate(source="class ModelNew:\n    pass\n", backend=backend)
    text = kernel_text(shipment(candidate=candidate, signatures=()))
    assert ("`with torch.cuda.device_of(x)`" in text) == told


def test_a_kernel_alone_still_passes_its_test(tmp_path: Path) -> None:
    kernel = exported(tmp_path, signatures=())
    assert "ship(" not in kernel.read_text(encoding="utf-8")
    done = run_elsewhere(kernel, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "gradients" not in done.stdout


def test_another_way_to_write_the_op_is_not_the_op_as_given() -> None:
    assert not is_as_given(KERNEL, REFERENCE)


@pytest.mark.parametrize(
    ("added", "same"),
    [
        ("", True),
        ("def unused(x):\n    return x\n", True),
        ("def fused(x):\n    return x * 2 if x.shape[0] == 256 else x\n", False),
        ("def sum(x):\n    return 0\n", False),
        ("torch.relu = torch.abs\n", False),
    ],
)
def test_the_op_as_given_has_the_same_helpers_too(added: str, same: bool) -> None:
    model = (
        "class Model(torch.nn.Module):\n    def forward(self, x):\n        return sum([fused(x)])\n"
    )
    reference = f"import torch\n\ndef fused(x):\n    return x * 2\n\n{model}"
    source = reference.replace("class Model", "class ModelNew") + added
    assert is_as_given(source, reference) is same


def test_the_operators_name_is_one_of_its_texts() -> None:
    names = {
        shipment(**changes).operator
        for changes in ({}, {"subject": "Softmax (3)!"}, {"reference": REFERENCE + "\n"},
                        {"signatures": shipment().signatures[1:]})
    }  # fmt: skip
    assert len(names) == 4
    assert all(name.isidentifier() for name in names)


def test_a_kernel_without_cpp_is_left_as_it_is() -> None:
    assert stand_alone("import torch\nX = 1\n", "Head.") == '"""Head.\n"""\n\nimport torch\nX = 1\n'


def test_quotes_and_backslashes_in_the_words_do_not_break_the_file() -> None:
    text = stand_alone('"""Says \\\\n and more."""\nX = 1\n', 'A """quoted""" head \\ ends.')
    namespace: dict[str, object] = {}
    exec(compile(text, "kernel.py", "exec"), namespace)  # noqa: S102 - the text under test
    assert namespace["X"] == 1
    assert "quoted" in str(namespace["__doc__"])


def test_a_package_brings_the_tensors_of_a_live_op_that_no_state_dict_has(tmp_path: Path) -> None:
    w, x = torch.randn(4, 4), torch.randn(2, 4)
    take(lambda x: x @ w, x, tmp_path / "taken")
    reference = (tmp_path / "taken" / "reference.py").read_text(encoding="utf-8")
    assert "STATE = " in reference
    kernel = reference.replace("class Model(", "class ModelNew(")
    given = shipment(
        reference=reference, candidate=Candidate(source=kernel, backend="torch"), signatures=()
    )
    package = write_package(given, "fast-product", tmp_path, {}, "today")
    assert given.candidate.digest in (package / "README.md").read_text(encoding="utf-8")
    shutil.rmtree(tmp_path / "taken")
    torch.save((x, x @ w), tmp_path / "expected.pt")
    script = (
        "import sys, torch; sys.path.insert(0, sys.argv[1])\n"
        "from fast_product import Model, ModelNew\n"
        "x, y = torch.load(sys.argv[2])\n"
        "torch.testing.assert_close(ModelNew()(x), y)\n"
        "torch.testing.assert_close(Model()(x), y)\n"
    )
    run = [sys.executable, "-I", "-c", script, package / "src", tmp_path / "expected.pt"]
    subprocess.run(run, check=True, cwd=tmp_path)
    with pytest.raises(BadInput, match="is gone"):
        write_package(given, "another", tmp_path, {}, "today")


def test_a_constant_of_that_name_is_the_ops_own(tmp_path: Path) -> None:
    given = shipment(reference=f"STATE = 64\n{REFERENCE}")
    package = write_package(given, "a-state-space", tmp_path, {}, "today")
    assert "STATE = 64" in (package / "src/a_state_space/reference.py").read_text(encoding="utf-8")
    assert "safetensors" not in (package / "pyproject.toml").read_text(encoding="utf-8")
    assert "read from STATE" not in exported(tmp_path, reference=given.reference).read_text()
