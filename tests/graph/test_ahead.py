"""A run for a GPU that is not here: what it says the kernel takes, and what it never claims."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from graph.build import build_graph
from graph.record import RunRecord
from graph.report.write import render_page
from graph.run import app
from graph.state import RunInput
from graph.summary import record_of
from graph.workbench import Workbenches
from knowledge.device import load_devices
from tests.graph.conftest import LIMITS
from tools.ahead import roofline_of
from tools.facts import ReferenceFacts
from tools.task import Budget, InputSpec, Task
from tools.verdict import Compiled


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory, new_library: Callable[[], Path]) -> RunRecord:
    """The playbook on a softmax that is worth a launch, for an H200."""
    folder = tmp_path_factory.mktemp("ahead")
    task = Task(
        name="softmax",
        op="torch.softmax",
        inputs=(InputSpec(shape=(8192, 1024)),),
        arguments={"dim": -1},
        target="cuda:h200-sxm",
        budget=Budget(trials=3),
    )
    benches = Workbenches(new_library(), limits=LIMITS)
    try:
        graph = build_graph(benches, runs=folder / "runs")
        return record_of(graph.invoke(RunInput(task=task), {"recursion_limit": 100}))
    finally:
        benches.close_all()


def test_what_only_compiles_is_neither_correct_nor_faster(record: RunRecord) -> None:
    assert record.status == "compiled"
    assert record.timing is None
    assert all(row.median_ms is None for row in record.baselines.rows)
    assert record.document()["speedup"]["best_baseline"] is None


def test_a_compiled_kernel_says_what_it_takes_of_the_device(record: RunRecord) -> None:
    assert record.winner is not None
    verdict = record.trial(record.winner).verdict
    assert isinstance(verdict, Compiled)
    (kernel,) = verdict.kernels
    assert kernel.architecture == "sm_90"
    assert 0 < kernel.registers <= 255
    assert kernel.spilled_bytes == 0
    assert 0 < kernel.occupancy <= 1
    assert "agree with float64" in verdict.logic


def test_the_report_and_the_exported_kernel_say_that_it_never_ran(record: RunRecord) -> None:
    page = render_page(record)
    assert "not timed" in page
    assert "registers" in page
    exported = Path(record.run_dir, "best", "kernel.py").read_text()
    assert "never run on one" in exported
    assert "@triton.jit" in exported


def test_the_roof_is_the_data_sheets_and_says_so(record: RunRecord) -> None:
    assert record.roofline.bandwidth_gbps == 4800.0
    assert record.roofline.measured.startswith("Not measured")


@pytest.mark.parametrize(
    ("device", "dtype", "gflops"),
    [
        ("h200-sxm", "bfloat16", 989.5e3),
        ("h200-sxm", "float64", 67e3),
        ("h200-sxm", "float32", 494.5e3 / 3),
        # Older than TensorFloat-32 and bfloat16.
        ("t4", "float32", 8.1e3),
    ],
)
def test_the_peak_is_that_of_the_ops_own_precision(
    record: RunRecord, device: str, dtype: str, gflops: float
) -> None:
    spec = record.facts.inputs[0].model_copy(update={"dtype": dtype})
    facts: ReferenceFacts = record.facts.model_copy(update={"inputs": (spec,)})
    assert roofline_of(load_devices()[device], facts).peak_gflops == pytest.approx(gflops, rel=0.01)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (("target=cuda:h200-sxm", "backend=cpp"), '"cpp" is not for NVIDIA H200'),
        (("target=cpu", "backend=triton"), "a CPU. Use cpp"),
    ],
)
def test_a_language_that_the_target_has_not_is_one_clear_line(
    tmp_path: Path, settings: tuple[str, ...], told: str
) -> None:
    path = tmp_path / "task.yaml"
    path.write_text("op: torch.relu\ninputs: [{shape: [64, 64]}]\n")
    sets = [part for one in settings for part in ("--set", one)]
    result = CliRunner().invoke(app, [str(path), *sets, "--out", str(tmp_path / "runs")])
    assert result.exit_code == 2
    assert told in result.stderr
    assert result.stderr.count("\n") == 1
    assert not list(tmp_path.glob("runs/*"))
