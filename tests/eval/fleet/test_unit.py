"""The process that runs one problem on a machine of a fleet, without any Ray."""

import io
import json
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import BinaryIO

import psutil
import pytest

from eval.fleet.parcel import unwrap_answer, wrap
from eval.one import Arrangement
from eval.problem import Problem
from eval.rows import ROW, Broken
from tools.judge.digest import judge_digest
from tools.task import parse_task

COMMAND = [sys.executable, "-m", "eval.fleet.unit"]
REST = {"beside": 1, "lane": "lane:cpu", "memory": False}


def parcel(folder: Path, source: str, judge: str = "") -> bytes:
    (folder / "op.py").write_text(source)
    task = parse_task({"name": "op", "reference": "op.py", "target": "cpu"}, "t", folder)
    return wrap(
        Problem(task, number=1), Arrangement(folder / "out"), judge=judge or judge_digest(), **REST
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
    psutil.wait_procs([child], timeout=10)
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
