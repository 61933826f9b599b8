"""The memory of judged trials: what it counts, and that no kill and no other writer loses any."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from knowledge.errors import BadInput
from knowledge.experience.memory import SCHEMA, Memory
from knowledge.experience.tried import Tried, repairs, tallies
from knowledge.pattern import Step

LOOP = Step(pattern="row_loop", parameters={"exp": "inline", "streaming": False, "strip": 4})
PAGES = Step(pattern="output_pages")


def tried(**changes: object) -> Tried:
    values: dict[str, object] = {
        "run_id": "r1", "trial": 1, "fingerprint": "f", "signature": "softmax mul",
        "device": "cpu-2c", "architecture": "x86-64 avx512", "title": "fused rows",
        "steps": (LOOP,), "verdict": "correct", "speedup": 2.0, "low": 1.9, "high": 2.1,
        "bottleneck": "pages", "roofline": 0.5, "when": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    return Tried.model_validate(values | changes)


def wrong(**changes: object) -> Tried:
    values = {"verdict": "wrong_output", "speedup": None, "low": None, "high": None}
    return tried(**values | {"bottleneck": "", "roofline": None} | changes)


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return Memory(tmp_path)


def in_another_process(folder: Path, code: str) -> subprocess.Popen[str]:
    head = (
        "import os, sys; from pathlib import Path; "
        "from knowledge.experience.memory import Memory; "
        "from knowledge.experience.tried import Tried; memory = Memory(Path(sys.argv[1])); "
        "one = Tried.model_validate_json(sys.argv[2])\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", head + code, str(folder), tried().model_dump_json()],
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_trials_come_back_whole_and_in_order(memory: Memory) -> None:
    kept = [
        tried(confirmed=True, won=True),
        wrong(trial=2, steps=(LOOP, PAGES)),
        tried(trial=3, mended="wrong_output", repair="sums in double", steps=()),
    ]
    memory.keep(kept)
    assert memory.entries() == kept
    assert memory.complaints() == ()


def test_a_run_that_is_told_of_twice_is_kept_once(memory: Memory) -> None:
    memory.keep([tried(), tried(trial=2)])
    memory.keep([tried(speedup=3.0)])
    assert [one.speedup for one in memory.entries()] == [3.0]


def test_trials_of_other_ops_and_other_devices_are_not_alike(memory: Memory) -> None:
    memory.keep([tried()])
    memory.keep([tried(run_id="r2", signature="linear gelu")])
    memory.keep([tried(run_id="r3", device="cpu-64c")])
    memory.keep([tried(run_id="r4", signature="")])
    here = memory.like("softmax mul", device="cpu-2c")
    assert [one.run_id for one in here] == ["r1"]
    there = memory.like("softmax mul", architecture="x86-64 avx512")
    assert [one.run_id for one in there] == ["r1", "r3"]
    assert memory.like("", device="cpu-2c") == []


def test_one_activation_is_as_good_as_another(memory: Memory) -> None:
    memory.keep([tried(signature="linear gelu")])
    assert memory.like("linear relu", device="cpu-2c")
    assert not memory.like("linear softmax", device="cpu-2c")


def test_a_tally_counts_runs_wins_and_failures_of_a_recipe() -> None:
    runs = [
        tried(confirmed=True, won=True),
        tried(trial=2, speedup=1.5, steps=(LOOP.model_copy(update={"parameters": {}}),)),
        tried(run_id="r2", speedup=0.9),
        wrong(run_id="r3"),
        tried(run_id="r4", verdict="judge_error", speedup=None),
        tried(run_id="r4", trial=2, steps=(LOOP, PAGES)),
    ]
    tally = tallies(runs)["row_loop",]
    assert (tally.runs, tally.wins, tally.tries) == (4, 1, 4)
    assert tally.failures == {"wrong_output": 1}
    assert (tally.best, tally.median) == (2.0, 1.5)
    assert tally.words() == (
        "won 1 of 4 runs (median 1.50x, best 2.00x), failed once in 4 trials (wrong_output)"
    )


def test_reliability_falls_with_failures_and_is_whole_without_trials() -> None:
    assert tallies([tried()])["row_loop",].reliability == 1.0
    often = [wrong(trial=number) for number in range(1, 5)]
    assert tallies(often)["row_loop",].reliability < tallies(often[:1])["row_loop",].reliability
    machinery = tried(verdict="judge_error", speedup=None)
    assert tallies([machinery])["row_loop",].reliability == 1.0


def test_which_repair_worked_on_which_failure() -> None:
    double = {"mended": "wrong_output", "repair": "sums in double"}
    apart = {"mended": "crashed", "repair": "left row_loop out"}
    found = repairs([tried(), tried(**double), wrong(**double), wrong(**apart)])
    assert [(one.failure, one.repair, one.tries, one.worked) for one in found] == [
        ("wrong_output", "sums in double", 2, 1),
        ("crashed", "left row_loop out", 1, 0),
    ]


def test_two_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    code = (
        "for number in range(40):\n"
        "    memory.keep([one.model_copy(update={{'run_id': f'{0}-{{number}}', 'trial': trial}})"
        " for trial in (1, 2)])\n"
        "print(memory.complaints())"
    )
    writers = [in_another_process(tmp_path, code.format(name)) for name in ("a", "b")]
    assert [writer.communicate(timeout=120) for writer in writers] == [("()\n", "")] * 2
    found = {(one.run_id, one.trial) for one in Memory(tmp_path).entries()}
    assert found == {(f"{w}-{n}", trial) for w in "ab" for n in range(40) for trial in (1, 2)}


def test_a_writer_that_is_killed_leaves_what_was_there_and_nothing_half(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    memory.keep([tried()])
    # Between the two rows of one run, in the middle of its transaction.
    code = (
        "class Deadly(Tried):\n"
        "    def model_dump(self, **how):\n"
        "        print('written', flush=True)\n"
        "        os.kill(os.getpid(), 9)\n"
        "torn = one.model_copy(update={'run_id': 'torn'})\n"
        "memory.keep([torn, Deadly(**dict(torn) | {'trial': 2})])\n"
    )
    writer = in_another_process(tmp_path, code)
    assert writer.communicate(timeout=60)[0] == "written\n"
    assert writer.returncode == -9
    assert memory.entries() == [tried()]
    memory.keep([tried(run_id="r2")])
    assert [one.run_id for one in memory.entries()] == ["r1", "r2"]
    assert memory.complaints() == ()


@pytest.mark.parametrize("where", [0, 4096], ids=["its head", "its pages"])
def test_a_damaged_file_is_set_aside_and_said_once(memory: Memory, where: int) -> None:
    memory.keep([tried(trial=number, title="x" * 400) for number in range(1, 200)])
    content = bytearray(memory.file.read_bytes())
    content[where : where + 30_000] = b"\x5a" * 30_000
    memory.file.write_bytes(bytes(content))
    assert memory.like("softmax mul", device="cpu-2c") == []
    memory.keep([tried(run_id="r2")])
    assert [one.run_id for one in memory.entries()] == ["r2"]
    (aside,) = memory.file.parent.glob("experience.sqlite.damaged-*")
    (sentence,) = memory.complaints()
    assert aside.name in sentence
    assert aside.read_bytes()[where : where + 30_000] == b"\x5a" * 30_000
    assert memory.complaints() == ()


def test_a_file_of_a_later_version_is_left_alone(memory: Memory) -> None:
    memory.keep([tried()])
    connection = sqlite3.connect(memory.file)
    connection.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    connection.close()
    memory.keep([tried(run_id="r2")])
    assert memory.like("softmax mul") == []
    assert len(memory.complaints()) == 2
    with pytest.raises(BadInput, match="later version"):
        memory.entries()
    assert not list(memory.file.parent.glob("*.damaged-*"))


def test_a_folder_that_cannot_be_written_stops_no_run(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "nowhere")
    memory.keep([tried()])
    assert memory.like("softmax mul") == []
    assert len(memory.complaints()) == 2
    with pytest.raises(BadInput, match="cannot be used"):
        memory.add([tried()])


def test_a_row_that_cannot_be_read_hides_no_other(memory: Memory) -> None:
    memory.keep([tried(), tried(trial=2)])
    connection = sqlite3.connect(memory.file)
    connection.execute("UPDATE trials SET steps = '[{]' WHERE trial = 1")
    connection.commit()
    connection.close()
    assert [one.trial for one in memory.entries()] == [2]


def test_only_what_was_confirmed_and_traced_is_a_lesson() -> None:
    assert tried().lesson is None
    assert tried(confirmed=True, signature="").lesson is None
    won = tried(confirmed=True, won=True).lesson
    assert won is not None
    assert (won.steps, won.speedup, won.confirmed, won.verdict) == ((LOOP,), 2.0, True, "faster")
    nothing = tried(confirmed=True, steps=(), speedup=1.0).lesson
    assert nothing is not None
    assert (nothing.steps, nothing.verdict) == ((), "correct")


def test_a_trial_is_plain_json() -> None:
    line = tried().model_dump_json()
    assert Tried.model_validate_json(line) == tried()
    assert json.loads(line)["steps"][0]["parameters"]["streaming"] is False
