"""User ids for runners: each is lent to one runner at a time, also when several judges are at work.

The lock is an abstract socket, which the kernel lets go of with the process that holds it.
"""

import itertools
import os
import socket
from collections.abc import Iterator

from tools.runner.enclose import spare_users

NAME = "\0kernelwright-user-{}"


class UserIds:
    """Ids that nobody else has, in turn. None are lent where this process can't become them."""

    def __init__(self) -> None:
        # The last one is the compilers'.
        spare = spare_users()[:-1]
        start = os.getpid() % len(spare) if spare else 0
        self._turn: Iterator[int] = itertools.cycle([*spare[start:], *spare[:start]])
        self._count = len(spare)

    def lend(self) -> tuple[int, socket.socket] | None:
        """An id, and what holds it until it is closed; None where there is none."""
        for user in itertools.islice(self._turn, self._count):
            held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                held.bind(NAME.format(user))
            except OSError:
                held.close()
                continue
            return user, held
        return None
