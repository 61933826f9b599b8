"""A suite on a Ray cluster of several nodes, all on this machine, one of which is killed."""

import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from eval.fleet.parcel import unwrap, wrap_answer
from eval.one import Arrangement
from eval.problem import Problem
from eval.results import Results, load
from eval.rows import Broken, Finished
from tools.task import InputSpec, Task

pytestmark = [
    pytest.mark.slow,
    # Ray's own, on its way to being loaded.
    pytest.mark.filterwarnings("ignore"),
]

OP = """\
import torch

class Model(torch.nn.Module):
    def forward(self, x):
        return (x * 2).relu()

def get_inputs():
    return [torch.randn(64, 256)]

def get_init_inputs():
    return []
"""
RIGHT = "import torch\n\nclass ModelNew(torch.nn.Module):\n    def forward(self, x):\n        "
RIGHT += "return torch.relu(x + x)\n"
# Tells who imports it, and waits to be let go.
HELD = """\
import os, pathlib, time
HERE = pathlib.Path({folder!r})
(HERE / f"import-{{os.getpid()}}").touch()
while not (HERE / "go").exists():
    time.sleep(0.05)
"""


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head that times nothing; nodes with lanes join it."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster  # noqa: PLC0415 - loading it takes seconds

    nodes = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False},
    )
    yield nodes
    nodes.shutdown()


def joined(cluster: Any, name: str) -> Any:
    lanes = {"lane:cpu": 1.0, f"lane:{name}": 1.0}
    return cluster.add_node(num_cpus=2, resources=lanes, include_dashboard=False)


def suite_of(folder: Path, sources: dict[str, str]) -> Path:
    entries = []
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source)
        entries.append({"name": name, "reference": f"{name}.py", "target": "cpu"})
    file = folder / "suite.yaml"
    file.write_text(yaml.safe_dump(entries))
    return file


def command(suite: Path, out: Path, *options: str) -> list[str]:
    given = [sys.executable, "-m", "eval.run", str(suite), "--out", str(out), "--json", *options]
    return [*given, "--set", "budget.minutes=1"]


