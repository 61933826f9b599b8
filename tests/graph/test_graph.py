"""The real graph and the real judge, driven by a scripted crew."""

from pathlib import Path

from tests.graph.conftest import BROKEN, RAISING, RIGHT, WRONG, Runs
from tools.task import Budget


def test_a_wrong_kernel_is_mended_and_its_mend_is_a_child(runs: Runs) -> None:
    record = runs.run((WRONG, RIGHT))
    assert [trial.verdict.kind for trial in record.trials] == ["wrong_output", "correct"]
    assert record.trials[1].parent == record.trials[0].number
    assert [repair.failed_trial for repair in record.repairs] == [record.trials[0].number]
    assert record.winner == record.trials[1].number


def test_every_way_to_fail_ends_in_its_own_verdict_and_a_failed_run(runs: Runs) -> None:
    record = runs.run((BROKEN,), (RAISING,), (WRONG,))
    assert sorted(trial.verdict.kind for trial in record.trials) == [
        "build_failed",
        "crashed",
        "wrong_output",
    ]
    assert (record.status, record.winner, record.confirmation) == ("failed", None, None)
    assert record.document()["best"] is None


def test_repairs_end_with_their_budget(runs: Runs) -> None:
    record = runs.run((WRONG, WRONG + "#", WRONG + "##", RIGHT), budget=Budget(repairs=1))
    assert [trial.repair for trial in record.trials] == [0, 1]


def test_trials_end_with_their_budget(runs: Runs) -> None:
    record = runs.run(
        (WRONG, WRONG + "#"), (WRONG, WRONG + "##"), (RIGHT,), budget=Budget(trials=3)
    )
    assert len(record.trials) <= 3
    assert "budget" in record.ended


def test_a_run_leaves_its_report_its_kernel_and_every_trial(runs: Runs) -> None:
    record = runs.run((WRONG, RIGHT))
    folder = Path(record.run_dir)
    assert {"task.yaml", "report.html", "report.json", "best", "trials"} <= {
        p.name for p in folder.iterdir()
    }
    assert (folder / "best" / "kernel.py").is_file()
    for trial in record.trials:
        assert (
            folder / "trials" / str(trial.number) / "kernel.py"
        ).read_text() == trial.candidate.source


def test_what_is_not_faster_is_not_called_faster(runs: Runs) -> None:
    slow = RIGHT.replace("return", "torch.sort(x0.repeat(40, 1)); return")
    record = runs.run((slow,))
    assert record.status == "correct"
    assert record.timing is not None
    assert record.timing.against_best.speedup < 1.0
