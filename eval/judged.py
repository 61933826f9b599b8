"""Other people's kernels for one problem: `python -m eval.judged TASK.yaml KERNEL.py... --out DIR`.

All of them are put to the judge; the fastest of those that are right is timed once more, with a new
runner and new seeds, against every baseline. Started by `eval.run --candidates`, a process for each
problem; what it prints is a document like that of `graph.run --json`.
"""

import json
import sys
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Annotated

import typer

from eval.candidates import sample_number
from graph.folder import write_whole
from knowledge.errors import BadInput
from tools.candidate import Candidate, backend_of
from tools.facts import Roofline
from tools.judge.client import Judge
from tools.judge.combine import combined_baselines, combined_roofline
from tools.judge.panel import Panel
from tools.judge.whole import judge_of
from tools.task import Task, device_of, load_task
from tools.told import told_to_agents
from tools.verdict import Correct, JudgeError, Timing, Verdict

FASTER, NOT_FASTER, NONE_CORRECT, BAD_INPUT = 0, 3, 4, 2
DETAIL_LIMIT = 600


class Judged:
    """The samples of one problem, as they are judged.

    Args:
        judge: of that problem, on all of its workloads.
        files: the samples.
        out: where each verdict is written as soon as it is known.
    """

    def __init__(self, judge: Judge | Panel, files: list[Path], out: Path) -> None:
        self._judge = judge
        self._files = files
        self._out = out
        self.verdicts: dict[int, Verdict] = {}
        self.winner: int | None = None
        self.timing: Timing | None = None
        self.roofline: Roofline | None = None

    def run(self) -> None:
        """Judge all, then time the right ones, then confirm the fastest."""
        candidates = [_candidate(file) for file in self._files]
        for number, candidate in enumerate(candidates):
            self._keep(number, self._judge.verify(candidate))
        right = [n for n, verdict in self.verdicts.items() if isinstance(verdict, Correct)]
        if not right:
            return
        for number in self._fastest_first(right, candidates, self._baselines()):
            verdict = self._judge.confirm(candidates[number])
            if isinstance(verdict, Correct):
                self.winner, self.timing = number, verdict.timing
                self._keep(number, verdict)
                return
            self._keep(number, verdict)
        # Right, where the machinery failed to say how fast.
        still = [n for n, verdict in self.verdicts.items() if isinstance(verdict, Correct)]
        self.winner = min(still, default=None)

    def _baselines(self) -> tuple[str, ...]:
        """The names of those that work here; the roofline is found on the way."""
        with suppress(BadInput):
            baselines, self.roofline = self._judge.survey()
            if isinstance(self._judge, Panel):
                baselines = combined_baselines(self._judge.workloads)
                self.roofline = combined_roofline(self._judge.workloads)
            return tuple(row.name for row in baselines.rows if row.median_ms is not None)
        return ()

    def _fastest_first(
        self, right: list[int], candidates: list[Candidate], against: tuple[str, ...]
    ) -> list[int]:
        if len(right) == 1:
            return right
        speedups: dict[int, float] = {}
        for number in right:
            best = max(speedups.values(), default=None)
            verdict = self._judge.measure(candidates[number], against, best)
            self._keep(number, verdict)
            if isinstance(verdict, Correct) and verdict.timing is not None:
                speedups[number] = verdict.timing.against_best.speedup
        return sorted(speedups, key=lambda number: -speedups[number])

    def _keep(self, number: int, verdict: Verdict) -> None:
        """The last word on a sample; an error of the judge's own takes none back."""
        earlier = self.verdicts.get(number)
        if earlier is not None and isinstance(verdict, JudgeError):
            return
        if isinstance(earlier, Correct) and isinstance(verdict, Correct):
            verdict = earlier.model_copy(update={"timing": verdict.timing})
        self.verdicts[number] = verdict
        folder = self._out / "samples" / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "verdict.json", verdict.model_dump_json(indent=2))

    @property
    def status(self) -> str:
        """As a run's: `faster`, `correct`, or `failed`."""
        if self.winner is None:
            return "failed"
        return "faster" if self.timing is not None and self.timing.faster else "correct"

    def samples(self) -> list[dict[str, object]]:
        """Every sample with what was said of it."""
        rows: list[dict[str, object]] = []
        for number, file in enumerate(self._files):
            verdict = self.verdicts[number]
            timing = verdict.timing if isinstance(verdict, Correct) else None
            rows.append({
                "file": file.name, "number": sample_number(file, number), "verdict": verdict.kind,
                "detail": told_to_agents(verdict)[:DETAIL_LIMIT], "labels": list(verdict.labels),
                "speedup": timing.against_best.speedup if timing is not None else None,
            })  # fmt: skip
        return rows