def run(suite: Path, out: Path, *options: str) -> Results:
    done = subprocess.run(command(suite, out, *options), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["suite"] == str(suite)
    return load(out)


def without_times(results: Results) -> list[object]:
    """What a row says, but for what a clock had a hand in, and where its files lie."""
    told: list[object] = []
    for row in results.rows:
        if isinstance(row, Finished):
            samples = [(s.file.rpartition("/")[2], s.verdict) for s in row.document.samples]
            told.append((row.name, row.document.device, samples, row.cautions, row.verdicts))
        else:
            assert isinstance(row, Broken)
            told.append((row.name, row.reason))
    return told


def test_a_suite_gives_the_same_rows_as_here_and_a_killed_node_costs_another_try(
    cluster: Any, tmp_path: Path
) -> None:
    nodes = {name: joined(cluster, name) for name in ("left", "right")}
    cluster.wait_for_nodes()
    sources = {
        "held": HELD.format(folder=str(tmp_path)) + OP,
        "right": OP,
        "wrong": OP,
        "broken": "class Model(:\n",
        "alone": OP,
    }
    suite = suite_of(tmp_path, sources)
    kernels = tmp_path / "kernels"
    kernels.mkdir()
    for name in ("held", "right", "wrong", "broken"):
        right = RIGHT if name != "wrong" else RIGHT.replace("x + x", "x + 1")
        (kernels / f"{name}.py").write_text(right)

    out = tmp_path / "fleet"
    fleet = ["--executor", "ray", "--address", cluster.address, "--candidates", str(kernels)]
    with (tmp_path / "told").open("w+") as told:
        evaluation = subprocess.Popen(
            command(suite, out, *fleet), stdout=subprocess.DEVNULL, stderr=told
        )
        held = waited_for(tmp_path, evaluation)
        above = {parent.pid for parent in held.parents()}
        lost = next(node for node in nodes.values() if raylet(node) in above)
        cluster.remove_node(lost, allow_graceful=False)
        # What the node had started is not left to disturb others.
        psutil.wait_procs([held], timeout=60)
        assert not held.is_running()
        (tmp_path / "go").touch()
        assert evaluation.wait(400) == 0
        told.seek(0)
        assert "held: lost with its machine or process" in told.read()

    here = run(suite, tmp_path / "here", "--candidates", str(kernels))
    there = load(out)
    assert without_times(there) == without_times(here)
    kinds = [getattr(row, "reason", row.kind) for row in there.rows]
    assert kinds == ["finished", "finished", "finished", "bad_input", "no_candidate"]
    samples = [row.document.samples[0].verdict for row in there.rows if isinstance(row, Finished)]
    assert samples == ["correct", "correct", "wrong_output"]
    # Each problem's folder has come back.
    for row in there.rows[:4]:
        logs = list(out.glob(f"problems/*-{row.name}/problem.log"))
        assert len(logs) == 1
    assert not any(str(tmp_path / "here") in text for text in map(str, there.rows))


def waited_for(folder: Path, evaluation: subprocess.Popen[bytes]) -> psutil.Process:
    """The process that imports the held reference."""
    deadline = time.monotonic() + 120
    while not (marks := list(folder.glob("import-*"))):
        assert evaluation.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return psutil.Process(int(marks[0].name.partition("-")[2]))


def raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def test_a_device_that_no_machine_has_and_a_cluster_without_lanes_are_bad_input(
    cluster: Any, tmp_path: Path
) -> None:
    suite = suite_of(tmp_path, {"op": OP})
    fleet = ["--executor", "ray", "--address", cluster.address]

    def refused(*more: str) -> str:
        done = subprocess.run(
            command(suite, tmp_path / "out", *fleet, *more), capture_output=True, text=True
        )
        assert done.returncode == 2
        assert len(done.stderr.strip().splitlines()) == 1
        return done.stderr

    assert "offers a lane" in refused()
    cluster.add_node(num_cpus=1, resources={"lane:cpu": 1.0}, include_dashboard=False)
    cluster.wait_for_nodes()
    assert "offers lane:cuda" in refused("--set", "target=cuda")


def test_a_machine_on_which_problems_die_is_given_no_more_and_costs_no_problem(
    cluster: Any, tmp_path: Path
) -> None:
    from eval.fleet.cluster import Cluster, UnitDied  # noqa: PLC0415 - loading Ray takes seconds

    bad = joined(cluster, "bad").node_id
    joined(cluster, "good")
    cluster.wait_for_nodes()
    given_up = tmp_path / "given_up"

    def unit(parcel: bytes) -> bytes:
        import ray  # noqa: PLC0415 - on the machine

        if ray.get_runtime_context().get_node_id() == bad:
            raise UnitDied("exit 1: no space left on device")
        with tempfile.TemporaryDirectory() as home:
            name = unwrap(parcel, Path(home))[1].task.name
        if name == "odd":
            raise ZeroDivisionError("nobody expects this")
        # The other machine has died of three by then, or it is this one's turn.
        deadline = time.monotonic() + 60
        while not given_up.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        row = Broken(name=name, seconds=0.3, reason="bad_input", error="it was run")
        return wrap_answer(row, Path("/nowhere"))

    inputs = (InputSpec(shape=(2,)),)
    problems = [
        Problem(Task(name=name, op="torch.relu", inputs=inputs, target="cpu"), number=number)
        for number, name in enumerate(("a", "b", "c", "odd", "d", "e"), 1)
    ]
    told: list[str] = []

    def tell(line: str) -> None:
        told.append(line)
        if "is given no more problems" in line:
            given_up.touch()

    with Cluster(Arrangement(tmp_path / "out"), cluster.address, tell=tell, unit=unit) as fleet:
        rows = {row.name: row for _, row in fleet.rows(problems, lambda problem: None)}
    reasons = {name: row.reason for name, row in rows.items() if isinstance(row, Broken)}
    assert reasons == {problem.task.name: "bad_input" for problem in problems} | {"odd": "lost"}
    odd = rows["odd"]
    assert isinstance(odd, Broken)
    assert "nobody expects this" in odd.error
    assert len([line for line in told if "is given no more problems" in line]) == 1
    assert any("no space left on device" in line for line in told)


def test_a_problem_that_died_is_taken_back_where_the_only_other_machine_is_gone(
    cluster: Any, tmp_path: Path
) -> None:
    from eval.fleet.cluster import Cluster, UnitDied  # noqa: PLC0415 - loading Ray takes seconds

    joined(cluster, "first")
    other = joined(cluster, "other")
    cluster.wait_for_nodes()
    mark, held = tmp_path / "tried", tmp_path / "held"
    other_id = other.node_id

    def unit(parcel: bytes) -> bytes:
        import ray  # noqa: PLC0415 - on the machine

        with tempfile.TemporaryDirectory() as home:
            name = unwrap(parcel, Path(home))[1].task.name
        if ray.get_runtime_context().get_node_id() == other_id:
            held.touch()
            time.sleep(600)
        while not held.exists():
            time.sleep(0.05)
        if not mark.exists():
            mark.touch()
            raise UnitDied("exit 1: once")
        return wrap_answer(
            Broken(name=name, seconds=0.3, reason="bad_input", error="it was run"), Path("/nowhere")
        )

    inputs = (InputSpec(shape=(2,)),)
    problems = [
        Problem(Task(name=name, op="torch.relu", inputs=inputs, target="cpu"), number=number)
        for number, name in enumerate(("a", "b"), 1)
    ]

    def tell(line: str) -> None:
        if "exit 1: once" in line:
            # While its next try waits for the other machine.
            threading.Timer(3.0, cluster.remove_node, (other,), {"allow_graceful": False}).start()

    with Cluster(Arrangement(tmp_path / "out"), cluster.address, tell=tell, unit=unit) as fleet:
        rows = [row for _, row in fleet.rows(problems, lambda problem: None)]
    assert {row.name for row in rows} == {"a", "b"}
    assert {row.reason for row in rows if isinstance(row, Broken)} == {"bad_input"}


def test_sigterm_interrupts_an_evaluation_on_a_fleet(cluster: Any, tmp_path: Path) -> None:
    joined(cluster, "one")
    cluster.wait_for_nodes()
    suite = suite_of(tmp_path, {"held": HELD.format(folder=str(tmp_path)) + OP})
    fleet = ["--executor", "ray", "--address", cluster.address]
    evaluation = subprocess.Popen(
        command(suite, tmp_path / "out", *fleet),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    held = waited_for(tmp_path, evaluation)
    evaluation.terminate()
    _, said = evaluation.communicate(timeout=120)
    assert evaluation.returncode == 130
    assert "interrupted; go on with" in said
    psutil.wait_procs([held], timeout=60)
    assert not held.is_running()


def problems_named(*names: str) -> list[Problem]:
    inputs = (InputSpec(shape=(2,)),)
    return [
        Problem(Task(name=name, op="torch.relu", inputs=inputs, target="cpu"), number=number)
        for number, name in enumerate(names, 1)
    ]


def test_a_fleet_without_machines_waits_for_one_and_is_lost_if_none_comes(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eval.fleet import cluster as module  # noqa: PLC0415 - loading Ray takes seconds

    monkeypatch.setattr(module, "PATIENCE_S", 300.0)
    machines = [joined(cluster, "first")]
    cluster.wait_for_nodes()
    may_end = tmp_path / "may_end"

    def unit(parcel: bytes) -> bytes:
        with tempfile.TemporaryDirectory() as home:
            name = unwrap(parcel, Path(home))[1].task.name
        (tmp_path / f"begun-{name}").touch()
        while name != "a" and not may_end.exists():
            time.sleep(0.05)
        row = Broken(name=name, seconds=0.1, reason="bad_input", error="it was run")
        return wrap_answer(row, Path("/nowhere"))

    def lose_the_machine(name: str) -> None:
        while not (tmp_path / f"begun-{name}").exists():
            time.sleep(0.05)
        cluster.remove_node(machines[-1], allow_graceful=False)

    told: list[str] = []

    def tell(line: str) -> None:
        told.append(line)
        if "waiting for one" in line and len(machines) == 1:
            machines.append(joined(cluster, "second"))
            may_end.touch()

    given = module.Cluster(Arrangement(tmp_path / "out"), cluster.address, tell=tell, unit=unit)
    with given as fleet:
        threading.Thread(target=lose_the_machine, args=("b",)).start()
        rows = [row for _, row in fleet.rows(problems_named("a", "b"), lambda problem: None)]
        assert {row.reason for row in rows if isinstance(row, Broken)} == {"bad_input"}
        assert any("no machine offers lane:cpu any more" in line for line in told)

        may_end.unlink()
        monkeypatch.setattr(module, "PATIENCE_S", 3.0)
        threading.Thread(target=lose_the_machine, args=("c",)).start()
        with pytest.raises(module.FleetLost, match="no machine has offered lane:cpu for 3 s"):
            list(fleet.rows(problems_named("c"), lambda problem: None))


def test_two_problems_share_a_machine_by_turns_that_joined_by_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    join = [sys.executable, "-m", "eval.join", "--host", "127.0.0.1", "--port", str(port), "--stay"]
    with (tmp_path / "told").open("w+") as told:
        machine = subprocess.Popen(join, stdout=told, stderr=told, cwd=Path.cwd())
        try:
            deadline = time.monotonic() + 120
            while "runtime started" not in (tmp_path / "told").read_text():
                assert machine.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.2)
            assert "lane:cpu x 1" in (tmp_path / "told").read_text()
            suite = suite_of(tmp_path, {"one": OP, "two": OP.replace("* 2", "* 3")})
            fleet = ["--executor", "ray", "--address", f"127.0.0.1:{port}", "--beside", "2"]
            found = run(suite, tmp_path / "out", *fleet, "--set", "budget.trials=1")
        finally:
            machine.terminate()
            machine.wait(60)
    # Ray has ended with the command.
    deadline = time.monotonic() + 60
    while True:
        with socket.socket() as asked:
            if asked.connect_ex(("127.0.0.1", port)):
                break
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert [row.kind for row in found.rows] == ["finished", "finished"]
    assert all(isinstance(row, Finished) and row.document.status != "failed" for row in found.rows)
