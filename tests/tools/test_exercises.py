"""The exported test holds a kernel to every workload that it was verified for, each by its name."""

import copy
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tools.shipping import shipment
from tools.candidate import Candidate
from tools.exercises import TEMPLATE, changes, exercise_text
from tools.export import Shipment, export
from tools.importing import import_file
from tools.package import write_package
from tools.signature import Signature, Slot

REFERENCE = '''"""Scale and shift."""
import torch

ROWS, FEATURES = 9, 5


class Model(torch.nn.Module):
    def __init__(self, features):
        super().__init__()
        self.shift = torch.nn.Parameter(torch.randn(features))

    def forward(self, x):
        return x * 3.0 + self.shift


def get_inputs():
    return [torch.randn(ROWS, FEATURES)]


def get_init_inputs():
    return [FEATURES]
'''
KERNEL = """
import torch


class ModelNew(torch.nn.Module):
    def __init__(self, features):
        super().__init__()
        self.shift = torch.nn.Parameter(torch.zeros(features))

    def forward(self, x):
        off = {wrong}.get(tuple(x.shape), 0.0)
        return torch.add(self.shift, x, alpha=3.0) + off
"""
LONG, WIDE = "ROWS=20, the long", "wide"
# `wide` constructs otherwise too.
SHAPES = {"small": (9, 5), LONG: (20, 5), WIDE: (9, 7)}


def on_three(wrong: str = "{}", **given: Any) -> Shipment:
    """A kernel for three workloads; `wrong` is what it is off by, by shape."""
    texts = {
        name: REFERENCE.replace("9, 5", f"{rows}, {features}")
        for name, (rows, features) in SHAPES.items()
    }
    signatures = tuple(
        Signature(
            device="cpu",
            inputs=(Slot(dtype="float32", sizes=shape),),
            outputs=(Slot(dtype="float32", sizes=shape),),
            aligned=False,
            built=int(name == WIDE),
        )
        for name, shape in SHAPES.items()
    )
    candidate = Candidate(source=KERNEL.replace("{wrong}", wrong), backend="torch")
    usual = {
        "candidate": candidate, "reference": REFERENCE, "workloads": texts,
        "signatures": signatures, "built": (WIDE,),
    }  # fmt: skip
    return shipment(**{**usual, **given})


