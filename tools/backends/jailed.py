"""Runs a module on a job: another process, in the jail that compilers run in, with a deadline."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from knowledge.opgraph import Frozen
from tools.runner.jail import scrubbed_environment, strongest_jail

Answer = TypeVar("Answer", bound=Frozen)

# torch and LLVM reserve far more address space than they use.
MEMORY = 32 << 30
LOG_LIMIT = 2000


def ask(
    command: Sequence[str],
    job: Mapping[str, Any],
    seconds: float,
    environment: Mapping[str, str] | None = None,
    memory: int = MEMORY,
) -> dict[str, Any] | str:
    """The answer of `python -m` this command to a JSON object, or why there is none.

    The reason is a clause on the process, with its last words where it ended by an error.
    """
    with tempfile.TemporaryDirectory(prefix="jailed-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        # The jailed process may run as another user.
        folder.chmod(0o777)
        limits = ["--memory", str(memory), "--seconds", str(int(seconds) + 1)]
        line = strongest_jail().compiling([sys.executable, "-m", *command], folder, limits)
        try:
            done = subprocess.run(
                line, cwd=folder, env={**scrubbed_environment(folder), **(environment or {})},
                input=json.dumps(job), capture_output=True, text=True, errors="replace",
                timeout=seconds, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"it was ended after {seconds:g} s"
    try:
        found = json.loads(done.stdout)
    except ValueError:
        tail = done.stderr.strip()[-LOG_LIMIT:]
        return f"its process ended with exit status {done.returncode}: {tail}"
    return found if isinstance(found, dict) else "its answer is no object"


def ask_each(
    command: Sequence[str],
    job: Mapping[str, Any],
    form: type[Answer],
    wanted: int,
    seconds: float,
    environment: Mapping[str, str],
) -> list[Answer] | str:
    """The `answers` to a job, so many and each of that form, or why there are none, as `ask`."""
    found = ask(command, job, seconds, environment)
    if isinstance(found, str):
        return found
    answers = found.get("answers")
    if not isinstance(answers, list) or len(answers) != wanted:
        return "it did not answer for every candidate"
    try:
        return [form.model_validate(one) for one in answers]
    except ValidationError:
        return "its answer has another form"
