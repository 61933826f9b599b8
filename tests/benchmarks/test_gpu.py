"""The GPU benchmark, as far as it needs none: parts, going on, what is prepared and told."""

import ast
import subprocess
import sys

import pytest
import torch

from benchmarks import gpu, gpu_prepare, gpu_results
from benchmarks.gpu_results import Ceilings, Results, Row, SuiteRun
from benchmarks.gpu_steps import better, driver_version, page_of, probe
from eval.suite import open_suite
from knowledge.device import load_devices
from tools.verdict import Comparison, DeviceReading, Timing

H200 = load_devices()["h200-sxm"]
FEW = ("scale_shift_gelu", "softmax_long_rows", "square_product")


def timed(name, family, milliseconds, moved_bytes, low=1.9):
    row = Comparison(
        baseline="eager", baseline_ms=2 * milliseconds, candidate_ms=milliseconds, speedup=2.0,
        low=low, high=2.1, blocks=20,
    )  # fmt: skip
    reading = DeviceReading(
        sm_mhz=1400, memory_mhz=3201, celsius=80, watts=700, throttled=("software power cap",)
    )
    timing = Timing(
        candidate_ms=milliseconds, comparisons=(row,), noise=0.01, page_faults=0,
        checked_outputs=8, device_ms=0.9 * milliseconds, readings=(reading,),
    )  # fmt: skip
    return Row(
        name=name, family=family, moved_bytes=moved_bytes, flops=0, outcome="correct", timing=timing
    )


RESULTS = Results(
    device="NVIDIA H200", driver="580.1", versions={"torch": "2.11"}, started="2026-11-28",
    ceilings=Ceilings(copy_gbps=4000, sum_gbps=4200, fp32_gflops=5e4, tf32_gflops=4e5,
                      bf16_gflops=8e5),
    tests=(SuiteRun(file="tests/evil/test_gpu.py", status=1, summary="1 failed", seconds=3),),
    rows=(
        timed("softmax_long_rows", "softmax", 0.25, 950_000_000),
        timed("row_energy", "reduction", 0.25, 700_000_000),
        timed("square_product", "matmul", 2.0, 200_000_000),
        Row(name="running_sum", family="scan", moved_bytes=1, flops=1, outcome="wrong_output"),
    ),
)  # fmt: skip


def test_the_parts_of_a_run_are_all_of_it_and_nothing_twice():
    steps = [str(number) for number in range(43)]
    parts = [gpu.part_of(steps, f"{number}/4") for number in (1, 2, 3, 4)]
    assert sorted((step for part in parts for step in part), key=int) == steps
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("part", ["0/3", "4/3", "1", "a/b", "1/"])
def test_what_is_no_part_is_refused_in_one_line(part):
    with pytest.raises(gpu.CannotStart, match="is not a part"):
        gpu.part_of(["a"], part)


def test_steps_that_were_taken_are_not_taken_again():
    taken = []

    def work(step):
        taken.append(step)
        return step != "c"

    assert gpu.take(["a", "b", "c"], {"b"}, 1000, work) == ["c"]
    assert taken == ["a", "c"]


def test_nothing_is_begun_that_could_not_be_finished_in_time():
    moments = iter([0.0, 10.0, 300.0, 430.0])
    taken = []

    def work(step):
        taken.append(step)
        return True

    steps = ["a", "test:b", "c", "d"]
    assert gpu.take(steps, set(), 540, work, lambda: next(moments)) == ["test:b", "d"]
    # Tests take longer than a problem, which is begun in their place.
    assert taken == ["a", "c"]


def test_tests_that_cannot_be_run_are_no_result(tmp_path):
    (tmp_path / "test_broken.py").write_text("import nothing_of_this_name\n")
    with pytest.raises(gpu.CannotStart, match="can't be run"):
        gpu.run_tests(str(tmp_path / "test_broken.py"), gpu_results)


def test_without_a_gpu_the_command_ends_with_one_line_and_2():
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "run", "--part", "1/3"],
        capture_output=True, text=True, cwd=gpu.PROJECT,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert "no CUDA device" in done.stderr


def test_the_probe_finds_an_honest_kernel_right():
    verdict = probe("cpu")
    assert verdict.kind == "correct", verdict


def test_a_gpu_that_no_runner_can_use_is_one_line_with_the_judges_words():
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(gpu.CannotStart, match=r"no runner can use the GPU.*no CUDA device"):
        gpu.find_jail(("rlimits",))


def test_the_playbook_and_the_judge_need_no_more_than_what_is_carried():
    program = (
        "import sys\n"
        "import benchmarks.gpu_steps, benchmarks.gpu_results, tools.judge.service\n"
        "import tools.judge.session, tools.runner.zygote\n"
        "roots = {name.split('.')[0] for name, module in sys.modules.items()\n"
        "         if 'site-packages' in str(getattr(module, '__file__', ''))}\n"
        "print(' '.join(sorted(roots)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=gpu.PROJECT, check=True
    )
    found = {name for name in done.stdout.split() if not name.startswith("_")}
    carried = {gpu.MODULES.get(name, name.replace("-", "_")) for name in (*gpu.SMALL, *gpu.LARGE)}
    # torch brings what it needs itself; cuda-python is of use where it is there.
    theirs = {"torch", "torchgen", "triton", "cuda", "tqdm", "sympy", "mpmath", "networkx"}
    assert found <= carried | theirs | {
        "setuptools",
        "packaging",
        "jinja2",
        "markupsafe",
        "filelock",
    }


