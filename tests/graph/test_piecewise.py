"""An op without a graph in the real graph, with the playbook crew: its parts are made fast."""

from collections.abc import Callable
from pathlib import Path

import pytest

from graph.build import build_graph
from graph.record import RunRecord
from graph.state import RunInput
from graph.summary import record_of
from graph.workbench import Workbenches
from tests.graph.conftest import LIMITS
from tools.task import Budget, Task

pytestmark = pytest.mark.slow
REFERENCE = '''
"""Rows take one way or the other by their first element."""

import torch
from torch import nn


class Way(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, x):
        return torch.softmax(self.norm(x) * 3.0, -1) - torch.sigmoid(x) * x


class Model(nn.Module):
    def __init__(self, width):
        super(Model, self).__init__()
        self.ways = nn.ModuleList([Way(width), Way(width)])

    def forward(self, x):
        left = x[:, 0] > 0
        out = torch.empty_like(x)
        for mine, way in zip((left, ~left), self.ways):
            if bool(mine.any()):
                out[mine] = way(x[mine])
        return out


def get_inputs():
    return [torch.randn(800, 640)]


def get_init_inputs():
    return [640]
'''


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory, new_library: Callable[[], Path]) -> RunRecord:
    folder = tmp_path_factory.mktemp("piecewise")
    (folder / "ways.py").write_text(REFERENCE)
    task = Task(
        name="ways", reference=folder / "ways.py", width=1, budget=Budget(trials=1, repairs=0)
    )
    benches = Workbenches(new_library(), None, LIMITS)
    try:
        graph = build_graph(benches, runs=folder / "runs")
        return record_of(graph.invoke(RunInput(task=task), {"recursion_limit": 50}))
    finally:
        benches.close_all()


def test_what_stopped_the_tracer_is_said_with_its_line(record: RunRecord) -> None:
    assert record.facts.graph is None
    assert "if bool(mine.any())" in record.facts.untraceable
    page = Path(record.run_dir, "report.html").read_text()
    assert "The op has no graph as a whole" in page
    assert "Traced on their own" in page


def test_its_parts_are_planned_by_their_share(record: RunRecord) -> None:
    assert {path for part in record.facts.parts for path in part.paths} == {"ways.0", "ways.1"}
    plan = record.plans[0]
    assert {step.part for step in plan.steps} <= {part.name for part in record.facts.parts}
    assert "of the op" in plan.arithmetic
    assert any("no graph as a whole" in label for label in plan.labels)


def test_a_kernel_of_faster_parts_passes_the_judge(record: RunRecord) -> None:
    (trial, *_) = record.trials
    assert trial.verdict.kind == "correct", trial.verdict
    assert trial.candidate.backend == "cpp"
    assert record.winner is not None
