from pathlib import Path

import pytest

from eval.candidates import sample_number
from eval.fleet.parcel import unwrap, unwrap_answer, wrap, wrap_answer
from eval.one import Arrangement, folder_of
from eval.problem import Labels, Problem
from eval.rows import Broken
from tools.task import load_task, parse_task

EXAMPLES = Path(__file__).parents[3] / "examples"
REST = {"judge": "j", "beside": 2, "lane": "lane:cpu", "memory": False}


def test_a_reference_brings_the_modules_beside_it_and_theirs(tmp_path: Path) -> None:
    home = tmp_path / "here"
    (home / "parts").mkdir(parents=True)
    (home / "op.py").write_text("import torch, scale\nfrom parts.deep import x\n")
    # A link, as they are where a checkout shares its helpers.
    (tmp_path / "shared.py").write_text("import more\n")
    (home / "scale.py").symlink_to(tmp_path / "shared.py")
    (home / "more.py").write_text("K = 3\n")
    (home / "parts" / "__init__.py").write_text("")
    (home / "parts" / "deep.py").write_text("x = 1\n")
    (home / "stranger.py").write_text("never = 'sent'\n")
    task = parse_task({"name": "op", "reference": "op.py", "budget": {"trials": 3}}, "t", home)
    problem = Problem(task, Labels(family="scan", level=2), 7)
    given = Arrangement(tmp_path / "out", memory_bytes=5, wall_s=9.0)

    there = tmp_path / "there"
    there.mkdir()
    order, found, arrangement = unwrap(wrap(problem, given, **REST), there)
    assert (order.judge, order.beside) == ("j", 2)
    assert found.labels == problem.labels
    assert found.number == 7
    assert arrangement == Arrangement(there / "out", memory_bytes=5, wall_s=9.0)
    assert found.task.reference == there / "reference" / "op.py"
    assert found.task.model_copy(update={"reference": task.reference}) == task
    sent = {str(p.relative_to(there / "reference")) for p in (there / "reference").rglob("*.py")}
    assert not (there / "reference" / "scale.py").is_symlink()
    assert sent == {"op.py", "scale.py", "more.py", "parts/__init__.py", "parts/deep.py"}


@pytest.mark.parametrize("named", ["op_sample_{}.py", "op/sample_{}/kernel.py"])
def test_other_peoples_kernels_go_along_each_with_its_own_text_and_number(
    tmp_path: Path, named: str
) -> None:
    (tmp_path / "op.py").write_text("class Model: pass\n")
    kernels = []
    for number in (3, 4):
        kernel = tmp_path / "kernels" / named.format(number)
        kernel.parent.mkdir(exist_ok=True, parents=True)
        kernel.write_text(f"N = {number}\n")
        kernels.append(kernel)
    task = parse_task({"name": "op", "reference": "op.py"}, "t", tmp_path)
    given = Arrangement(tmp_path / "out", candidates={"op": tuple(kernels)})
    there = tmp_path / "there"
    there.mkdir()
    _, _, arrangement = unwrap(wrap(Problem(task), given, **REST), there)
    assert arrangement.candidates is not None
    sent = arrangement.candidates["op"]
    assert [path.read_text() for path in sent] == ["N = 3\n", "N = 4\n"]
    assert [sample_number(path, 0) for path in sent] == [3, 4]


def test_a_definition_comes_with_its_tensors(tmp_path: Path) -> None:
    source = EXAMPLES / "add_rms_norm.json"
    tensors = tmp_path / "x.safetensors"
    tensors.write_bytes(b"tensors")
    task = load_task(source.with_suffix(".yaml"))
    first = task.workloads[0]
    name = next(iter(first.given), "x")
    given = {name: {"type": "safetensors", "path": str(tensors), "tensor_key": "x"}}
    changed = type(first).model_validate(first.model_dump() | {"given": given})
    task = task.model_copy(update={"workloads": (changed, *task.workloads[1:])})
    there = tmp_path / "there"
    there.mkdir()
    parcel = wrap(Problem(task), Arrangement(tmp_path / "out"), **REST)
    _, found, _ = unwrap(parcel, there)
    assert found.task.definition is not None
    assert found.task.definition.read_bytes() == source.read_bytes()
    moved = found.task.workloads[0].given[name]
    assert Path(moved.path).read_bytes() == b"tensors"
    assert Path(moved.path).is_relative_to(there)


def test_an_answer_is_the_row_and_its_files_with_paths_that_hold_here(tmp_path: Path) -> None:
    there = tmp_path / "there" / "problems" / "001-op"
    (there / "run").mkdir(parents=True)
    (there / "run" / "report.html").write_text("told")
    (there / "link").symlink_to("/etc/passwd")
    row = Broken(name="op", seconds=1.0, reason="crashed", error=f"see {there}/run")
    here = folder_of(Problem(parse_task({"name": "op", "op": "torch.sin", "inputs": [
        {"shape": [2]}]}, "t", tmp_path), number=1), tmp_path / "here")  # fmt: skip
    (here / "run" / "of-an-earlier-try").mkdir(parents=True)
    found = unwrap_answer(wrap_answer(row, there), here)
    assert not (here / "run" / "of-an-earlier-try").exists()
    assert isinstance(found, Broken)
    assert found.error == f"see {here}/run"
    assert (here / "run" / "report.html").read_text() == "told"
    assert not (here / "link").exists()
