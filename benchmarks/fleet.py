"""`python -m benchmarks.fleet`: what more machines give, and what giving out work costs.

`workers` runs a suite on a Ray cluster of 1 to N nodes that are all this machine, so that what it
shows is the scheduling; the cores are the same however many nodes share them. `coordinator` has the
problems answered at once by machines that do nothing, with a real problem's folder, so that what is
left is the cost of giving out, collecting and writing down.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated
from zlib import crc32

import psutil
import typer
import yaml
from ray.cluster_utils import Cluster as Nodes
from rich.console import Console
from rich.table import Table

from eval.fleet.cluster import Cluster
from eval.fleet.parcel import wrap_answer
from eval.one import Arrangement
from eval.problem import Problem
from eval.progress import Screen
from eval.results import Results, load
from eval.rows import Finished
from eval.run import evaluate
from tools.task import parse_task

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

REFERENCE = """\
import torch

ROWS, COLUMNS = {rows}, 1024

class Model(torch.nn.Module):
    def forward(self, x):
        return torch.nn.functional.{op}(x).sum(dim=-1)

def get_inputs():
    return [torch.randn(ROWS, COLUMNS)]

def get_init_inputs():
    return []
"""
# Of the machines that answer at once: enough that the coordinator is what is waited for.
CORES = 4
OPS = ("gelu", "silu", "softplus", "relu", "elu", "mish", "hardswish", "logsigmoid")


@app.command()
def workers(
    most: Annotated[int, typer.Option("--most", min=1, help="nodes")] = 4,
    target: Annotated[
        str, typer.Option("--target", help="cpu, or a GPU to compile for")
    ] = "cuda:h200-sxm",
    problems: Annotated[int, typer.Option("--problems", min=1)] = 12,
) -> None:
    """Problems a minute on 1 to N nodes."""
    rows = []
    for count in range(1, most + 1):
        with tempfile.TemporaryDirectory(prefix="fleet-") as held, _nodes(count, 1, 1) as address:
            home = Path(held)
            suite = _suite(home, target, problems)
            command = [sys.executable, "-m", "eval.run", str(suite), "--out", str(home / "out")]
            command += ["--executor", "ray", "--address", address, "--quiet"]
            began = time.monotonic()
            subprocess.run(command, check=True)
            wall = time.monotonic() - began
            found = load(home / "out")
            own = sum(row.seconds for row in found.rows)
            rows.append((count, len(found.rows), wall, own))
            sys.stderr.write(f"{rows[-1]}\n")
    table = Table(title=f"{problems} problems for {target}, {psutil.cpu_count()} cores")
    for heading in ("nodes", "problems", "wall s", "a minute", "against one", "s a problem"):
        table.add_column(heading, justify="right")
    for count, done, wall, own in rows:
        table.add_row(
            str(count), str(done), f"{wall:.0f}", f"{60 * done / wall:.1f}",
            f"{rows[0][2] / wall:.2f}x", f"{own / done:.1f}",
        )  # fmt: skip
    Console().print(table)


@app.command()
def coordinator(
    like: Annotated[
        Path, typer.Argument(metavar="EVALUATION", help="a finished one; its rows and folders")
    ],
    lanes: Annotated[int, typer.Option("--lanes", min=1, help="of the machines together")] = 1000,
    problems: Annotated[int, typer.Option("--problems", min=1)] = 2000,
) -> None:
    """Milliseconds of the coordinator's processor for each problem, and for each kernel."""
    earlier = load(like)
    done = [row for row in earlier.rows if isinstance(row, Finished)]
    answers = [
        wrap_answer(row, row_file.parent)
        for row_file in sorted(like.glob("problems/*/row.json"))
        for row in done
        if json.loads(row_file.read_text(encoding="utf-8"))["name"] == row.name
    ]
    kernels = sum(row.document.trials for row in done) / len(done)
    with tempfile.TemporaryDirectory(prefix="fleet-") as held, _nodes(1, lanes, CORES) as address:
        home = Path(held)
        for number, answer in enumerate(answers):
            (home / str(number)).write_bytes(answer)
        given = _problems(home, problems)
        count = len(answers)

        def unit(parcel: bytes) -> bytes:
            return (home / str(crc32(parcel) % count)).read_bytes()

        with Cluster(Arrangement(home / "out"), address, unit=unit) as cluster:
            before = _processor_seconds()
            began = time.monotonic()
            results = Results(
                suite="fleet", started="", versions={},
                problems=tuple(one.task.name for one in given),
            )  # fmt: skip
            screen = Screen(Console(), results, quiet=True)
            results = evaluate(results, given, cluster, home / "out", screen)
            wall = time.monotonic() - began
            spent = {
                name: seconds - before.get(name, 0.0)
                for name, seconds in _processor_seconds().items()
            }
    size = sum(map(len, answers)) / len(answers)
    told = {
        "problems": len(results.rows),
        "answer_mb": round(size / 1e6, 2),
        "problems_a_second": round(len(results.rows) / wall, 1),
        "ms_a_problem": {
            name: round(1e3 * seconds / len(results.rows), 2) for name, seconds in spent.items()
        },
        "kernels_a_problem": round(kernels, 1),
    }
    sys.stdout.write(json.dumps(told, indent=2) + "\n")


@contextmanager
def _nodes(count: int, lanes: int, cores: int) -> Iterator[str]:
    """The address of a cluster of so many nodes, all here, and a head that times nothing."""
    head = {"num_cpus": 0, "include_dashboard": False}
    nodes = Nodes(initialize_head=True, head_node_args=head)
    try:
        for _ in range(count):
            given = {"lane:cpu": float(lanes)}
            nodes.add_node(num_cpus=cores, resources=given, include_dashboard=False)
        nodes.wait_for_nodes()
        yield nodes.address
    finally:
        nodes.shutdown()  # type: ignore[no-untyped-call]


def _processor_seconds() -> dict[str, float]:
    """Of this process, and of what Ray runs beside it on the machine that gives out work."""
    mine = psutil.Process().cpu_times()
    found = {"coordinator": mine.user + mine.system}
    for process in psutil.process_iter(["name", "cpu_times"]):
        name, times = process.info["name"], process.info["cpu_times"]
        if name in ("gcs_server", "raylet"):
            found[name] = found.get(name, 0.0) + times.user + times.system
    return found


def _suite(home: Path, target: str, count: int) -> Path:
    entries = []
    for number in range(count):
        op = OPS[number % len(OPS)]
        source = REFERENCE.format(rows=1024 + 256 * (number // len(OPS)), op=op)
        name = f"{op}_{number}"
        (home / f"{name}.py").write_text(source)
        budget = {"minutes": 1, "trials": 2}
        entries.append(
            {"name": name, "reference": f"{name}.py", "target": target, "budget": budget}
        )
    file = home / "suite.yaml"
    file.write_text(yaml.safe_dump(entries))
    return file


def _problems(home: Path, count: int) -> list[Problem]:
    (home / "op.py").write_text(REFERENCE.format(rows=1024, op="gelu"))
    return [
        Problem(
            parse_task({"name": f"op-{n}", "reference": "op.py", "target": "cpu"}, "op", home),
            number=n + 1,
        )
        for n in range(count)
    ]


if __name__ == "__main__":
    app()
