"""An ablation: what is run, in which order, in which library, and what its table says."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import eval.ablate as command
from eval.ablation import Ablation, effect_of, load_ablation, markdown
from eval.process import Ended
from eval.results import Results
from eval.rows import Finished, Row
from eval.surroundings import held
from eval.variant import VARIANTS, order_of, variants_named
from knowledge.errors import BadInput
from tests.eval.test_score import broken, finished
from tests.graph import builders
from tools.task import InputSpec, Task

ROOT = Path(__file__).parents[2]
TASK = Task(name="relu", op="torch.relu", inputs=(InputSpec(shape=(64, 64)),))


def test_a_variant_changes_nothing_but_its_part() -> None:
    without = VARIANTS["no-debugger"].of(TASK)
    assert without == TASK.model_copy(update={"without": ("debugger",)})
    assert VARIANTS["greedy"].of(TASK) == TASK.model_copy(update={"strategy": "greedy"})
    assert VARIANTS["whole"].of(TASK) == VARIANTS["again"].of(TASK) == TASK
    already = TASK.model_copy(update={"without": ("library",)})
    assert VARIANTS["no-debugger"].of(already).without == ("library", "debugger")


def test_the_whole_is_always_among_the_variants_and_a_strange_name_is_told() -> None:
    assert [one.name for one in variants_named("greedy")] == ["whole", "greedy"]
    assert [one.name for one in variants_named("")] == list(VARIANTS)
    with pytest.raises(BadInput, match="no-judge"):
        variants_named("no-judge")


def test_each_variant_is_as_often_first_as_last_and_before_another_as_after_it() -> None:
    names = ("a", "b", "c")
    orders = [order_of(names, place) for place in range(2 * len(names))]
    assert all(sorted(order) == list(names) for order in orders)
    for place in range(len(names)):
        assert set(Counter(order[place] for order in orders).values()) == {2}
    before = [order.index("a") < order.index("b") for order in orders]
    assert before.count(True) == before.count(False)


class Machine:
    """Stands where processes are started: a slower kernel, or none, without some part."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, str, str]] = []
        self.stop_after = 10_000
        # The problem and the variant whose model can't be reached.
        self.parked = ("", "")

    def __call__(self, command: list[str], deadline_s: float, log: Path) -> Ended:
        if "tools.footprint" in command:
            return Ended(1, "", "not known", 0.1)
        if len(self.ran) >= self.stop_after:
            raise KeyboardInterrupt
        task = yaml.safe_load(Path(command[3]).read_text())
        without = ",".join(task.get("without", ())) or task.get("strategy", "")
        self.ran.append((task["name"], without, os.environ["KERNELWRIGHT_LIBRARY"]))
        if self.parked == (task["name"], without):
            return Ended(130, "", "parked: no answer", 30.0)
        document = builders.a_win().document()
        if "debugger" in without:
            document |= {"status": "failed"}
        if "experience" in without:
            document["speedup"] = document["speedup"] | {"best_baseline": 1.1}
        return Ended(0, json.dumps(document), "", 30.0)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine()
    monkeypatch.setattr(command.Arrangement, "execute", lambda _: found)
    return found


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    tasks = [
        {"name": name, "op": "torch.relu", "inputs": [{"shape": [64, 64]}]}
        for name in ("one", "two", "three")
    ]
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(tasks))
    return tmp_path / "suite.yaml"


