"""`python -m knowledge.index`: a summary, clear lines, exit codes."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from knowledge.index import app


@pytest.fixture(autouse=True)
def own_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNELWRIGHT_LIBRARY", str(tmp_path / "library"))


def test_a_users_folder_is_indexed_and_summed_up(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a.md").write_text("zebra crossing")
    (tmp_path / "notes/b.txt").write_bytes(b"\xff\x00")
    result = CliRunner().invoke(app, [str(tmp_path / "notes")])
    assert result.exit_code == 0
    assert "1 could not be read" in result.stdout
    assert "passages" in result.stdout
    assert "b.txt: not UTF-8 text" in result.stderr


def test_a_missing_path_is_one_line_and_exit_2(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [str(tmp_path / "nowhere")])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "does not exist" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--drop", ""), "needs to know what"),
        (("--drop", "x", "notes"), "stands alone"),
        (("~nosuchuser/x",), "is no path"),
        (("x" * 300,), "cannot be read"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(arguments: tuple[str, ...], told: str) -> None:
    result = CliRunner().invoke(app, list(arguments))
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert told in result.stderr


def test_a_file_that_was_named_and_can_not_be_read_is_exit_1(tmp_path: Path) -> None:
    (tmp_path / "a.docx").write_bytes(b"PK")
    result = CliRunner().invoke(app, [str(tmp_path / "a.docx")])
    assert result.exit_code == 1
    assert "a.docx" in result.stderr


def test_the_module_runs_as_a_command(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "knowledge.index"], capture_output=True, text=True, check=True
    )
    assert "read" in told.stdout
    assert str(tmp_path / "library") in told.stdout
    assert told.stderr == ""
