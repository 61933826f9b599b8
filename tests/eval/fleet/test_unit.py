"""The process that runs one problem on a machine of a fleet, without any Ray."""

import io
import json
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO

import psutil
import pytest

from eval.fleet import unit
from eval.fleet.parcel import unwrap_answer, wrap
from eval.fleet.unit import others_at_work
from eval.one import Arrangement
from eval.problem import Problem
from eval.process import MEMORY_SHARE, held_by
from eval.rows import ROW, Broken, Row
from tools.judge.digest import judge_digest
from tools.task import parse_task

COMMAND = [sys.executable, "-m", "eval.fleet.unit"]


def parcel(folder: Path, source: str, judge: str = "", beside: int = 1) -> bytes:
    (folder / "op.py").write_text(source)
    task = parse_task({"name": "op", "reference": "op.py", "target": "cpu"}, "t", folder)
    rest = {"beside": beside, "lane": "lane:cpu", "memory": False}
    return wrap(
        Problem(task, number=1), Arrangement(folder / "out"), judge=judge or judge_digest(), **rest
    )


def asked(sent: bytes, said: BinaryIO | None = None) -> subprocess.Popen[bytes]:
    unit = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said)
    assert unit.stdin is not None
    unit.stdin.write(f"{len(sent)}\n".encode() + sent)
    unit.stdin.flush()
    return unit


def test_a_problem_that_breaks_is_a_row_with_its_log(tmp_path: Path) -> None:
    with asked(parcel(tmp_path, "class Model(:\n")) as unit:
        assert unit.stdout is not None
        row = unwrap_answer(unit.stdout.read(), tmp_path / "back")
        assert unit.wait() == 0
    assert isinstance(row, Broken)
    assert row.reason == "bad_input"
    assert "op.py" in row.error
    assert (tmp_path / "back" / "problem.log").is_file()


def test_another_judge_gives_no_answer_so_that_the_problem_goes_elsewhere(tmp_path: Path) -> None:
    sent = parcel(tmp_path, "print('never imported')\n", judge="another")
    with (tmp_path / "said").open("w+b") as said, asked(sent, said) as unit:
        assert unit.stdout is not None
        assert unit.stdout.read() == b""
        assert unit.wait() == 2
        said.seek(0)
        assert b"another version" in said.read()


@pytest.mark.parametrize("killed", [False, True])
def test_it_ends_with_all_it_started_when_whoever_asked_is_gone(
    tmp_path: Path, killed: bool
) -> None:
    mark = tmp_path / "mark"
    source = f"import os, time, pathlib\npathlib.Path({str(mark)!r}).write_text(str(os.getpid()))\n"
    with asked(parcel(tmp_path, f"{source}time.sleep(600)\n")) as unit:
        deadline = time.monotonic() + 60
        while not (mark.exists() and mark.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        child = psutil.Process(int(mark.read_text()))
        assert unit.stdin is not None
        if killed:
            unit.kill()
        unit.stdin.close()
        assert unit.wait(60) != 0
    psutil.wait_procs([child], timeout=60)
    assert not child.is_running()


def test_an_archive_that_reaches_outside_is_refused(tmp_path: Path) -> None:
    held = io.BytesIO()
    row = ROW.dump_python(Broken(name="op", seconds=1, reason="crashed", error="e"), mode="json")
    told = json.dumps({"row": row, "folder": "there"}).encode()
    first = tarfile.TarInfo("row.json")
    first.size = len(told)
    with tarfile.open(fileobj=held, mode="w") as tar:
        tar.addfile(first, io.BytesIO(told))
        tar.addfile(tarfile.TarInfo("folder/../../escaped"))
    with pytest.raises(tarfile.OutsideDestinationError):
        unwrap_answer(held.getvalue(), tmp_path / "deep" / "back")
    assert not list(tmp_path.rglob("escaped"))


def test_what_other_problems_hold_on_this_machine_is_known(tmp_path: Path) -> None:
    source = (
        "import pathlib, time\nheld = bytearray(300 << 20)\n"
        f"pathlib.Path({str(tmp_path / 'mark')!r}).write_text('held')\ntime.sleep(600)\n"
    )
    with asked(parcel(tmp_path, source)) as neighbour:
        deadline = time.monotonic() + 60
        while not (tmp_path / "mark").exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        first = psutil.Process(neighbour.pid)
        ours = {first, *first.children(recursive=True)}
        found = {one for one in others_at_work() if one in ours}
        assert found == ours
        assert 300 << 20 <= held_by(found) < 1 << 30
        assert neighbour.stdin is not None
        neighbour.stdin.close()
        neighbour.wait(60)


def test_a_share_of_the_memory_is_of_all_that_problems_may_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int | None] = []

    def run_problem(_: Problem, arrangement: Arrangement, __: object) -> Row:
        given.append(arrangement.memory_bytes)
        return Broken(name="op", seconds=1.0, reason="crashed", error="e")

    # One neighbour holds 2 GiB of 10, and then nothing.
    free = iter([8 << 30, 10 << 30, 8 << 30])
    held = iter([2 << 30, 0])
    monkeypatch.setattr("knowledge.device.CGROUP", tmp_path)
    monkeypatch.setattr(
        "eval.process.psutil.virtual_memory", lambda: SimpleNamespace(available=next(free))
    )
    monkeypatch.setattr(unit, "held_by", lambda _: next(held))
    monkeypatch.setattr(unit, "run_problem", run_problem)
    monkeypatch.setattr(unit, "_surroundings", lambda _: {})
    for number, beside in enumerate((2, 2, 1)):
        folder = tmp_path / str(number)
        folder.mkdir()
        sent = parcel(folder, "", beside=beside)
        unit.work(sent, folder / "home")
    shares = [int((10 << 30) * MEMORY_SHARE) // 2] * 2
    assert given == [*shares, int((8 << 30) * MEMORY_SHARE)]
