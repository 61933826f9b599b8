"""The steps of one problem, with scripted processes."""

from pathlib import Path

import pytest
import yaml

from agents.llm.exchange import Exchange, Usage
from eval.one import Arrangement, run_problem
from eval.problem import Labels, Problem
from eval.process import Ended
from eval.rows import ROW, Broken, Finished, Skipped
from tests.eval.test_run import WIN, Script, ended
from tools.estimate import Estimate, Footprint, Scaled
from tools.task import Task, parse_task

GIB = 1 << 30
SMALL = Footprint(inputs=GIB >> 6, weights=0, outputs=GIB >> 6, working=0)
LARGE = Footprint(inputs=GIB, weights=0, outputs=GIB, working=GIB)
SOURCE = "import helper\n\nBATCH = 64\n\n\nclass Model:\n    pass\n"


@pytest.fixture
def problem(tmp_path: Path) -> Problem:
    (tmp_path / "op.py").write_text(SOURCE)
    (tmp_path / "helper.py").write_text("")
    task = Task(name="level1/3_op", reference=tmp_path / "op.py", target="cpu")
    return Problem(task, Labels(level=1), 3)


def told(footprint: Footprint, **more: object) -> Ended:
    found = Estimate.model_validate(
        {"footprint": footprint, "needed": footprint.needed} | more, strict=False
    )
    return ended(0, found.model_dump_json())


def task_of(folder: Path) -> dict[str, object]:
    found: dict[str, object] = yaml.safe_load((folder / "task.yaml").read_text())
    return found


def test_a_problem_that_fits_is_run(problem: Problem, tmp_path: Path) -> None:
    script = Script(told(SMALL), ended(0, WIN))
    row = run_problem(problem, Arrangement(tmp_path / "out", memory_bytes=16 * GIB), script)
    assert isinstance(row, Finished)
    assert (row.name, row.labels.level, row.scaled) == ("level1/3_op", 1, ())
    looked, ran = script.asked
    assert looked[looked.index("--limit") + 1] == str(16 * GIB)
    assert "tools.footprint" in looked
    assert "graph.run" in ran


def test_a_large_one_has_half_a_minute_more_for_each_gib(problem: Problem, tmp_path: Path) -> None:
    deadlines = []
    for size in (SMALL, LARGE):
        script = Script(told(size), ended(0, WIN))
        run_problem(problem, Arrangement(tmp_path / "out", memory_bytes=64 * GIB), script)
        deadlines.append(script.deadlines[1])
    more = (LARGE.needed - SMALL.needed) / GIB
    assert deadlines[1] - deadlines[0] == pytest.approx(30 * more)


def test_one_that_cannot_fit_is_skipped_with_the_reason(problem: Problem, tmp_path: Path) -> None:
    script = Script(told(LARGE))
    row = run_problem(problem, Arrangement(tmp_path / "out", memory_bytes=16 * GIB), script)
    assert isinstance(row, Skipped)
    assert "16.0 GiB" in row.error
    assert "--scale-inputs may help" in row.error
    assert row.labels.level == 1


def test_one_that_was_scaled_is_run_smaller_and_marked_so(problem: Problem, tmp_path: Path) -> None:
    scaled = Scaled(name="BATCH", given=64, used=8)
    smaller = SOURCE.replace("64", "8")
    script = Script(told(SMALL, scaled=(scaled,), source=smaller), ended(0, WIN))
    out = tmp_path / "out"
    row = run_problem(problem, Arrangement(out, memory_bytes=16 * GIB, scale_inputs=True), script)
    assert isinstance(row, Finished)
    assert row.scaled == (scaled,)
    folder = out / "problems" / "003-level1-3_op"
    assert task_of(folder)["reference"] == str(folder / "reference.py")
    assert (folder / "reference.py").read_text() == smaller
    assert (folder / "helper.py").is_file()
    assert (tmp_path / "op.py").read_text() == SOURCE


def test_one_with_workloads_is_not_scaled_since_these_say_its_sizes(
    problem: Problem, tmp_path: Path
) -> None:
    workloads = ({"name": "wide", "BATCH": 128}, {"name": "narrow", "BATCH": 2})
    raw = {"name": "op", "reference": "op.py", "target": "cpu", "workloads": list(workloads)}
    task = parse_task(raw, "task.yaml", tmp_path)
    script = Script(told(LARGE))
    arrangement = Arrangement(tmp_path / "out", memory_bytes=16 * GIB, scale_inputs=True)
    assert isinstance(run_problem(problem._replace(task=task), arrangement, script), Skipped)
    assert "--scale" not in script.asked[0]


