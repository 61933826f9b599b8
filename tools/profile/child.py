"""Starts the instruments inside the jail, each around a process that runs the candidate.

`python -m tools.profile.child`, with the job on standard input and the answer as JSON on standard
output. It loads no candidate itself, so what it adds to an answer (what an instrument printed) is
as that instrument said it.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.profile import counters, nsight

LOG_LIMIT = 4000


class Workplace:
    """A folder for one job, and the programs that are started in it.

    Args:
        job: what is profiled; `tools.profile.work` reads it.
        folder: scratch.
    """

    def __init__(self, job: dict[str, Any], folder: Path) -> None:
        self.job = job
        self.folder = folder
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")

    def run(
        self, prefix: Sequence[str], what: str, *pipes: Path
    ) -> tuple[dict[str, Any] | None, str]:
        """What the candidate's process answers under an instrument, and what was printed."""
        answer = self.folder / "answer.json"
        answer.unlink(missing_ok=True)
        work = [sys.executable, "-m", "tools.profile.work", what, self.folder / "job.json", answer]
        printed = self.call([*prefix, *map(str, [*work, *pipes])])
        try:
            return json.loads(answer.read_text(encoding="utf-8")), printed
        except (OSError, ValueError):
            return None, printed

    def call(self, command: Sequence[str]) -> str:
        """The end of what a program prints on both channels, or why it could not be started."""
        try:
            done = subprocess.run(
                command, cwd=self.folder, capture_output=True, text=True, errors="replace",
                stdin=subprocess.DEVNULL, check=False,
            )  # fmt: skip
        except OSError as error:
            return f"{command[0]} could not be started: {error.strerror}"
        return (done.stdout[-LOG_LIMIT:] + done.stderr[-LOG_LIMIT:]).strip()


def times(place: Workplace) -> dict[str, Any]:
    """Time by kernel, under `perf stat` where it is asked for and works."""
    perf, refused, table = place.job.get("perf") or "", "", place.folder / "perf.csv"
    if perf:
        control, answer = place.folder / "control", place.folder / "answered"
        os.mkfifo(control)
        os.mkfifo(answer)
        prefix = counters.command_line(perf, table, control, answer)
        found, printed = place.run(prefix, "times", control, answer)
        if found is not None and table.exists():
            return {"times": found, "perf": table.read_text(encoding="utf-8", errors="replace")}
        refused = counters.refusal(printed)
    found, printed = place.run([], "times")
    return {"times": found, "log": "" if found else printed, "perf_refused": refused}


def counted(place: Workplace) -> dict[str, Any]:
    """Nsight Compute's table, without the metrics that it does not know on this device."""
    ncu, kernels = Path(place.job["ncu"]), place.job["kernels"]
    log, metrics = place.folder / "ncu.csv", list(nsight.METRICS)
    told = ""
    for _ in range(3):
        log.unlink(missing_ok=True)
        _, printed = place.run(nsight.command_line(ncu, kernels, metrics, log), "launch")
        table = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
        told = f"{table[-LOG_LIMIT:]}\n{printed}"
        unknown = nsight.unknown_metrics(told)
        if not unknown.intersection(metrics):
            return {"table": table, "told": told, "lines": _lines(place) if table else ""}
        metrics = [name for name in metrics if name not in unknown]
    return {"table": "", "told": told, "lines": ""}


def _lines(place: Workplace) -> str:
    if not place.job.get("hot_spots"):
        return ""
    ncu, report = Path(place.job["ncu"]), place.folder / "sampled.ncu-rep"
    place.run(nsight.sampling_command(ncu, place.job["kernels"], report), "launch")
    done = subprocess.run(
        nsight.source_command(ncu, report), capture_output=True, text=True, errors="replace",
        check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.stdout


def main() -> None:
    """Answer the job on standard input."""
    job = json.load(sys.stdin)
    # Under the jail's own temporary folder.
    with tempfile.TemporaryDirectory() as name:
        place = Workplace(job, Path(name))
        answer = counted(place) if job.get("ncu") else times(place)
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
