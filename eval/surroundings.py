"""What an evaluation sees to around its problems: their library, and how it is stopped."""

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from eval.problem import Problem

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
def sigterm_interrupts() -> Iterator[None]:
    """End as by Ctrl-C, so that the problem at work is stopped with all it started."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    earlier = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)