def test_a_runner_imports_nothing_that_is_carried():
    # Its jail knows the project and what belongs to its Python, and no other folder.
    program = (
        "import sys, tools.runner.zygote, tools.backends.cpp.loader\n"
        "print([name for name in ('pydantic', 'psutil', 'yaml', 'scipy') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=gpu.PROJECT, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_suite_has_forty_problems_across_families_in_the_convention():
    entries = gpu_prepare.entries()
    assert len({entry["name"] for entry in entries}) == len(entries) >= 30
    assert len({entry["family"] for entry in entries}) >= 8
    for problem in open_suite(gpu_prepare.SUITE).problems:
        tree = ast.parse(problem.task.reference.read_text())
        names = {
            node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)
        }
        assert {"Model", "get_inputs", "get_init_inputs"} <= names


@pytest.fixture(scope="module")
def preparation():
    return gpu_prepare.prepare(H200, FEW)


def test_candidates_are_written_without_a_gpu_and_without_the_memory_of_the_problem(preparation):
    pointwise, softmax, product = preparation.problems
    assert pointwise.moved_bytes == 2 * 4 * 16384 * 4096
    assert softmax.candidates[0].backend == "triton"
    assert product.flops == 2 * 4096**3
    for problem in preparation.problems:
        assert not problem.failed
        for one in problem.candidates:
            assert "class ModelNew" in one.source


def test_a_problem_that_breaks_the_planner_has_failed_and_the_others_have_not(monkeypatch):
    sound = gpu_prepare.prepare_one

    def breaking(entry, *given):
        if entry["name"] == FEW[0]:
            raise KeyError("position")
        return sound(entry, *given)

    monkeypatch.setattr(gpu_prepare, "prepare_one", breaking)
    broken, right = gpu_prepare.prepare(H200, FEW[:2]).problems
    assert broken.failed == "KeyError: 'position'"
    assert not broken.candidates
    assert right.candidates


def test_the_place_of_an_extreme_has_a_kernel_of_its_own():
    (problem,) = gpu_prepare.prepare(H200, ("vocabulary_choice",)).problems
    assert problem.candidates[0].backend == "triton"


def test_what_was_prepared_is_read_again_until_something_changes(preparation, tmp_path):
    path = tmp_path / "deep" / "prepared.json"
    gpu_prepare.write(preparation, path)
    assert gpu_prepare.read(path) == preparation
    path.write_text(path.read_text().replace(preparation.stamp, "another"))
    assert gpu_prepare.read(path) is None


def test_results_go_on_where_they_stopped(tmp_path):
    path = gpu_results.default_path(tmp_path, "NVIDIA H200")
    assert path.name.startswith("nvidia-h200-20")
    assert gpu_results.read(path) is None
    gpu_results.write(RESULTS, path)
    again = gpu_results.read(path)
    assert again == RESULTS
    assert again.done() == {
        "ceilings", "test:tests/evil/test_gpu.py", "softmax_long_rows", "row_energy",
        "square_product", "running_sum",
    }  # fmt: skip
    assert path.with_suffix(".md").read_text().startswith("# NVIDIA H200")


def test_the_table_counts_only_what_was_measured():
    text = gpu_results.table(RESULTS)
    assert "3 of 4 problems have a correct kernel" in text
    assert "Fused row loops at 90% or more of the copy: 1 of 2." in text
    assert "square_product, float32-accurate, over eager's float32: 2.00x." in text
    assert "| running_sum | scan | wrong_output | |" in text
    assert "FAILED (1): tests/evil/test_gpu.py" in text
    assert "held back at times: software power cap" in text


def test_a_table_of_nothing_says_so():
    nothing = RESULTS.model_copy(update={"rows": (), "tests": (), "ceilings": None})
    text = gpu_results.table(nothing)
    assert "0 of 0 problems" in text
    assert "The GPU tests were not run." in text


def test_the_quicker_of_two_right_kernels_is_kept_and_a_right_one_before_a_wrong_one():
    quick, slow = timed("a", "scan", 1.0, 1), timed("a", "scan", 2.0, 1)
    wrong = slow.model_copy(update={"timing": None, "outcome": "wrong_output"})
    untried = wrong.model_copy(update={"outcome": "unprepared"})
    assert better(quick, slow)
    assert not better(slow, quick)
    assert better(slow, wrong)
    assert not better(wrong, slow)
    assert better(wrong, untried)


def test_a_gpu_without_a_page_borrows_the_recipes_of_its_generation():
    assert page_of("NVIDIA H200", (9, 0)).name == "h200-sxm"
    assert page_of("NVIDIA Something", (8, 0)).name == "a100-sxm4-80gb"


def test_the_driver_is_named_by_its_own_page(tmp_path):
    page = tmp_path / "version"
    page.write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release\n"
    )
    assert driver_version(page) == "580.159.04"
    assert driver_version(tmp_path / "none") == "unknown"
