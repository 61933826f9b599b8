import json
import os
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from eval.compare import app as compare_app
from eval.compare import markdown
from eval.executor import Here
from eval.one import Arrangement
from eval.problem import Labels, Problem
from eval.process import Ended
from eval.results import FILE, SCHEMA, Results, load
from eval.rows import Broken, Finished, Row, row_from
from eval.run import app
from eval.run import evaluate as evaluate_with
from eval.surroundings import held
from eval.tables import parts_table, rows_table, summary_text
from tests.graph import builders
from tools.task import Task

WIN = json.dumps(builders.a_win().document())
NOT_FASTER = json.dumps(builders.nothing_faster().document())


class Script:
    """Stands where `graph.run` is started: answers as told, and keeps what it was asked."""

    def __init__(self, *answers: Ended | BaseException) -> None:
        self.answers = list(answers)
        self.asked: list[list[str]] = []
        self.deadlines: list[float] = []

    def __call__(self, command: list[str], deadline_s: float, log: Path) -> Ended:
        self.asked.append(command)
        self.deadlines.append(deadline_s)
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


def ended(code: int | None, output: str = "", log: str = "") -> Ended:
    return Ended(code, output, log, 12.0)


@pytest.fixture
def problems(tmp_path: Path) -> list[Problem]:
    reference = tmp_path / "op.py"
    reference.write_text("class Model:\n    pass\n")
    return [Problem(Task(name=name, reference=reference)) for name in ("one", "two", "three")]


def labelled(problems: list[Problem]) -> list[Problem]:
    labels = (
        Labels(family="scan", kind="single"),
        Labels(family="matmul", kind="chain"),
        Labels(family="scan", kind="chain", holdout=True),
    )
    return [problem._replace(labels=label) for problem, label in zip(problems, labels, strict=True)]


def fresh(problems: list[Problem]) -> Results:
    names = tuple(problem.task.name for problem in problems)
    return Results(suite="s.yaml", started="2026-11-20T00:00:00", versions={}, problems=names)


class Silent:
    """Watches, and keeps the names it was told of."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []

    def begin(self, problem: Problem) -> None:
        self.begun.append(problem.task.name)

    def end(self, row: Row, results: Results) -> None:
        assert row in results.rows
        self.ended.append(row.name)


def evaluate(results: Results, problems: list[Problem], out: Path, script: Script) -> Results:
    """Without a first look at each problem: what a script answers is the run's."""
    numbered = [one._replace(number=place) for place, one in enumerate(problems, 1)]
    executor = Here(Arrangement(out, look_first=False), script)
    return evaluate_with(results, numbered, executor, out, Silent())


def test_every_problem_gets_a_row_whatever_its_process_does(
    problems: list[Problem], tmp_path: Path
) -> None:
    script = Script(ended(0, WIN), ended(-9, "", "killed"), ended(3, NOT_FASTER))
    results = evaluate(fresh(problems), problems, tmp_path / "out", script)
    assert [row.kind for row in results.rows] == ["finished", "broken", "finished"]
    assert load(tmp_path / "out") == results


