"""The commit that a report names is the one that did the work, changes and all."""

import re
import subprocess
from pathlib import Path

import pytest

from graph import revision as revisions
from graph.report.reproduce import origins
from tests.graph import builders


def git(folder: Path, *arguments: str) -> None:
    author = ("-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run(("git", "-C", str(folder), *author, *arguments), check=True, capture_output=True)


def test_a_checkout_names_its_commit_and_whether_files_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init")
    (tmp_path / "file").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "one")
    monkeypatch.setattr(revisions, "ROOT", tmp_path)
    commit = revisions.revision.__wrapped__()
    assert commit is not None
    assert re.fullmatch(r"[0-9a-f]{12}", commit)
    (tmp_path / "file").write_text("2")
    assert revisions.revision.__wrapped__() == f"{commit}, with changes"


def test_an_installed_package_inside_another_repository_has_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init")
    (tmp_path / "site-packages").mkdir()
    monkeypatch.setattr(revisions, "ROOT", tmp_path / "site-packages")
    assert revisions.revision.__wrapped__() is None


def test_a_report_names_what_has_to_be_the_same() -> None:
    record = builders.a_win()
    known = record.model_copy(update={"versions": {**record.versions, "commit": "3a0c5b0e41d2"}})
    named = dict(origins(known))
    assert named["Commit"] == "3a0c5b0e41d2"
    assert named["Versions"] == "kernelwright 0.1.0, torch 2.13.0, g++ 12.2.0"
    assert named["Kernel"] == f"sha256 {record.trial(6).candidate.digest}"
    assert named["Seeds"].startswith("beam, seed 0.")
    assert dict(origins(record))["Commit"].startswith("not known")
