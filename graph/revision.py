"""Which commit of Kernelwright does the work, where it is run from a checkout."""

import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# A slow disk costs the report a line, not the run its time.
PATIENCE_S = 5


@cache
def revision() -> str | None:
    """The commit, e.g. `3a0c5b0e41d2`, and whether files differ from it; None without git."""
    # An installed package may lie inside somebody else's repository.
    if not (ROOT / ".git").exists():
        return None
    commit = _git("rev-parse", "--short=12", "HEAD")
    if not commit:
        return None
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return f"{commit}, with changes" if changed else commit


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ("git", "-C", str(ROOT), *arguments),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