def test_results_are_whole_after_each_problem_and_a_resumed_suite_skips_what_is_done(
    problems: list[Problem], tmp_path: Path
) -> None:
    stopped = Script(ended(0, WIN), KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        evaluate(fresh(problems), problems, tmp_path, stopped)
    earlier = load(tmp_path)
    assert [row.name for row in earlier.rows] == ["one"]
    rest = Script(ended(3, NOT_FASTER), ended(4, NOT_FASTER))
    results = evaluate(earlier, problems, tmp_path, rest)
    assert [row.name for row in results.rows] == ["one", "two", "three"]
    assert len(rest.asked) == 2


def test_a_problem_is_given_its_own_budget_and_slack(
    problems: list[Problem], tmp_path: Path
) -> None:
    script = Script(ended(0, WIN))
    evaluate(fresh(problems[:1]), problems[:1], tmp_path, script)
    assert script.deadlines[0] > problems[0].task.budget.minutes * 60
    task_file = Path(script.asked[0][script.asked[0].index("graph.run") + 1])
    assert task_file.is_file()


@pytest.mark.parametrize(
    ("how", "reason", "told"),
    [
        (ended(2, "", "x.yaml: target: is unknown."), "bad_input", "is unknown"),
        (ended(1, "", "Traceback ..."), "crashed", "exit 1"),
        (ended(-11, "", ""), "crashed", "exit -11"),
        (
            ended(130, "", "parked: no answer from the model; go on with: ..."),
            "parked",
            "no answer",
        ),
        (ended(0, "not json"), "crashed", "without a readable document"),
        (ended(0, '{"status": "splendid"}'), "crashed", "without a readable document"),
        (ended(None, "", "compiling"), "timed_out", "compiling"),
        (Ended(None, "", "", 9.0, "out_of_memory"), "out_of_memory", "all the memory"),
        (Ended(None, "", "", 9.0, "flooded"), "flooded", "filled the disk"),
    ],
)
def test_a_run_that_gives_no_verdict_is_a_broken_row_with_its_reason(
    how: Ended, reason: str, told: str
) -> None:
    row = row_from("x", how)
    assert isinstance(row, Broken)
    assert row.reason == reason
    assert told in row.error


def test_the_cautions_of_a_run_are_read_from_its_report(tmp_path: Path) -> None:
    record = builders.a_win().model_copy(update={"run_dir": str(tmp_path)})
    facts = builders.facts(cautions=("the output does not depend on the input",))
    report = record.model_copy(update={"facts": facts}).model_dump_json()
    (tmp_path / "report.json").write_text(report)
    row = row_from("x", ended(0, json.dumps(record.document())))
    assert isinstance(row, Finished)
    assert row.cautions == ("the output does not depend on the input",)


def test_bad_input_exits_2_with_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(app, [str(tmp_path / "none.yaml"), "--out", str(out)])
    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--executor", "slurm"], "--executor slurm: is unknown."),
        (["--beside", "2"], "--beside: is for --executor ray."),
        (["--executor", "local", "--address", "x:1"], "--address: is for --executor ray."),
    ],
)
def test_where_it_is_run_is_checked_before_anything_is(
    problems: list[Problem], tmp_path: Path, options: list[str], complaint: str
) -> None:
    suite = tmp_path / "suite.yaml"
    suite.write_text(f"- {{name: one, reference: {tmp_path / 'op.py'}}}\n")
    arguments = [str(suite), "--out", str(tmp_path / "out"), *options]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_with_results_is_never_overwritten(
    problems: list[Problem], tmp_path: Path
) -> None:
    evaluate(fresh([]), [], tmp_path, Script())
    before = (tmp_path / FILE).read_text()
    reference = str(tmp_path / "op.py")
    (tmp_path / "suite.yaml").write_text(f"- {{name: one, reference: {reference}}}\n")
    arguments = [str(tmp_path / "suite.yaml"), "--out", str(tmp_path)]
    for extra, complaint in (([], "already holds results"), (["--resume"], "other problems")):
        result = CliRunner().invoke(app, [*arguments, *extra])
        assert result.exit_code == 2
        assert complaint in result.stderr
    assert (tmp_path / FILE).read_text() == before


class Machine:
    """Stands where processes are started, under the command: answers for each problem by name."""

    def __init__(self, answers: dict[str, Ended]) -> None:
        self.answers = answers
        self.ran: list[str] = []

    def __call__(self, command: list[str], deadline_s: float, log: Path) -> Ended:
        if "tools.footprint" in command:
            return ended(1, "", "not known")
        name = Path(command[command.index("graph.run") + 1]).parent.name.partition("-")[2]
        self.ran.append(name)
        return self.answers[name]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine({name: ended(0, WIN) for name in ("one", "two")})
    monkeypatch.setattr(Arrangement, "execute", lambda _: found)
    # Set by the command, and taken back by this.
    monkeypatch.setenv("KERNELWRIGHT_LIBRARY", "mine")
    return found


def evaluated(folder: Path, *options: str) -> tuple[int, str]:
    """The command over two problems, with `folder / "out"`."""
    (folder / "op.py").write_text("class Model:\n    pass\n")
    suite = folder / "suite.yaml"
    suite.write_text("".join(f"- {{name: {name}, reference: op.py}}\n" for name in ("one", "two")))
    arguments = [str(suite), "--out", str(folder / "out"), "--quiet", *options]
    done = CliRunner().invoke(app, arguments)
    return done.exit_code, done.stderr


@pytest.mark.parametrize("reason", ["parked", "lost"])
def test_what_an_outage_ended_is_run_again_by_resume_and_nothing_else_is(
    machine: Machine, tmp_path: Path, reason: str
) -> None:
    machine.answers |= {"one": ended(1, "", "Traceback"), "two": ended(130, "", "parked: gone")}
    code, told = evaluated(tmp_path)
    assert code == 0
    assert "run again" in told
    file = next((tmp_path / "out").glob("problems/*-two/row.json"))
    for text in (file, tmp_path / "out" / FILE):
        text.write_text(text.read_text().replace('"reason": "parked"', f'"reason": "{reason}"'))
    rows = load(tmp_path / "out").rows
    assert [isinstance(row, Broken) and row.reason for row in rows] == ["crashed", reason]
    machine.answers["two"] = ended(0, WIN)
    assert evaluated(tmp_path, "--resume") == (0, "")
    assert machine.ran == ["one", "two", "two"]
    assert [row.kind for row in load(tmp_path / "out").rows] == ["broken", "finished"]


