import os
import subprocess
import sys
from dataclasses import replace

import pytest

from tools.judge.inductor import Furnishing, machine_key
from tools.runner.jail import LIMITS_ONLY, scrubbed_environment, strongest_jail

COMPILE = """
import os, pathlib, torch
from tools.runner.furnish import furnish
furnish(pathlib.Path(os.environ["KERNELWRIGHT_INDUCTOR"]))
x = torch.randn(1000)
assert torch.equal(torch.compile(lambda x: x * 2)(x), x * 2)
"""


@pytest.fixture(scope="module")
def made():
    furnishing = Furnishing(strongest_jail())
    furnishing.start()
    folder = furnishing.folder()
    assert folder is not None
    return folder


def test_a_compilation_builds_nothing_that_was_made_before(made, tmp_path):
    environment = scrubbed_environment(tmp_path) | {"KERNELWRIGHT_INDUCTOR": str(made)}
    subprocess.run([sys.executable, "-c", COMPILE], env=environment, cwd=tmp_path, check=True)
    headers = list(tmp_path.rglob("*.gch"))
    assert headers
    assert all(header.is_symlink() for header in headers)
    ours = {path.name for path in made.rglob("*.so")}
    theirs = {path.name for path in tmp_path.rglob("*.so") if "inductor" in path.parts}
    assert len(ours) >= 1
    assert len(theirs - ours) <= 1  # the op itself


def test_it_belongs_to_this_user_and_nobody_else_may_write_to_it(made):
    assert made.name == machine_key()
    for path in (made, *made.rglob("*")):
        assert path.stat().st_uid == os.geteuid()
        assert not path.stat().st_mode & 0o022


def test_where_it_cannot_be_made_there_is_none_and_nothing_is_left(tmp_path):
    failing = replace(LIMITS_ONLY, prefix=("false",))
    furnishing = Furnishing(failing, tmp_path)
    furnishing.start()
    assert furnishing.folder() is None
    assert list(tmp_path.iterdir()) == []


def test_a_judge_that_ends_early_leaves_nothing_half_made(tmp_path):
    furnishing = Furnishing(strongest_jail(), tmp_path)
    furnishing.start()
    furnishing.close()
    assert furnishing.folder() is None
    assert list(tmp_path.iterdir()) == []
