"""One zygote per kind of jail, and a way to run a hostile program in a runner of it."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tools.judge.runners import Runner
from tools.judge.zygote import Zygote
from tools.runner.jail import jail_named

KINDS = ("bubblewrap", "unshare", "rlimits")
MEMORY = 2 << 30
SECRET = "sk-not-for-you"
PRELUDE = """
import ctypes, errno, json, os, resource, signal, socket, subprocess, sys, time
import torch
libc = ctypes.CDLL(None, use_errno=True)

def told(number):
    return errno.errorcode.get(number, str(number))

def tried(act):
    try:
        return act()
    except OSError as error:
        return told(error.errno)
    except BaseException as error:
        return type(error).__name__

def called(done):
    return done if done >= 0 else told(ctypes.get_errno())

def say(result):
    print("RESULT " + json.dumps(result), flush=True)

class ModelNew(torch.nn.Module):
    pass
"""


class Cell:
    """A zygote in one kind of jail.

    `in_force` is what its runners claim, and so what the tests hold them to.
    """

    def __init__(self, kind: str, zygote: Zygote) -> None:
        self.kind = kind
        self.zygote = zygote
        runner = zygote.fork(MEMORY, {})
        self.in_force = set(runner.in_force)
        runner.close()

    def needs(self, *claims: str) -> None:
        """Skip the test where none of these is in force, and so none is claimed."""
        if not self.in_force & set(claims):
            pytest.skip(f"{self.kind} claims none of this here: {', '.join(claims)}")

    @contextlib.contextmanager
    def runner(self) -> Iterator[Runner]:
        """A runner of its own, closed in any case."""
        runner = self.fork()
        try:
            yield runner
        finally:
            runner.close()

    def fork(self) -> Runner:
        return self.zygote.fork(MEMORY, {})

    def load(self, runner: Runner, code: str, timeout_s: float = 60) -> Any:
        """Have a runner load a program; what it said last."""
        path = runner.folder / "kernel.py"
        path.write_text(PRELUDE + code)
        message = {
            "op": "load", "path": str(path), "name": "ModelNew", "seed": 1, "compile": False,
            "search": [], "layouts": [], "arguments": [[], {"dict": []}],
        }  # fmt: skip
        runner.ask(message, timeout_s)
        return said(runner)

    def run(self, code: str) -> Any:
        """Load a program in a runner of its own."""
        with self.runner() as runner:
            return self.load(runner, code)


def said(runner: Runner) -> Any:
    lines = [line for line in runner.log().splitlines() if line.startswith("RESULT ")]
    return json.loads(lines[-1].removeprefix("RESULT ")) if lines else None


@pytest.fixture(scope="session")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Cell]]:
    made: dict[str, Cell] = {}

    def cell_of(kind: str) -> Cell:
        jail = jail_named(kind)
        if jail is None:
            pytest.skip(f"{kind} does not work on this machine for this user")
        if kind not in made:
            made[kind] = Cell(kind, Zygote(jail, tmp_path_factory.mktemp(kind), ahead=False))
        return made[kind]

    yield cell_of
    for cell in made.values():
        cell.zygote.close()


@pytest.fixture(params=KINDS)
def cell(request: pytest.FixtureRequest, cells: Callable[[str], Cell]) -> Cell:
    return cells(request.param)


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process of this user's with a key in its environment, which has nothing to do with it."""
    command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    process = subprocess.Popen(
        command, env={**os.environ, "API_KEY": SECRET}, stdin=subprocess.PIPE
    )
    yield process
    process.kill()
    process.communicate()
