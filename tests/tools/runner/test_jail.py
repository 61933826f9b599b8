import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from knowledge.errors import BadInput
from tools.runner.jail import (
    CHOICE,
    LIMITS_ONLY,
    PROJECT,
    jail_named,
    scrubbed_environment,
    strongest_jail,
)

isolated = pytest.mark.skipif(
    strongest_jail() is LIMITS_ONLY, reason="this machine allows no namespaces"
)


def run_inside(code: str, folder: Path, *limits: str) -> subprocess.CompletedProcess[str]:
    command = strongest_jail().command([sys.executable, "-c", code], [folder], list(limits))
    environment = scrubbed_environment(folder)
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@isolated
def test_only_the_given_folder_can_be_written(tmp_path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    done = run_inside("open('a', 'w').write('b')", inside)
    assert done.returncode == 0, done.stderr
    assert (inside / "a").read_text() == "b"
    for place in (outside / "a", PROJECT / "a"):
        assert "Read-only file system" in run_inside(f"open({str(place)!r}, 'w')", inside).stderr


@isolated
def test_there_is_no_network(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = f"import socket; socket.create_connection({server.getsockname()!r}, 2)"
        said = run_inside(code, tmp_path).stderr
    assert "unreachable" in said or "refused" in said


@isolated
def test_no_process_outside_is_seen(tmp_path):
    code = "import os; print(sum(name.isdigit() for name in os.listdir('/proc')))"
    assert int(run_inside(code, tmp_path).stdout) <= 3


def test_no_key_enters(tmp_path, monkeypatch):
    for name in ("OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "HTTPS_PROXY", "SSH_AUTH_SOCK"):
        monkeypatch.setenv(name, "secret")
    done = run_inside("import os; print(dict(os.environ))", tmp_path)
    assert "PATH" in done.stdout
    assert "secret" not in done.stdout


def test_memory_is_capped(tmp_path):
    done = run_inside("bytearray(1 << 30)", tmp_path, "--memory", str(1 << 29))
    assert "MemoryError" in done.stderr


def test_huge_pages_are_asked_for_only_where_the_task_says_so(tmp_path):
    assert "GLIBC_TUNABLES" not in scrubbed_environment(tmp_path)
    assert "hugetlb=1" in scrubbed_environment(tmp_path, huge_pages=True)["GLIBC_TUNABLES"]
    assert os.environ.get("GLIBC_TUNABLES") is None


@pytest.mark.parametrize("kind", ["bubblewrap", "unshare", "rlimits"])
def test_what_a_compiler_starts_has_no_privilege(kind, tmp_path):
    jail = jail_named(kind)
    if jail is None:
        pytest.skip(f"{kind} does not work on this machine for this user")
    tmp_path.chmod(0o777)
    done = subprocess.run(
        jail.compiling(["sh", "-c", "cat /proc/self/status; touch made"], tmp_path, []),
        cwd=tmp_path, env=scrubbed_environment(tmp_path), capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    status = dict(line.split(":", 1) for line in done.stdout.splitlines())
    assert status["NoNewPrivs"].strip() == "1"
    # The right to read every file is left only where nothing else would let it find its folder.
    assert int(status["CapEff"], 16) in ((0,) if jail.mounts else (0, 4))
    assert (tmp_path / "made").exists()


def test_the_user_chooses_a_jail_and_is_told_in_a_line_where_it_is_unknown(monkeypatch):
    monkeypatch.setenv(CHOICE, "rlimits")
    assert strongest_jail.__wrapped__() is LIMITS_ONLY
    monkeypatch.setenv(CHOICE, "chains")
    with pytest.raises(BadInput, match="Known: bubblewrap, unshare, rlimits"):
        strongest_jail.__wrapped__()