def ablate(suite: Path, *arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(command.app, [str(suite), *arguments])
    return done.exit_code, done.output


def test_variants_of_a_problem_follow_each_other_each_in_its_own_library(
    suite: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERNELWRIGHT_LIBRARY", "mine")
    out = suite.parent / "out"
    code, said = ablate(suite, "--out", str(out), "--variants", "no-debugger,no-experience")
    assert code == 0, said
    assert os.environ["KERNELWRIGHT_LIBRARY"] == "mine"
    names = [name for name, _, _ in machine.ran]
    assert names == ["one"] * 3 + ["two"] * 3 + ["three"] * 3
    orders = [tuple(w for _, w, _ in machine.ran[at : at + 3]) for at in (0, 3, 6)]
    assert len(set(orders)) == 3
    libraries = {(without, library) for _, without, library in machine.ran}
    assert len(libraries) == len({library for _, library in libraries}) == 3
    found = load_ablation(out)
    effects = {effect.variant: effect for effect in found.effects}
    assert effects["no-experience"].speedup is not None
    assert effects["no-experience"].speedup.ratio < 0.6
    assert effects["no-experience"].lost == ()
    assert effects["no-debugger"].seconds is not None
    assert effects["no-debugger"].seconds.ratio == pytest.approx(1.0)
    assert (out / "results.md").read_text() == markdown(found)
    assert "no debugger" in (out / "results.md").read_text()


def test_what_was_interrupted_goes_on_where_it_stopped(suite: Path, machine: Machine) -> None:
    out = str(suite.parent / "out")
    machine.stop_after = 4
    given = ("--out", out, "--variants", "greedy")
    assert ablate(suite, *given)[0] == 130
    assert ablate(suite, *given)[0] == 2
    assert ablate(suite, "--out", out, "--variants", "bare", "--resume")[0] == 2
    machine.stop_after = 10_000
    code, said = ablate(suite, *given, "--resume", "--json", "--quiet")
    assert code == 0, said
    assert Counter((name, without) for name, without, _ in machine.ran).most_common(1)[0][1] == 1
    assert len(machine.ran) == 6
    document = json.loads(said)
    assert document["kind"] == "ablation"
    assert document["effects"][0]["variant"] == "greedy"
    assert len(document["results"]["greedy"]["rows"]) == 3


def test_an_ablation_is_worked_on_by_one_process_and_one_judge(
    suite: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = suite.parent / "out"
    given = ("--out", str(out), "--variants", "greedy")
    out.mkdir()
    with held(out):
        code, said = ablate(suite, *given)
        assert (code, len(said.splitlines())) == (2, 1)
        assert "is being worked on by another evaluation" in said
    machine.stop_after = 4
    assert ablate(suite, *given)[0] == 130
    monkeypatch.setattr("eval.provenance.judge_digest", lambda: "of another judge")
    code, said = ablate(suite, *given, "--resume")
    assert (code, len(said.splitlines())) == (2, 1)
    assert "was made with another judge. Go on with" in said
    assert len(machine.ran) == 4


def test_what_an_outage_ended_is_run_again_in_its_variant(suite: Path, machine: Machine) -> None:
    given = ("--out", str(suite.parent / "out"), "--variants", "greedy")
    machine.parked = ("two", "greedy")
    assert ablate(suite, *given)[0] == 0
    machine.parked = ("", "")
    code, said = ablate(suite, *given, "--resume", "--json")
    assert code == 0, said
    assert [ran[:2] for ran in machine.ran[6:]] == [("two", "greedy")]
    found = load_ablation(suite.parent / "out").results["greedy"]
    assert [row.kind for row in found.rows] == ["finished"] * 3


def test_each_variant_begins_with_its_copy_of_a_library(suite: Path, machine: Machine) -> None:
    library, out = suite.parent / "known", suite.parent / "out"
    library.mkdir()
    (library / "experience.sqlite").write_text("known")
    given = ("--out", str(out), "--variants", "greedy", "--library", str(library))
    assert ablate(suite, *given)[0] == 0
    for name in ("whole", "greedy"):
        assert (out / name / "library" / "experience.sqlite").read_text() == "known"
    missing = ("--out", str(out / "x"), "--library", str(library / "missing"))
    assert ablate(suite, *missing)[0] == 2


def results(*rows: Row) -> Results:
    return Results(
        suite="s",
        started="2026-11-28",
        versions={},
        problems=tuple(r.name for r in rows),
        rows=rows,
    )


def own(row: Finished) -> Finished:
    return row.model_copy(update={"verdicts": {"correct": 1}})


def test_a_part_is_worth_what_is_slower_and_lost_without_it() -> None:
    names = ("a", "b", "c", "d", "e", "f")
    whole = results(
        *(own(finished(name, "faster", 2.0 + 0.1 * at)) for at, name in enumerate(names))
    )
    slower = [own(finished(name, "faster", 1.5 + 0.1 * at)) for at, name in enumerate(names[:-1])]
    other = results(*slower, broken("f"))
    effect = effect_of(VARIANTS["no-debugger"], whole, other)
    assert effect.speedup is not None
    assert effect.speedup.high is not None
    assert effect.speedup.high < 1.0
    assert (effect.lost, effect.found) == (("f",), ())
    assert (effect.own_whole, effect.own_variant) == (1.0, pytest.approx(5 / 6))
    # One lost and none found is no evidence.
    assert effect.p_correct == pytest.approx(1.0)


def test_a_baseline_in_a_kernels_place_is_no_kernel_of_the_run() -> None:
    whole, other = (
        results(own(finished("a", "faster", 2.0))),
        results(finished("a", "correct", 1.0)),
    )
    assert effect_of(VARIANTS["no-debugger"], whole, other).lost == ("a",)


def test_a_part_that_changed_nothing_is_told_from_one_that_did() -> None:
    def tried(name: str, *titles: str) -> Finished:
        return own(finished(name, "faster", 2.0)).model_copy(update={"tried": titles})

    whole = results(tried("a", "fuse", "fuse (double)"), tried("b", "tile"), tried("c", "scan"))
    # Of b the budget left time for one more.
    alike = results(tried("a", "fuse"), tried("b", "tile", "tile (8)"), broken("c"))
    parted = results(tried("a", "fuse", "repair"), tried("b", "tile"), tried("c", "scan"))
    assert effect_of(VARIANTS["no-library"], whole, alike).otherwise == ()
    assert effect_of(VARIANTS["no-debugger"], whole, parted).otherwise == ("a",)
    older = results(own(finished("a", "faster", 2.0)))
    assert effect_of(VARIANTS["greedy"], older, older).otherwise is None
    found = Ablation(
        suite="s",
        started="",
        results={"whole": whole, "no-library": alike},
        variants=(VARIANTS["whole"], VARIANTS["no-library"]),
    )
    assert "| 1 / 0 | 0 |" in markdown(found)
    assert "Without any, its ratios are chance." in markdown(found)


def test_before_anything_has_run_there_is_a_table_without_figures() -> None:
    empty = {name: results() for name in ("whole", "again")}
    found = Ablation(
        suite="s", started="", results=empty, variants=(VARIANTS["whole"], VARIANTS["again"])
    )
    assert "| – |" in markdown(found)
    assert found.effects[0].speedup is None


@pytest.mark.exhaustive
def test_the_command_runs_a_real_problem_in_each_variant(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = subprocess.run(
        [
            sys.executable, "-m", "eval.ablate", "eval/suites/ci.yaml", "--out", str(out),
            "--limit", "1", "--variants", "no-debugger,no-library", "--set", "budget.trials=1",
            "--set", "budget.minutes=1", "--json",
        ],
        capture_output=True, text=True, timeout=900, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert all(len(one["rows"]) == 1 for one in document["results"].values())
    rows = [row for one in document["results"].values() for row in one["rows"]]
    assert {row["kind"] for row in rows} == {"finished"}
    assert all(row["tried"] for row in rows)
    assert {effect["variant"]: effect["otherwise"] for effect in document["effects"]} == {
        "no-debugger": [],
        "no-library": [],
    }