@pytest.mark.parametrize("stopped", ["timed_out", "out_of_memory", "flooded"])
def test_one_that_does_not_end_without_data_is_not_run_at_all(
    problem: Problem, tmp_path: Path, stopped: str
) -> None:
    script = Script(Ended(None, "", "importing", 9.0, stopped))  # type: ignore[arg-type]
    row = run_problem(problem, Arrangement(tmp_path / "out"), script)
    assert isinstance(row, Broken)
    assert row.reason == stopped
    assert "without data" in row.error


@pytest.mark.parametrize("how", [ended(2, "", "no"), ended(-11), ended(0, "?"), ended(0, "{}")])
def test_what_a_look_cannot_tell_the_run_does(problem: Problem, tmp_path: Path, how: Ended) -> None:
    row = run_problem(
        problem, Arrangement(tmp_path / "o", memory_bytes=1), Script(how, ended(0, WIN))
    )
    assert isinstance(row, Finished)


def test_a_problem_nobody_has_a_kernel_for_fails_without_a_process(
    problem: Problem, tmp_path: Path
) -> None:
    script = Script()
    row = run_problem(problem, Arrangement(tmp_path / "o", candidates={"other": ()}), script)
    assert isinstance(row, Broken)
    assert (row.reason, row.labels.level, script.asked) == ("no_candidate", 1, [])


def test_candidates_are_judged_in_the_place_of_a_run(problem: Problem, tmp_path: Path) -> None:
    kernels = (tmp_path / "a.py", tmp_path / "b.py")
    script = Script(ended(3, WIN))
    given = Arrangement(tmp_path / "o", look_first=False, candidates={problem.task.name: kernels})
    run_problem(problem, given, script)
    assert "eval.judged" in script.asked[0]
    assert [str(kernel) in script.asked[0] for kernel in kernels] == [True, True]


def test_what_a_stopped_evaluation_left_of_a_problem_is_cleared(
    problem: Problem, tmp_path: Path
) -> None:
    left = tmp_path / "out" / "problems" / "003-level1-3_op" / "run" / "old"
    left.mkdir(parents=True)
    run_problem(problem, Arrangement(tmp_path / "out", look_first=False), Script(ended(0, WIN)))
    assert not left.exists()


def test_every_workload_of_a_problem_has_time_for_all_candidates(tmp_path: Path) -> None:
    (tmp_path / "op.py").write_text(
        "import torch\n\nBATCH = 64\n\n\nclass Model(torch.nn.Module):\n    pass\n\n\n"
        "def get_inputs():\n    return [torch.randn(BATCH)]\n"
    )
    raw = {"name": "op", "reference": "op.py", "target": "cpu"}
    sizes = [{"name": "small", "BATCH": 8}, {"name": "large", "BATCH": 64}]
    deadlines = []
    for more in ({}, {"workloads": sizes}):
        task = parse_task(raw | more, "t", tmp_path)
        script = Script(ended(3, WIN))
        given = Arrangement(
            tmp_path / "o", look_first=False, candidates={"op": (tmp_path / "a.py",)}
        )
        run_problem(Problem(task), given, script)
        deadlines += script.deadlines
    assert deadlines[1] == 2 * deadlines[0]


def exchange(usd: float | None) -> Exchange:
    return Exchange(
        key="k", role="coder", model="openai:m", messages=(), reply={},
        usage=Usage(input_tokens=900, output_tokens=100, usd=usd), seconds=1.0, when="",
    )  # fmt: skip


class Paying(Script):
    """Answers as told, after models were paid in the run's folder."""

    def __call__(self, command: list[str], deadline_s: float, log: Path) -> Ended:
        run = Path(command[command.index("--out") + 1]) / "a-run"
        run.mkdir(parents=True)
        lines = [exchange(usd).model_dump_json() for usd in (0.25, None, 0.5)]
        # The last line was being written when the process ended.
        (run / "exchanges.jsonl").write_text("\n".join(lines) + '\n{"key": "half')
        return super().__call__(command, deadline_s, log)


@pytest.mark.parametrize("how", [ended(1, "", "no"), ended(130), ended(None), ended(0, "?")])
def test_what_a_broken_run_spent_stands_in_its_row(
    problem: Problem, tmp_path: Path, how: Ended
) -> None:
    row = run_problem(problem, Arrangement(tmp_path / "o", look_first=False), Paying(how))
    assert isinstance(row, Broken)
    assert (row.tokens, row.usd) == (3000, 0.75)
    assert ROW.validate_json(ROW.dump_json(row)) == row
