"""The soak, in small: it passes on the judge, and it would notice what it is there to notice."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tools.judge.soak.drive import Plan, Soak, fault
from tools.judge.soak.kinds import KINDS, REFERENCES, Suspect, suspect
from tools.judge.soak.watch import COUNTED, Memory, judge_counts, judge_memory
from tools.judge.soak.watch import counts as counts_now
from tools.verdict import Correct, Crashed, WrongOutput

ROOT = Path(__file__).parents[3]
BY_NAME = {kind.name: kind for kind in KINDS}


def one(name: str) -> Suspect:
    return suspect(7, BY_NAME[name], REFERENCES[0], random.Random(0))


def counts(**changed: int) -> dict[str, int]:
    return dict.fromkeys(COUNTED, 4) | {name.replace("_", " "): n for name, n in changed.items()}


def test_no_verdict_is_lost_and_nothing_leaks_while_worker_and_zygote_are_killed(tmp_path):
    findings = Soak(Plan(30, seed=4, references=1, kills=2), tmp_path, lambda _: None).run()
    assert [(answer.suspect.kind.name, answer.fault) for answer in findings.faults] == []
    assert findings.deaths == []
    assert [resource for resource in findings.resources if resource.leak] == []
    assert not any(findings.left.values())
    assert findings.passed
    assert [answer.suspect.number for answer in findings.answers] == list(range(30))
    assert {answer.suspect.kind for answer in findings.answers} == set(KINDS)
    assert sorted(a.killed for a in findings.answers if a.killed) == ["worker", "zygote"]


def test_a_verdict_of_another_kind_is_a_fault():
    honest = one("honest")
    assert fault(honest, Correct(labels=(honest.tag,))) == ""
    assert "crashed instead of correct" in fault(honest, Crashed(log="", labels=(honest.tag,)))


def test_a_verdict_that_belongs_to_another_request_is_a_fault():
    assert "another candidate's" in fault(one("honest"), Correct(labels=("soak_8_00",)))


def test_a_verdict_that_another_run_made_is_a_fault():
    raising, wrong = one("raises in forward"), one("wrong")
    said = Crashed(log="RuntimeError: soak_8_00", labels=(raising.tag,))
    assert "another run" in fault(raising, said)
    said = WrongOutput(detail="the worst is element 3 (row-major): 10008 instead of 1",
                       labels=(wrong.tag,))  # fmt: skip
    assert "another run" in fault(wrong, said)


def test_an_exception_in_place_of_a_verdict_is_a_fault():
    assert fault(one("hangs"), TimeoutError("none came")).startswith("lost: TimeoutError")


@pytest.mark.parametrize("name", [name for name in COUNTED if name != "compiled kernels"])
def test_a_count_that_does_not_come_back_is_a_leak(name):
    rows = judge_counts([counts(), counts(), counts() | {name: 9}], candidates=100)
    assert [row.name for row in rows if row.leak] == [name]
    assert not any(
        row.leak for row in judge_counts([counts(), counts() | {name: 9}, counts()], 100)
    )


def test_what_a_process_below_holds_is_counted():
    before = counts_now([])
    holding = (
        "import os\nheld = os.memfd_create('inputs')\nos.write(held, bytes(1 << 20))\n"
        "print('held', flush=True)\ninput()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holding], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        during = counts_now([])
    assert during["shared memory, KiB"] - before["shared memory, KiB"] == 1024
    assert during["processes"] - before["processes"] == 1
    assert during["our descriptors"] - before["our descriptors"] == 2
    assert during["mounts"] > before["mounts"]
    assert counts_now([]) == before


def test_kernels_that_are_kept_on_purpose_are_no_leak():
    assert not any(row.leak for row in judge_counts([counts(), counts(compiled_kernels=99)], 100))


def test_memory_that_grows_by_a_page_for_every_candidate_is_a_leak_and_a_wobble_is_not():
    chance = random.Random(0)
    wobbling = [Memory("worker", 1, n, 300_000 + chance.randrange(400)) for n in range(1000)]
    growing = [Memory("worker", 1, m.number, m.kib + 4 * m.number) for m in wobbling]
    assert not any(row.leak for row in judge_memory(wobbling))
    assert all(row.leak for row in judge_memory(growing))


def test_memory_is_followed_through_the_lives_of_replaced_processes():
    lives = [
        Memory("zygote", pid, n, 200_000 + 20_000 * pid + 30 * n)
        for pid in range(4)
        for n in range(250)
    ]
    (row,) = judge_memory(lives)
    assert row.leak
    assert row.growth_per_candidate == pytest.approx(30, rel=0.05)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--candidates", "0"], "--candidates: 0 is too few."),
        (["--references", "9"], "--references: 9 is not there."),
        (["--kills", "-1"], "--kills: -1 is not possible."),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, told):
    done = subprocess.run(
        [sys.executable, "-m", "tools.judge.soak", *arguments],
        capture_output=True, text=True, timeout=600, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith(told)
    assert done.stderr.count("\n") == 1


def test_a_soak_is_one_json_document():
    options = ["--candidates", "1", "--references", "1", "--seed", "1", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "tools.judge.soak", *options],
        capture_output=True, text=True, timeout=600, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["passed"] is True
    assert document["verdicts"] == 1
