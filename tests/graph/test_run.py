"""The command: what it prints, how it exits, and that an interrupted run goes on where it was."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agents.brief import Brief, Plan
from agents.crew import Crew
from graph.build import build_graph
from graph.drive import checkpointer
from graph.folder import RunFolder
from graph.record import BASELINE_PLAN
from graph.run import app
from graph.state import RunInput
from graph.summary import record_of
from graph.workbench import Workbenches
from tests.graph.conftest import LIMITS, RELU, RIGHT, ScriptedCrew, SharedBenches
from tools.candidate import Candidate
from tools.judge.client import Judge
from tools.task import Task

RELU_TASK = "op: torch.relu\ninputs: [{shape: [64, 64]}]\n"

MISTAKES = {
    "not YAML": ("name: [unclosed", "is not YAML"),
    "an unknown key": (RELU_TASK + "buget: {trials: 2}", 'Did you mean "budget"?'),
    "no limit of time": (RELU_TASK + "budget: {minutes: .inf}", "finite number"),
    "no limit of money": (RELU_TASK + "budget: {usd: .inf}", "finite number"),
    "a missing reference": ("reference: nowhere.py", "does not exist"),
    "an unknown device": (RELU_TASK + "target: h100", "is unknown"),
    "an unknown model": (
        RELU_TASK + "model: nobody:home",
        "names no provider that LangChain knows",
    ),
    "a model without its key": (RELU_TASK + "model: openai:gpt-5", "Set OPENAI_API_KEY"),
    "an op that torch lacks": (
        "op: torch.rellu\ninputs: [{shape: [2]}]",
        "torch.rellu does not exist",
    ),
    "two subjects": (RELU_TASK + "module: a:B", "exactly one of"),
}


def command(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize(("text", "told"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_one_clear_line_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, told: str
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (tmp_path / "task.yaml").write_text(text)
    code, out, err = command(
        str(tmp_path / "task.yaml"), "--out", str(tmp_path / "runs"), "--quiet"
    )
    assert (code, out) == (2, "")
    assert told in err
    assert err.count("\n") == 1
    assert not list(tmp_path.glob("runs/*"))


def test_json_is_one_document_and_nothing_else_on_standard_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_library: Callable[[], Path]
) -> None:
    monkeypatch.setenv("KERNELWRIGHT_LIBRARY", str(new_library()))
    (tmp_path / "task.yaml").write_text(RELU_TASK)
    code, out, _ = command(
        str(tmp_path / "task.yaml"), "--json", "--out", str(tmp_path), "--set", "budget.trials=1"
    )
    document = json.loads(out)
    assert {0: "faster", 3: "correct", 4: "failed"}[code] == document["status"]
    assert document["task"] == "task"
    assert Path(document["run_dir"], "report.html").is_file()
    assert Path(document["best"]).is_file()


class Stopped(Exception):
    """Stands for a crash of the process while the coder writes."""


class Stopping(ScriptedCrew):
    """Works like the script up to the first candidate."""

    def write(self, brief: Brief, plan: Plan) -> Candidate:
        raise Stopped


def test_a_run_that_stopped_goes_on_without_preparing_again(
    tmp_path: Path, relu_judge: Judge, new_library: Callable[[], Path]
) -> None:
    task = Task(**RELU)
    folder, library = RunFolder.create(tmp_path, task), new_library()
    config = {"configurable": {"thread_id": "relu"}, "recursion_limit": 100}

    def crew_of(script: ScriptedCrew) -> Crew:
        return Crew(script, script, script, script)

    def work(benches: Workbenches, entry: RunInput | None) -> dict[str, object]:
        try:
            with checkpointer(folder) as saver:
                graph = build_graph(benches, checkpointer=saver)
                return graph.invoke(entry, config)
        finally:
            benches.close_all()

    with pytest.raises(Stopped):
        work(
            SharedBenches(library, crew_of(Stopping((RIGHT,))), relu_judge),
            RunInput(task=task, run_dir=str(folder.path)),
        )
    with checkpointer(folder) as saver:
        before = build_graph(checkpointer=saver).get_state(config).values
    # It goes on in another process, whose judge has not seen the op yet.
    anew = Workbenches(library, crew_of(ScriptedCrew((RIGHT,))), LIMITS)
    record = record_of(work(anew, None))
    assert record.baselines == before["baselines"]
    made = [plan for plan in record.plans if plan.id != BASELINE_PLAN]
    assert made == list(before["plans"])
    assert len([trial for trial in record.trials if trial.plan != BASELINE_PLAN]) == 1
    assert record.status != "failed"