def run(*command: object, cwd: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(path or "")}
    return subprocess.run(
        [sys.executable, *map(str, command)], cwd=cwd, env=environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip


def by_pytest(folder: Path, path: Path | None = None) -> dict[str, str]:
    """How each case ended, by its name in pytest's output."""
    done = run(
        "-m", "pytest", "-v", "-p", "no:cacheprovider", "--rootdir", folder, folder, cwd=folder,
        path=path,
    )  # fmt: skip
    return dict(re.findall(r"::(test_\w+\[.+\]) (\w+)", done.stdout))


def test_every_workload_is_a_case_of_its_own(tmp_path: Path) -> None:
    kernel = export(on_three(), tmp_path)
    found = by_pytest(tmp_path)
    names = [f"{test}[{name}]" for name in SHAPES for test in (
        "test_kernel_agrees_with_the_float64_reference",
        "test_gradients_are_those_of_the_reference",
    )]  # fmt: skip
    assert found == dict.fromkeys(names, "PASSED")
    done = run(kernel.with_name("test_kernel.py"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(
        f"kernel.py on {name} agrees with the float64 reference on 3 seeds, and its gradients are "
        "the reference's\n"
        for name in SHAPES
    )


@pytest.mark.parametrize("name", [LONG, WIDE])
def test_a_kernel_that_is_wrong_on_one_workload_fails_there_and_nowhere_else(
    tmp_path: Path, name: str
) -> None:
    kernel = export(on_three(f"{{{SHAPES[name]}: 1e-3}}"), tmp_path)
    failed = [case for case, ended in by_pytest(tmp_path).items() if ended == "FAILED"]
    assert failed == [f"test_kernel_agrees_with_the_float64_reference[{name}]"]
    done = run(kernel.with_name("test_kernel.py"), cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"kernel.py on {name} is wrong: off by 0.001")
    assert done.stderr.count("\n") == 1
    assert done.stdout.count("agrees with") == 2


def test_a_workload_that_the_drop_in_leaves_to_the_reference_proves_nothing(tmp_path: Path) -> None:
    what = on_three()
    kernel = export(what.model_copy(update={"signatures": what.signatures[:1]}), tmp_path)
    done = run(kernel.with_name("test_kernel.py"), cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"kernel.py on {LONG} is wrong: these inputs go to the reference")


def test_each_way_to_construct_has_its_calls_and_its_operator(tmp_path: Path) -> None:
    kernel = import_file(export(on_three(), tmp_path), "kernel_built_in_two_ways")
    narrow, wide, other = (kernel.ModelNew(features) for features in (5, 7, 6))
    assert narrow.takes_kernel(torch.randn(20, 5))
    assert not narrow.takes_kernel(torch.randn(9, 7))
    assert wide.takes_kernel(torch.randn(9, 7))
    assert not wide.takes_kernel(torch.randn(20, 5)[:, :1].expand(20, 7))
    assert not other.takes_kernel(torch.randn(9, 6))
    assert "cpu: float32 [9, 7]; constructed as on wide" in str(kernel.__doc__)
    names = [f"kernelwright.{kernel.OPERATOR['name']}{end}.default" for end in ("", "_1")]
    for model, size, name in zip((narrow, wide), (5, 7), names, strict=True):
        x = torch.randn(9, size)
        seen = torch.export.export(model, (x,)).graph.nodes
        assert name in [str(node.target) for node in seen]
        assert torch.equal(copy.deepcopy(model)(x), model(x))
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(x), x * 3.0 + model.shift)
    wide.features = 7
    assert not wide.takes_kernel(torch.randn(9, 7))


def test_a_kernel_alone_is_held_to_every_workload_too(tmp_path: Path) -> None:
    kernel = export(on_three("{(9, 7): 1.0}", in_place=True), tmp_path)
    done = run(kernel.with_name("test_kernel.py"), cwd=tmp_path)
    assert done.stdout.count("agrees with the float64 reference on 3 seeds\n") == 2
    assert done.stderr.startswith("kernel.py on wide is wrong: off by 1")


def test_a_reference_that_was_changed_since_is_not_mistaken_for_a_workloads(tmp_path: Path) -> None:
    kernel = export(on_three(), tmp_path)
    changed = REFERENCE.replace("\n\n\nclass", "\n# Ours.\n\n\nclass").replace("ROWS, F", "N, F")
    kernel.with_name("reference.py").write_text(changed.replace("(ROWS", "(N"), encoding="utf-8")
    done = run(kernel.with_name("test_kernel.py"), cwd=tmp_path)
    assert done.returncode == 1
    assert f"kernel.py on {LONG} is wrong: reference.py was changed, in line 4" in done.stderr


def test_the_packages_tests_show_every_workload(tmp_path: Path) -> None:
    folder = write_package(on_three(), "fast-scale", tmp_path, {}, "2026-01-01")
    found = by_pytest(folder / "tests", folder / "src")
    assert len(found) == 6
    assert set(found.values()) == {"PASSED"}


def test_of_one_workload_the_test_is_as_it_lies_in_the_project() -> None:
    assert exercise_text(REFERENCE, {}) == TEMPLATE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("", ""), ("a\nb\n", "a\nb\n"), ("a\nb\nc", "a\nx\nc"), ("a\nb\n", "b\n"),
        ("b\n", "a\n\nb\n"), ("a\n\n\nb", "\nb\n"), ("a\na\na\n", "a\nb\na\nb\n"), ("", "a\n"),
    ],
)  # fmt: skip
def test_the_changes_make_one_text_the_other(old: str, new: str) -> None:
    lines = old.split("\n")
    for first, given, others in reversed(changes(old, new)):
        place = slice(first - 1, first - 1 + len(given))
        assert tuple(lines[place]) == given
        lines[place] = others
    assert "\n".join(lines) == new


IN_PLACE = """import torch


class Model(torch.nn.Module):
    def forward(self, cache, x):
        cache.add_(x)
        return x * 2.0, {"more": x.to(torch.complex64)}


def get_inputs():
    return [torch.zeros(4, 6), torch.randn(4, 6)]
"""


@pytest.mark.parametrize(
    ("line", "said"),
    [("cache.add_(x)", ""), ("pass", "off by"), ("cache.add_(x); x.zero_()", "off by")],
)
def test_what_is_left_in_the_inputs_is_compared_too(tmp_path: Path, line: str, said: str) -> None:
    source = IN_PLACE.replace("Model(", "ModelNew(").replace(
        'cache.add_(x)\n        return x * 2.0, {"more": x.to(torch.complex64)}',
        f'made = x * 2.0, {{"more": x.to(torch.complex64)}}\n        {line}\n        return made',
    )
    what = shipment(
        candidate=Candidate(source=source, backend="torch"), reference=IN_PLACE, in_place=True
    )
    done = run(export(what, tmp_path).with_name("test_kernel.py"), cwd=tmp_path)
    assert done.returncode == bool(said), done.stderr
    assert said in done.stderr


BESIDE = """import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return x * 2.0, None


def get_inputs():
    return [torch.randn(4, 6)]
"""


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("x + x, None", ""),
        ("x + x, x", "None in other places"),
        ("None, x + x", "None in other places"),
        ("x + x,", "2 outputs, should be 3"),
    ],
)
def test_none_is_held_to_its_place(tmp_path: Path, made: str, said: str) -> None:
    source = BESIDE.replace("Model(", "ModelNew(").replace("x * 2.0, None", made)
    what = shipment(
        candidate=Candidate(source=source, backend="torch"), reference=BESIDE, signatures=()
    )
    done = run(export(what, tmp_path).with_name("test_kernel.py"), cwd=tmp_path)
    assert done.returncode == bool(said), done.stderr
    assert said in done.stderr
