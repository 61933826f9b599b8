"""Turns at a machine: who times has it alone, among threads and among processes."""

import subprocess
import sys
import threading
import time
from pathlib import Path

from tools.judge.turns import Turns

ROOT = Path(__file__).parents[3]


def test_who_times_has_the_machine_alone_and_who_judges_shares_it(tmp_path: Path) -> None:
    turns, at_work, seen, together = Turns(tmp_path), [0, 0], [], threading.Barrier(3, timeout=60)

    def judge() -> None:
        with turns.judging():
            at_work[0] += 1
            together.wait()
            seen.append(at_work[1])
            time.sleep(0.02)
            at_work[0] -= 1

    def measure() -> None:
        with turns.timing():
            at_work[1] += 1
            time.sleep(0.02)
            seen.append(at_work[0] + at_work[1] - 1)
            at_work[1] -= 1

    judging = [threading.Thread(target=judge) for _ in range(2)]
    timing = [threading.Thread(target=measure) for _ in range(2)]
    for thread in judging:
        thread.start()
    # Both are in, and still at work when the others come.
    together.wait()
    for thread in timing:
        thread.start()
    for thread in judging + timing:
        thread.join(60)
    assert seen == [0, 0, 0, 0]


def test_a_turn_holds_for_other_processes_and_goes_with_its_own(tmp_path: Path) -> None:
    held = (
        "import sys, time; from pathlib import Path; from tools.judge.turns import Turns\n"
        "with Turns(Path(sys.argv[1])).timing():\n    print('mine', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", held, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT
    )
    assert other.stdout is not None
    other.stdout.readline()
    got = threading.Event()

    def wait() -> None:
        with Turns(tmp_path).judging():
            got.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert not got.wait(0.3)
    other.kill()
    other.wait()
    assert got.wait(60)
    waiting.join()
    other.stdout.close()
