"""From Python: functions and modules, with an event loop about, in other graphs and for agents."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

import pytest
import torch
from langgraph.graph import END, START, StateGraph

import graph
from agents.crew import Crew
from graph.background import Background
from graph.build import build_graph
from graph.folder import RunFolder
from graph.langchain_tool import as_tool
from graph.result import Result
from graph.shadows import shadowed
from knowledge.errors import BadInput
from tests.graph.conftest import RELU, RIGHT, WRONG, ScriptedCrew, SharedBenches
from tools.candidate import Candidate
from tools.judge.client import Judge
from tools.runner.jail import PROJECT
from tools.task import Task
from tools.verdict import Trial

EXAMPLE = PROJECT / "examples" / "linear_sum"


class Clamp(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.relu()


@pytest.fixture
def scripted(
    monkeypatch: pytest.MonkeyPatch, relu_judge: Judge, new_library: Callable[[], Path]
) -> None:
    """Runs have a script for a crew, and the judge of relu, whatever op they are given."""
    library = new_library()

    def benches(_: Any = None) -> SharedBenches:
        script = ScriptedCrew((WRONG, RIGHT))
        return SharedBenches(library, Crew(script, script, script, script), relu_judge)

    monkeypatch.setattr("graph.api._benches", benches)


def holds(result: Result, folder: Path) -> None:
    """What every finished result has."""
    assert result.folder.parent == folder
    assert result.report.is_file()
    assert result.timing is not None
    assert result.speedup == pytest.approx(result.timing.against_best.speedup)
    assert result.source is not None
    assert "class ModelNew" in result.source
    page = result._repr_html_()
    assert "<svg" in page
    assert str(result.report) in page
    assert repr(result).count("\n") == 0
    assert (result.folder / "taken" / "reference.py").is_file()


@pytest.mark.usefixtures("scripted")
def test_a_function_becomes_a_callable_with_its_evidence(tmp_path: Path) -> None:
    x = torch.randn(64, 64)
    result = graph.optimize(lambda x: x.relu(), x, out=tmp_path, quiet=True, target="cpu", width=1)
    holds(result, tmp_path)
    torch.testing.assert_close(result(x), x.relu())
    other = torch.randn(5, 3)
    torch.testing.assert_close(result(other), other.relu())
    record = result.record
    assert record.winner is not None
    assert result.source_sha256 == record.trial(record.winner).candidate.digest


@pytest.mark.usefixtures("scripted")
def test_it_works_while_an_event_loop_runs(tmp_path: Path) -> None:
    async def cell() -> tuple[Result, Result]:
        x = torch.randn(64, 64)
        settings: dict[str, Any] = {"out": tmp_path, "quiet": True, "target": "cpu", "width": 1}
        # As a cell of a notebook calls it, which has a loop of its own already.
        first = graph.optimize(Clamp(), x, **settings)
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.05)
                ticks += 1

        ticking = asyncio.create_task(tick())
        second = await graph.aoptimize(Clamp().eval(), [x], **settings)
        ticking.cancel()
        assert ticks > 3
        return first, second

    for result in asyncio.run(cell()):
        holds(result, tmp_path)
        assert isinstance(result.module, Clamp)


class Slow(ScriptedCrew):
    """Thinks until it is stopped."""

    def __init__(self, thinking: asyncio.Event, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__((RIGHT,))
        self._thinking, self._loop = thinking, loop

    def repair(self, brief: Any, plan: Any, trial: Trial) -> Any:
        return None

    def write(self, brief: Any, plan: Any) -> Candidate:
        self._loop.call_soon_threadsafe(self._thinking.set)
        return super().write(brief, plan)


def test_a_cancelled_run_ends_and_can_be_resumed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    relu_judge: Judge,
    new_library: Callable[[], Path],
) -> None:
    library = new_library()

    async def cell() -> None:
        thinking, loop = asyncio.Event(), asyncio.get_running_loop()
        slow = Slow(thinking, loop)
        crew = Crew(slow, slow, slow, slow)
        monkeypatch.setattr(
            "graph.api._benches", lambda _: SharedBenches(library, crew, relu_judge)
        )
        call = asyncio.create_task(
            graph.aoptimize(Clamp(), torch.randn(64, 64), out=tmp_path, quiet=True, target="cpu")
        )
        await thinking.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(cell())
    (run,) = tmp_path.iterdir()
    assert (run / "checkpoint.sqlite").is_file()
    assert "Not finished" in (run / "report.html").read_text()


MISTAKES: dict[str, tuple[tuple[Any, ...], dict[str, Any], str]] = {
    "no inputs": ((Clamp(),), {}, "inputs"),
    "an unknown setting": ((Clamp(), torch.ones(2)), {"trails": 3}, "trails"),
    "an unknown device": ((Clamp(), torch.ones(2)), {"target": "h100"}, "is unknown"),
    "a class": ((Clamp, torch.ones(2)), {}, "an instance"),
    "inputs beside a file": ((f"{EXAMPLE}.py", torch.ones(2)), {}, "brings its own"),
    "no such file": (("nowhere.yaml",), {}, "cannot be read"),
}


@pytest.mark.parametrize(("given", "settings", "told"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_one_line_and_leaves_nothing_behind(
    tmp_path: Path, given: tuple[Any, ...], settings: dict[str, Any], told: str
) -> None:
    with pytest.raises(BadInput) as refusal:
        graph.optimize(*given, out=tmp_path / "runs", quiet=True, **settings)
    assert told in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not list(tmp_path.glob("runs/*"))


class Outer(TypedDict, total=False):
    """Another graph's state, which shares names with the run's."""

    task: Task
    run_dir: str
    winner: int | None
    trials: dict[int, Trial]
    told: str


def test_the_graph_is_mounted_in_another(
    tmp_path: Path, relu_judge: Judge, new_library: Callable[[], Path]
) -> None:
    script = ScriptedCrew((RIGHT,))
    benches = SharedBenches(new_library(), Crew(script, script, script, script), relu_judge)

    def choose(state: Outer) -> Outer:
        return {"task": Task(**RELU, width=1), "run_dir": str(tmp_path / "mounted")}

    def tell(state: Outer) -> Outer:
        winner = state["winner"]
        assert winner is not None
        return {"told": state["trials"][winner].title}

    outer = StateGraph(Outer)
    outer.add_node("choose", choose)
    outer.add_node("kernel", build_graph(benches))
    outer.add_node("tell", tell)
    outer.add_edge(START, "choose")
    outer.add_edge("choose", "kernel")
    outer.add_edge("kernel", "tell")
    outer.add_edge("tell", END)
    assert graph.build_graph is build_graph
    state = outer.compile().invoke({}, {"recursion_limit": 100})
    assert state["told"]
    assert (tmp_path / "mounted" / "report.html").is_file()


def test_an_agent_is_given_a_tool(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    relu_judge: Judge,
    new_library: Callable[[], Path],
) -> None:
    script = ScriptedCrew((RIGHT,))
    crew, library = Crew(script, script, script, script), new_library()
    monkeypatch.setattr(
        "graph.langchain_tool.Workbenches",
        lambda *_, **__: SharedBenches(library, crew, relu_judge),
    )
    tool = as_tool(out=tmp_path)
    assert set(tool.args) >= {"reference", "op", "inputs", "target", "trials", "minutes"}
    assert all(one.get("description") for one in tool.args.values())
    given = {"op": "torch.relu", "inputs": [{"shape": [64, 64]}], "target": "cpu"}
    first = json.loads(tool.invoke(given))
    second = json.loads(asyncio.run(tool.ainvoke(given)))
    for answer in (first, second):
        assert answer["status"] in ("faster", "correct")
        assert "class ModelNew" in answer["kernel_source"]
        assert Path(answer["report"]).is_file()
    assert "exactly one of" in tool.invoke({})
    assert "is unknown" in tool.invoke({**given, "target": "h100"})


class Waiting(Background):
    """A run that is begun and does nothing until it is stopped."""

    stopped = False

    def start(self) -> "Waiting":
        return self

    def stop(self) -> None:
        type(self).stopped = True


def test_a_tools_call_that_is_cancelled_names_the_runs_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graph.langchain_tool.Background", Waiting)

    async def cell() -> list[str]:
        given = {"op": "torch.relu", "inputs": [{"shape": [64, 64]}], "target": "cpu"}
        call = asyncio.create_task(as_tool(out=tmp_path).ainvoke(given))
        while not list(tmp_path.glob("*/task.yaml")):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        call.cancel()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await call
        return cancelled.value.__notes__

    notes = asyncio.run(cell())
    (folder,) = tmp_path.iterdir()
    assert notes == [f"the run was stopped; go on with: python -m graph.run --resume {folder}"]
    assert Waiting.stopped


def run_python(folder: Path, text: str, *search: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", text], cwd=folder, capture_output=True, text=True, check=False,
        env={"PYTHONPATH": ":".join(map(str, (*search, PROJECT))), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip


def test_importing_the_package_alone_imports_nothing_heavy(tmp_path: Path) -> None:
    done = run_python(
        tmp_path,
        "import sys, graph; dir(graph)\n"
        "print([m for m in ('torch', 'langgraph', 'chromadb', 'pydantic') if m in sys.modules])",
    )
    assert done.stdout == "[]\n", done.stderr


def test_another_package_of_that_name_is_told_in_one_line(tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "tools"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("")
    done = run_python(tmp_path, "from graph import optimize", other.parent)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1
    assert last.startswith("ImportError: another `tools`")
    assert str(other) in last
    assert "MCP" in last
    assert "HTTP" in last


def test_a_folder_that_would_shadow_ours_in_the_judge_is_told(tmp_path: Path) -> None:
    assert shadowed(tmp_path) == ""
    (tmp_path / "agents.py").write_text("")
    assert str(tmp_path / "agents.py") in shadowed(tmp_path)


def test_the_mcp_server_starts_in_a_project_with_packages_of_these_names(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "__init__.py").write_text("")
    (tmp_path / "graph.py").write_text("")
    script = "from graph.mcp.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, "--out", tmp_path / "runs"], cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(PROJECT)}, capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.usefixtures("scripted")
def test_the_run_of_a_live_function_can_be_opened_again(tmp_path: Path) -> None:
    result = graph.optimize(Clamp(), torch.randn(64, 64), out=tmp_path, quiet=True, target="cpu")
    _, task = RunFolder.reopen(result.folder)
    assert task.reference == result.folder / "taken" / "reference.py"
    assert task.name == "Clamp"


class Attends(torch.nn.Module):
    """Asks attention for no weights, and so returns None beside the tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = torch.nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        made, weights = self.attention(x, x, x, need_weights=False)
        return torch.nn.functional.silu(made * 0.5 + x).softmax(-1), weights


# Of torch's own making, when it loads its compiler: what is handed over may be a baseline.
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_an_op_that_returns_none_beside_a_tensor_is_optimized_and_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_library: Callable[[], Path]
) -> None:
    monkeypatch.setenv("KERNELWRIGHT_LIBRARY", str(new_library()))
    subject, x = Attends().eval(), torch.randn(4, 24, 16)
    result = graph.optimize(
        subject, x, out=tmp_path, quiet=True, target="cpu", trials=2, minutes=2, width=1
    )
    record = result.record
    assert record.winner is not None
    graphed = record.facts.graph
    assert graphed is not None
    assert graphed.packed(["y"]) == "(y, None)"
    kinds = {trial.number: trial.verdict.kind for trial in record.trials}
    assert set(kinds.values()) == {"correct"}, kinds
    own = [trial for trial in record.trials if "cpp_kernel" in trial.candidate.source]
    assert own
    assert ", None)" in own[0].candidate.source
    expected = subject(x)[0]
    for call in (result, result.module):
        made, nothing = call(x)
        assert nothing is None
        torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-5)
    done = subprocess.run(
        [sys.executable, result.folder / "best" / "test_kernel.py"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
