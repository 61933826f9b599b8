"""A run that was interrupted says where it lies, and goes on from there by whichever way.

One is begun by each way, stopped while its second candidate is written, and taken up by another.
"""

import asyncio
import gc
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
import torch
from mcp import Client
from typer.testing import CliRunner

import graph
from agents.brief import Brief, Plan
from agents.crew import Crew
from graph.build import build_graph
from graph.drive import Interrupted, checkpointer
from graph.folder import RunFolder
from graph.record import RunRecord
from graph.run import app
from graph.workbench import CrewMaker, Workbenches
from knowledge.errors import BadInput
from tests.graph.conftest import RIGHT, ScriptedCrew, SharedBenches
from tests.graph.mcp_bench import SharedHall, ask, settings, with_client, words
from tools.candidate import Candidate
from tools.capture import take
from tools.judge.client import Judge
from tools.task import InputSpec, Task

SOON_SECONDS = 300.0
REFERENCE = """\
import torch

class Model(torch.nn.Module):
    def forward(self, x0):
        return torch.relu(x0)

def get_inputs():
    return [torch.randn(64, 64)]

def get_init_inputs():
    return []
"""
Settings = dict[str, Any]
SETTINGS: Settings = {"quiet": True, "target": "cpu", "width": 1}


class Clamp(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.relu()


class Doubled(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x + x).relu()


class Stopped(ScriptedCrew):
    """Has two plans, and is stopped while it writes the second one, the first time."""

    def __init__(self) -> None:
        super().__init__((RIGHT,), (f"{RIGHT}\n# again\n",))
        self.stop: Callable[[], None] | None = None

    def write(self, brief: Brief, plan: Plan) -> Candidate:
        if plan.id == "p2" and self.stop is not None:
            stop, self.stop = self.stop, None
            stop()
            time.sleep(0.5)
        return super().write(brief, plan)


class Bench:
    """What runs of this file have in common: a crew, a judge, and a library."""

    def __init__(self, folder: Path, library: Path, judge: Judge) -> None:
        self.folder = folder
        self.library = library
        self.judge = judge
        self.script = Stopped()

    @property
    def runs(self) -> Path:
        """The folder of all runs."""
        return self.folder / "runs"

    def benches(self, *_: Any, **__: Any) -> SharedBenches:
        script = self.script
        return SharedBenches(self.library, Crew(script, script, script, script), self.judge)

    def hall(self) -> "ScriptedHall":
        return ScriptedHall(self)


class ScriptedHall(SharedHall):
    """An MCP server's, whose own crew is the script."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(settings(bench.folder, bench.library), bench.judge)
        self._bench = bench

    def benches(self, crew: CrewMaker | None = None) -> SharedBenches:
        return self._bench.benches()


@pytest.fixture
def bench(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    relu_judge: Judge,
    new_library: Callable[[], Path],
) -> Bench:
    made = Bench(tmp_path, new_library(), relu_judge)
    made.runs.mkdir()
    monkeypatch.setattr("graph.api._benches", made.benches)
    monkeypatch.setattr("graph.drive.Workbenches", made.benches)
    return made


def interrupt() -> None:
    """Ctrl-C, as a terminal sends it."""
    os.kill(os.getpid(), signal.SIGINT)


def begun_by_python(bench: Bench) -> Path:
    bench.script.stop = interrupt
    with pytest.raises(graph.Interrupted) as stopped:
        graph.optimize(Clamp(), torch.randn(64, 64), out=bench.runs, **SETTINGS)
    folder = stopped.value.folder.path
    assert str(stopped.value) == f"interrupted; go on with: python -m graph.run --resume {folder}"
    return folder


def begun_by_task(bench: Bench) -> Path:
    """Awaited in an event loop, in a task that is cancelled."""

    strays: list[Settings] = []

    async def cell() -> str:
        asyncio.get_running_loop().set_exception_handler(lambda _, stray: strays.append(stray))
        loop, reached = asyncio.get_running_loop(), asyncio.Event()
        bench.script.stop = lambda: loop.call_soon_threadsafe(reached.set) and None
        x = torch.randn(64, 64)
        call = asyncio.create_task(graph.aoptimize(Clamp(), x, out=bench.runs, **SETTINGS))
        await reached.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await call
        (note,) = cancelled.value.__notes__
        return note

    note = asyncio.run(cell())
    gc.collect()
    assert strays == []
    (folder,) = bench.runs.iterdir()
    assert note == f"the run was stopped; go on with: python -m graph.run --resume {folder}"
    return folder


def begun_by_mcp(bench: Bench) -> Path:
    """The tool `optimize`, whose call is cancelled."""
    reference = bench.folder / "relu.py"
    reference.write_text(REFERENCE)
    heard: list[str] = []

    async def talk(client: Client) -> None:
        reached = threading.Event()
        bench.script.stop = reached.set

        async def hear(progress: float, total: float | None, message: str | None) -> None:
            heard.append(message or "")

        async def call() -> None:
            given = {"reference": str(reference), "target": "cpu", "settings": {"width": 1}}
            ended = await client.call_tool("optimize", given, progress_callback=hear)
            pytest.fail(f"it ended before it could be stopped: {words(ended)}")

        async with anyio.create_task_group() as calls:
            calls.start_soon(call)
            assert await anyio.to_thread.run_sync(reached.wait, SOON_SECONDS)
            calls.cancel_scope.cancel()

    # The hall is closed at the end of the talk, which waits for the run to have stopped.
    with_client(bench.hall(), talk)
    return Path(heard[0].removeprefix("run "))


def taken_up_by_command(bench: Bench, folder: Path) -> Path:
    done = CliRunner().invoke(app, ["--resume", str(folder), "--json", "--quiet"])
    assert done.exit_code in (0, 3), done.output
    return Path(json.loads(done.stdout)["run_dir"])


def taken_up_by_python(bench: Bench, folder: Path) -> Path:
    result = graph.optimize(resume=folder, quiet=True)
    x = torch.randn(64, 64)
    torch.testing.assert_close(result(x), x.relu())
    return result.folder


def taken_up_by_mcp(bench: Bench, folder: Path) -> Path:
    async def talk(client: Client) -> str:
        told = await ask(client, "optimize", resume=str(folder))
        # It has ended; by its id it is found as well, and has nothing left to do.
        assert told == await ask(client, "optimize", resume=folder.name)
        return str(told["report"])

    return Path(with_client(bench.hall(), talk)).parent


def trials_of(folder: Path) -> list[tuple[str, str]]:
    """The plan of each trial that the script made, and its verdict."""
    record = RunRecord.model_validate_json((folder / "report.json").read_text())
    assert record.finished
    return [(one.plan, one.verdict.kind) for one in record.trials if one.plan.startswith("p")]


@pytest.mark.parametrize(
    ("begun", "taken_up"),
    [
        (begun_by_python, taken_up_by_command), (begun_by_task, taken_up_by_mcp),
        (begun_by_mcp, taken_up_by_python),
    ],
)  # fmt: skip
def test_whichever_way_a_run_was_interrupted_it_goes_on_by_another(
    bench: Bench,
    begun: Callable[[Bench], Path],
    taken_up: Callable[[Bench, Path], Path],
) -> None:
    folder = begun(bench)
    assert "Not finished" in (folder / "report.html").read_text()
    first = (folder / "trials" / "1" / "verdict.json").stat().st_mtime_ns
    assert taken_up(bench, folder) == folder
    assert trials_of(folder) == [("p1", "correct"), ("p2", "correct")]
    # What was judged before is not judged again.
    assert (folder / "trials" / "1" / "verdict.json").stat().st_mtime_ns == first


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_asked_to_end_leaves_a_report(bench: Bench, number: signal.Signals) -> None:
    # Ray, where a test before has started it, has left a handler of its own.
    earlier = signal.getsignal(number)
    bench.script.stop = lambda: os.kill(os.getpid(), number)
    with pytest.raises(graph.Interrupted) as stopped:
        graph.optimize(Clamp(), torch.randn(64, 64), out=bench.runs, **SETTINGS)
    folder = stopped.value.folder.path
    assert "Not finished" in (folder / "report.html").read_text()
    assert signal.getsignal(number) is earlier


def test_a_run_under_nohup_goes_on_without_its_terminal(bench: Bench) -> None:
    bench.script.stop = lambda: os.kill(os.getpid(), signal.SIGHUP)
    earlier = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        result = graph.optimize(Clamp(), torch.randn(64, 64), out=bench.runs, **SETTINGS)
    finally:
        signal.signal(signal.SIGHUP, earlier)
    assert result.record.finished


def test_with_its_subject_a_resumed_run_gives_what_it_would_have_given(bench: Bench) -> None:
    folder = begun_by_python(bench)
    # As a notebook's cell that is run once more, with other values.
    result = graph.optimize(
        Clamp().requires_grad_(False), torch.randn(64, 64) * 2, resume=folder, quiet=True
    )
    assert result.folder == folder
    assert isinstance(result.module, Clamp)
    x = torch.randn(64, 64)
    torch.testing.assert_close(result(x), x.relu())


def test_a_run_of_a_file_goes_on_without_naming_it(bench: Bench) -> None:
    reference = bench.folder / "relu.py"
    reference.write_text(REFERENCE)
    bench.script.stop = interrupt
    with pytest.raises(Interrupted) as stopped:
        graph.optimize(reference, out=bench.runs, **SETTINGS)
    folder = stopped.value.folder.path
    reference.write_text(f"{REFERENCE}\n# another\n")
    assert f"{reference}: was edited since the run began" in refused(folder)
    reference.write_text(REFERENCE)
    with pytest.raises(BadInput, match=r"is not a run on Clamp"):
        graph.optimize(Clamp(), torch.randn(64, 64), resume=folder, quiet=True)
    result = asyncio.run(graph.aoptimize(resume=str(folder), quiet=True))
    assert result.folder == folder
    assert result.speedup is not None
    # What has ended is no longer held against its file.
    reference.write_text(f"{REFERENCE}\n# another\n")
    assert graph.optimize(resume=folder, quiet=True).speedup == result.speedup


MISTAKES: dict[str, tuple[tuple[Any, ...], Settings, str]] = {
    "another op": ((Doubled(), torch.randn(64, 64)), {}, "is not a run on Doubled"),
    "other shapes": ((Clamp(), torch.randn(64, 32)), {}, "inputs of these shapes"),
    "no inputs": ((Clamp(),), {}, "inputs: are missing"),
    "a setting": ((), {"trials": 3}, "Leave out: trials"),
    "a path": (("relu.py",), {}, "Leave out: path"),
    "no run": ((), {"resume": "nowhere"}, "is not the folder of a run"),
    "nothing": ((), {"resume": None}, "subject: is missing"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_with_resume_is_one_line_and_leaves_the_run_as_it_is(
    tmp_path: Path, mistake: str
) -> None:
    folder = tmp_path / "run"
    folder.joinpath("trials").mkdir(parents=True)
    taken = folder / "taken"
    take(Clamp(), torch.randn(64, 64), taken)
    folder.joinpath("task.yaml").write_text(f"name: Clamp\nreference: {taken / 'reference.py'}\n")
    before = sorted(folder.rglob("*"))
    subject, given, told = MISTAKES[mistake]
    with pytest.raises(BadInput) as refusal:
        graph.optimize(*subject, quiet=True, **{"resume": folder, **given})
    assert told in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert sorted(folder.rglob("*")) == before
    RunFolder.reopen(folder)


@pytest.fixture
def killed(tmp_path: Path) -> RunFolder:
    """What is left of a run that was killed after a node."""
    task = Task(name="relu", op="torch.relu", inputs=(InputSpec(shape=(64, 64)),))
    folder = RunFolder.create(tmp_path / "runs", task)
    with checkpointer(folder) as saver:
        built = build_graph(Workbenches(), checkpointer=saver)
        built.update_state(
            {"configurable": {"thread_id": folder.path.name}},
            {"task": task, "run_dir": str(folder.path)},
            as_node="select",
        )
    return folder


def refused(folder: Path, *beside: str) -> str:
    """The line that the command answers with."""
    done = CliRunner().invoke(app, ["--resume", str(folder), "--quiet", *beside])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize("carry", [shutil.move, shutil.copytree])
@pytest.mark.parametrize("place", ["renamed", "elsewhere/{name}"])
def test_a_run_that_lies_elsewhere_than_it_began_says_where_that_was(
    tmp_path: Path, killed: RunFolder, carry: Callable[[Path, Path], object], place: str
) -> None:
    lies = tmp_path / place.format(name=killed.path.name)
    lies.parent.mkdir(exist_ok=True)
    carry(killed.path, lies)
    before = sorted(killed.path.rglob("*"))
    assert f"its run began in {killed.path} " in refused(lies)
    assert sorted(killed.path.rglob("*")) == before


def test_a_run_whose_task_was_edited_says_what_is_another(killed: RunFolder) -> None:
    with killed.task_file.open("a") as file:
        file.write("budget: {trials: 3}\n")
    told = refused(killed.path)
    assert f"{killed.task_file}: was edited" in told
    assert "begun with another budget" in told


def test_a_run_whose_checkpoint_is_damaged_says_so(killed: RunFolder) -> None:
    for left in killed.path.glob("checkpoint.sqlite*"):
        left.unlink()
    killed.checkpoint.write_bytes(b"no database" * 1000)
    assert f"{killed.checkpoint}: cannot be read" in refused(killed.path)


def test_a_run_that_cannot_be_worked_in_says_so(killed: RunFolder) -> None:
    (killed.path / "lock").unlink(missing_ok=True)
    (killed.path / "lock").mkdir()
    assert "cannot be worked in" in refused(killed.path)


@pytest.mark.parametrize(
    "text", ["", "name: [", "- relu\n", "buget: {}\n"],
    ids=["empty", "not YAML", "a list", "an unknown key"],
)  # fmt: skip
def test_a_slip_in_a_runs_task_is_one_clear_line(killed: RunFolder, text: str) -> None:
    killed.task_file.write_text(text)
    assert str(killed.task_file) in refused(killed.path)


@pytest.mark.parametrize(
    "beside", [["task.yaml"], ["--set", "width=1"], ["--out", "elsewhere"], ["--approve"]]
)
def test_what_is_given_beside_resume_is_refused(killed: RunFolder, beside: list[str]) -> None:
    assert "goes alone" in refused(killed.path, *beside)