def refused(told: tuple[int, str], complaint: str) -> bool:
    """Whether it was refused, with one line that says so."""
    code, said = told
    return code == 2 and complaint in said and len(said.strip().splitlines()) == 1


def test_an_evaluation_goes_on_only_by_the_judge_and_options_it_was_begun_with(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = ("--wall-minutes", "3")
    assert evaluated(tmp_path, *begun) == (0, "")
    again = ("--resume", *begun)
    for more, complaint in (
        (("--scale-inputs",), "another --scale-inputs."),
        (("--memory",), "another --memory."),
        (("--memory-gib", "4"), "another --memory-gib."),
        (("--wall-minutes", "4"), "another --wall-minutes."),
        (("--set", "pages=huge", "--limit", "1"), "other problems, another --set."),
    ):
        assert refused(evaluated(tmp_path, *again, *more), complaint)
    assert evaluated(tmp_path, *again) == (0, "")
    with monkeypatch.context() as patch:
        patch.setattr("eval.run.versions", lambda: {"torch": "of another day"})
        assert refused(evaluated(tmp_path, *again), "another torch")
    monkeypatch.setattr("eval.provenance.judge_digest", lambda: "of another judge")
    assert refused(evaluated(tmp_path, *again), "another judge. Go on with")
    assert machine.ran == ["one", "two"]


def test_two_evaluations_never_work_in_one_folder(machine: Machine, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with held(out):
        assert refused(evaluated(tmp_path), "is being worked on by another evaluation")
    assert not (out / FILE).exists()
    assert evaluated(tmp_path) == (0, "")
    with held(out):
        assert refused(evaluated(tmp_path, "--resume"), "is being worked on")
    assert machine.ran == ["one", "two"]


def test_the_table_and_the_summary_name_every_problem(
    problems: list[Problem], tmp_path: Path
) -> None:
    script = Script(ended(0, WIN), ended(None, "", "hung"), ended(3, NOT_FASTER))
    results = evaluate(fresh(problems), problems, tmp_path, script)
    console = Console(width=100, record=True, file=(tmp_path / "screen").open("w"))
    console.print(rows_table(results))
    console.file.close()
    shown = console.export_text()
    assert all(name in shown for name in ("one", "two", "three", "timed out", "2.30×"))
    text = summary_text(results.summary)
    assert "fast_1 33%" in text
    assert "failed, counted as 1.0: two" in text


def test_two_evaluations_stand_side_by_side_under_their_settings(
    problems: list[Problem], tmp_path: Path
) -> None:
    first = evaluate(fresh(problems), problems, tmp_path, Script(*[ended(0, WIN)] * 3))
    second = first.model_copy(
        update={"overrides": ("pages=huge",), "rows": (row_from("one", ended(3, NOT_FASTER)),)}
    )
    table = markdown([first, second])
    lines = table.splitlines()
    assert "as the tasks say: over eager" in lines[0]
    assert "pages=huge: over eager" in lines[0]
    assert "**2.30×** (2.26–2.34)" in lines[2]
    assert "**0.97×**" not in table
    assert "not run" in lines[3]
    assert len({line.count("|") for line in lines[:5]}) == 1


def test_compare_reads_a_folder_and_refuses_what_is_no_result(
    problems: list[Problem], tmp_path: Path
) -> None:
    evaluate(fresh(problems), problems, tmp_path, Script(*[ended(0, WIN)] * 3))
    runner = CliRunner()
    shown = runner.invoke(compare_app, [str(tmp_path)])
    assert shown.exit_code == 0
    assert shown.stdout.startswith("| problem | over eager |")
    (tmp_path / "other.json").write_text("[1]")
    refused = runner.invoke(compare_app, [str(tmp_path / "other.json")])
    assert refused.exit_code == 2
    assert os.linesep not in refused.stderr.strip()


def test_what_a_suite_says_of_a_problem_comes_with_its_row(
    problems: list[Problem], tmp_path: Path
) -> None:
    script = Script(ended(0, WIN), ended(None, "", "hung"), ended(3, NOT_FASTER))
    results = evaluate(fresh(problems), labelled(problems), tmp_path, script)
    assert [(row.labels.family, row.labels.holdout) for row in results.rows] == [
        ("scan", False),
        ("matmul", False),
        ("scan", True),
    ]
    assert load(tmp_path) == results
    breakdown = json.loads((tmp_path / FILE).read_text())["breakdown"]
    assert breakdown["parts"]["non-holdout"]["problems"] == 2
    assert breakdown["parts"]["holdout"]["fast"]["1.05"] == 0.0
    assert breakdown["families"]["scan"]["fast"]["1.05"] == 0.5
    assert breakdown["kinds"]["chain"]["correct"] == 0.5


def test_the_scores_of_parts_stand_below_the_problems(
    problems: list[Problem], tmp_path: Path
) -> None:
    script = Script(ended(0, WIN), ended(None, "", "hung"), ended(3, NOT_FASTER))
    results = evaluate(fresh(problems), labelled(problems), tmp_path, script)
    console = Console(width=100, record=True, file=(tmp_path / "screen").open("w"))
    console.print(parts_table(results))
    console.file.close()
    shown = console.export_text()
    for part in ("all", "non-holdout", "holdout", "scan", "matmul", "kind: chain"):
        assert part in shown
    other = results.model_copy(update={"rows": results.rows[:1], "overrides": ("pages=huge",)})
    lines = markdown([results, other]).splitlines()
    table = [line for line in lines[lines.index("") + 1 :] if line.startswith("|")]
    assert "as the tasks say: problems" in table[0]
    assert len({line.count("|") for line in table}) == 1
    assert table[2].startswith("| all | 3 |")
    holdout = next(line for line in table if line.startswith("| holdout"))
    assert "not run" in holdout


def test_results_without_labels_have_no_parts(problems: list[Problem], tmp_path: Path) -> None:
    results = evaluate(fresh(problems), problems, tmp_path, Script(*[ended(0, WIN)] * 3))
    assert results.breakdown.named == {}
    assert "| part |" not in markdown([results])


def test_options_choose_the_problems_that_are_run(tmp_path: Path) -> None:
    (tmp_path / "op.py").write_text("class Model:\n    pass\n")
    suite = tmp_path / "suite.yaml"
    suite.write_text("- {name: one, reference: op.py, holdout: true}\n")
    for options, complaint in (
        (["--only", "ona"], 'Did you mean "one"?'),
        (["--no-holdout"], "leaves no problem"),
        (["--only", "one", "--no-holdout"], "leaves no problem"),
    ):
        result = CliRunner().invoke(app, [str(suite), "--out", str(tmp_path / "out"), *options])
        assert result.exit_code == 2
        assert complaint in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1


def test_each_problem_has_a_folder_of_its_own_whatever_its_name(
    problems: list[Problem], tmp_path: Path
) -> None:
    names = ("level1/3_a b?*", "level1/3_a-b--", "..", "x" * 300)
    odd = [
        problems[0]._replace(task=problems[0].task.model_copy(update={"name": n})) for n in names
    ]
    script = Script(*[ended(0, WIN)] * len(odd))
    evaluate(fresh(odd), odd, tmp_path, script)
    folders = sorted((tmp_path / "problems").iterdir())
    assert len(folders) == len(odd)
    assert all((folder / "task.yaml").is_file() for folder in folders)


def test_a_page_is_written_beside_the_results(problems: list[Problem], tmp_path: Path) -> None:
    evaluate(fresh(problems), problems, tmp_path, Script(*[ended(0, WIN)] * 3))
    assert "2.30×" in (tmp_path / "results.html").read_text()


def test_results_of_older_versions_are_read_and_of_newer_ones_refused(tmp_path: Path) -> None:
    older = Path(__file__).parents[2] / "eval/results/2026-11-21-epyc-2-cores"
    assert load(older).summary.problems > 0
    newer = {"schema_version": SCHEMA + 1, "rows": "who knows"}
    (tmp_path / FILE).write_text(json.dumps(newer))
    refused = CliRunner().invoke(compare_app, [str(tmp_path)])
    assert refused.exit_code == 2
    assert "newer version" in refused.stderr


def test_a_shard_takes_every_nth_problem_and_a_wrong_one_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "op.py").write_text("class Model:\n    pass\n")
    suite = tmp_path / "suite.yaml"
    suite.write_text("- {name: one, reference: op.py}\n")
    for shard in ("0/2", "3/2", "x", "2/2"):
        result = CliRunner().invoke(
            app, [str(suite), "--shard", shard, "--out", str(tmp_path / "o")]
        )
        assert result.exit_code == 2
        assert f"--shard {shard}" in result.stderr
    assert not (tmp_path / "o").exists()