def _candidate(file: Path) -> Candidate:
    try:
        source = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        # The judge says of it that it has no ModelNew.
        source = ""
    return Candidate(source=source, backend=backend_of(source))


def _for_kernels(task: Task, files: list[Path]) -> Task:
    """The task, for the CPU where all of its kernels are C++ and nobody said where they belong."""
    cpp = all(_candidate(file).backend == "cpp" for file in files)
    return task.model_copy(update={"backend": "cpp"}) if cpp and task.backend == "auto" else task


def document(
    task: Task, judged: Judged, cautions: tuple[str, ...], seconds: float, files: list[Path]
) -> dict[str, object]:
    """What `graph.run --json` would print of a run that tried these kernels and no others."""
    timing = judged.timing
    by_name = {c.baseline: c for c in timing.comparisons} if timing is not None else {}
    best = timing.against_best if timing is not None else None
    eager, compiled = by_name.get("eager"), by_name.get("compile")
    roofline = judged.roofline
    fraction = roofline.fraction(timing.candidate_ms) if roofline and timing else None
    return {
        "status": judged.status,
        "task": task.name,
        "device": device_of(task, task.name).name,
        "backend": None,
        "speedup": {
            "eager": eager.speedup if eager else None,
            "compile": compiled.speedup if compiled else None,
            "best_baseline": best.speedup if best else None,
            "interval": [best.low, best.high] if best else None,
        },
        "baselines": {
            name: {"ms": row.baseline_ms, "speedup": row.speedup} for name, row in by_name.items()
        },
        "candidate_ms": timing.candidate_ms if timing else None,
        "roofline_fraction": fraction,
        "workloads": [
            {
                "name": one.name,
                "baseline": (against := one.timing.against_best).baseline,
                "speedup": against.speedup,
                "interval": [against.low, against.high],
            }
            for one in (timing.workloads if timing else ())
        ],
        "trials": len(files),
        "seconds": round(seconds, 1),
        "usage": {},
        "best": str(files[judged.winner]) if judged.winner is not None else None,
        "run_dir": "",
        "cautions": list(cautions),
        "samples": judged.samples(),
    }


def run(
    task_file: Annotated[Path, typer.Argument(metavar="TASK.yaml", help="the problem")],
    files: Annotated[list[Path], typer.Argument(metavar="KERNEL.py...", help="ModelNew, each")],
    out: Annotated[Path, typer.Option("--out", help="folder for verdicts")],
) -> None:
    """Judge kernels of one problem, and print what was found as one JSON document.

    Exit code 0: one of them is faster than every baseline; 3: one is right, none faster; 4: none is
    right; 2: the problem can't be judged.
    """
    began = time.monotonic()
    try:
        task = _for_kernels(load_task(task_file), files)
        with (
            tempfile.TemporaryDirectory(
                prefix="judge-", dir=out, ignore_cleanup_errors=True
            ) as scratch,
            closing(judge_of(task, Path(scratch))) as judge,
        ):
            cautions = judge.cautions()
            judged = Judged(judge, files, out)
            judged.run()
    except BadInput as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(BAD_INPUT) from error
    seconds = time.monotonic() - began
    told = document(task, judged, cautions, seconds, files)
    sys.stdout.write(json.dumps(told, indent=2) + "\n")
    codes = {"faster": FASTER, "correct": NOT_FASTER, "failed": NONE_CORRECT}
    raise typer.Exit(codes[judged.status])


if __name__ == "__main__":
    typer.run(run)
