"""Each way in does the same example, and comes to the same winner: the same source, to the letter.

A way is a function that does the example and returns its winner's hash; another one is a line in
`WAYS`. They run whole judged runs, one after another.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client
from typer.testing import CliRunner

from graph.api import optimize
from graph.mcp.hall import Hall, Settings
from graph.mcp.server import build_server
from graph.record import RunRecord
from graph.run import app
from tests.graph import served
from tests.graph.mcp_bench import ask
from tools.runner.jail import PROJECT

# One loop whatever its calls take: what is planned for linear_sum hangs on measured times, and so
# on what else the machine does.
EXAMPLE = PROJECT / "examples" / "scale_gelu_sum.py"
TRIALS, MINUTES, SEED = 1, 2, 7
Way = Callable[[Path, Path], str]


def by_command(folder: Path, library: Path) -> str:
    """`python -m graph.run`, which reads a task file."""
    task = folder / "scale_gelu_sum.yaml"
    task.write_text(json.dumps({"reference": str(EXAMPLE), "target": "cpu", "seed": SEED}))
    budget = [f"--set=budget.trials={TRIALS}", f"--set=budget.minutes={MINUTES}"]
    found = CliRunner().invoke(app, [str(task), "--json", "--quiet", f"--out={folder}", *budget])
    report = Path(json.loads(found.stdout)["run_dir"], "report.json")
    record = RunRecord.model_validate_json(report.read_text())
    assert record.winner is not None
    return record.trial(record.winner).candidate.digest


def by_python(folder: Path, library: Path) -> str:
    """`from graph import optimize`."""
    result = optimize(
        EXAMPLE, out=folder, quiet=True, trials=TRIALS, minutes=MINUTES, seed=SEED, target="cpu"
    )
    assert result.source_sha256 is not None
    return result.source_sha256


def by_mcp(folder: Path, library: Path) -> str:
    """The tool `optimize`, called by the official client."""
    hall = Hall(Settings(folder, folder, library))

    async def talk() -> dict[str, Any]:
        async with Client(build_server(hall)) as client:
            return await ask(
                client, "optimize", reference=str(EXAMPLE), trials=TRIALS, minutes=MINUTES,
                target="cpu", settings={"seed": SEED},
            )  # fmt: skip

    try:
        return str(anyio.run(talk)["source_sha256"])
    finally:
        hall.close()


def by_http_api(folder: Path, library: Path) -> str:
    """`langgraph dev`, and a client of its API."""
    served.skip_without_studio()
    task = {
        "reference": str(EXAMPLE), "target": "cpu", "seed": SEED,
        "budget": {"trials": TRIALS, "minutes": MINUTES},
    }  # fmt: skip
    with served.server(folder, KERNELWRIGHT_LIBRARY=str(library)) as running:
        return served.winner_over_http(running, task)


WAYS: tuple[Way, ...] = (by_command, by_python, by_mcp, by_http_api)


@pytest.mark.exhaustive
def test_every_way_in_comes_to_the_same_winner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_library: Callable[[], Path]
) -> None:
    found: dict[str, str] = {}
    for way in WAYS:
        # A library each: none may learn from what the one before it found.
        library, folder = new_library(), tmp_path / way.__name__
        folder.mkdir()
        monkeypatch.setenv("KERNELWRIGHT_LIBRARY", str(library))
        found[way.__name__] = way(folder, library)
    assert len(set(found.values())) == 1, found
