"""What an evaluation sees to: its folder, its problems' library, and how it is stopped."""

import fcntl
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from eval.problem import Problem
from graph.endings import endings, heeding
from knowledge.errors import BadInput

# Names the folder of the library; problems' processes inherit it.
LIBRARY = "KERNELWRIGHT_LIBRARY"


def without_memory(problems: Sequence[Problem]) -> list[Problem]:
    """The problems, each to be solved as if it were the first.

    A score must not depend on what was run before it: on earlier evaluations, on the order of the
    suite, or on which machine had which part of it.
    """
    return [
        problem._replace(
            task=problem.task.model_copy(
                update={"without": tuple(dict.fromkeys((*problem.task.without, "experience")))}
            )
        )
        for problem in problems
    ]


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep other evaluations out of a folder; the system lets go of it with this process.

    Raises:
        BadInput: another one works in it, or nobody can.
    """
    where = f"--out {folder}"
    try:
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise BadInput(where, f"cannot be written to ({error.strerror}).") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            mend = "Wait for its end, or give another folder."
            raise BadInput(where, "is being worked on by another evaluation.", mend) from None
        yield


@contextmanager
def endings_interrupt() -> Iterator[None]:
    """End as by Ctrl-C, so that the problem at work is stopped with all it started."""

    def end() -> None:
        raise KeyboardInterrupt

    with heeding([one for one in endings() if one != signal.SIGINT], end):
        yield
