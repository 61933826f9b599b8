"""What an evaluation's figures hang on, as found here: versions, the code's commit, the judge."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
from pydantic import Field

from knowledge.opgraph import Frozen
from tools.judge.digest import judge_digest

PROJECT = Path(__file__).parents[1]
GIT_SECONDS = 10.0
_PACKAGES = ("kernelwright", "torch", "triton", "numpy", "scipy")


class Provenance(Frozen):
    """Where results come from; empty texts are what could not be found out, or older results."""

    commit: str = Field("", description="of Kernelwright; `-dirty` where files were changed since")
    judge: str = Field("", description="SHA-256 over the text of everything that decides")
    host: str = Field("", description="processor, cores and memory")
    command: tuple[str, ...] = ()


def provenance(command: tuple[str, ...]) -> Provenance:
    """Of an evaluation that starts here and now."""
    return Provenance(commit=_commit(), judge=judge_digest(), host=_host(), command=command)


def versions() -> dict[str, str]:
    """What the figures depend on, as installed here."""
    found = {"python": platform.python_version(), "system": platform.platform(terse=True)}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue  # run from a checkout, or a machine without that backend
    return found


def _commit() -> str:
    """The checkout's commit; empty where this is no checkout."""
    try:
        said = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=PROJECT, capture_output=True, text=True, timeout=GIT_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    # A checkout of something else may lie around an installed package.
    inside = (PROJECT / ".git").exists()
    return said.stdout.strip() if said.returncode == 0 and inside else ""


def _host() -> str:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = psutil.virtual_memory().total / 2**30
    return f"{_processor()}, {cores} cores, {memory:.0f} GiB"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()
