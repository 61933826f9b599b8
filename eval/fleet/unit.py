"""One problem on a machine of a fleet: `python -m eval.fleet.unit`, a parcel in, an answer out.

A process of its own, since `eval.process` takes all children that are new for the problem's. It
ends, with all it started, when its standard input does: the Ray worker that holds the other end may
be killed, or its whole node, and what was left behind would disturb whoever times next. Ray kills a
dying worker's children as well, at once, and them alone. So the one that works is a child's child.
"""

import os
import re
import signal
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import psutil

from eval.fleet.parcel import Order, unwrap, wrap_answer
from eval.one import folder_of, run_problem
from eval.process import free_memory, held_by
from eval.rows import BAD_INPUT, INTERRUPTED
from eval.surroundings import LIBRARY, endings_interrupt
from knowledge.errors import BadInput
from tools.judge.digest import judge_digest
from tools.judge.turns import VARIABLE

MODULE = "eval.fleet.unit"


def work(parcel: bytes, home: Path) -> bytes:
    """The answer to a parcel, worked out in a folder of its own."""
    order, problem, arrangement = unwrap(parcel, home)
    if order.judge != judge_digest():
        # No answer: the problem is tried elsewhere, and such a machine is given up.
        told = "has another version of Kernelwright: its judge is not the same."
        raise BadInput("this machine", told, "Install the same version on every machine.")
    os.environ.update(_surroundings(order))
    if arrangement.memory_bytes is None:
        # Of what is shared out, neighbours may hold their parts already.
        held = held_by(others_at_work()) if order.beside > 1 else 0
        share = free_memory(held) // order.beside
        arrangement = replace(arrangement, memory_bytes=share)
    row = run_problem(problem, arrangement, arrangement.execute())
    return wrap_answer(row, folder_of(problem, arrangement.out))


def others_at_work() -> set[psutil.Process]:
    """The processes of other problems that this machine works on."""
    me = psutil.Process()
    own = {me, *me.parents()}
    found: set[psutil.Process] = set()
    for one in psutil.process_iter():
        with suppress(psutil.Error):
            if one not in own and MODULE in one.cmdline():
                found |= {one, *one.children(recursive=True)}
    return found - own


def _surroundings(order: Order) -> dict[str, str]:
    """Variables that the problem's processes inherit."""
    given = {}
    common = Path(tempfile.gettempdir()) / f"kernelwright-{os.getuid()}"
    if not order.memory:
        # Pages only: they are indexed once on each machine. A problem keeps nothing in there.
        given[LIBRARY] = str(common / "library")
    if order.beside > 1:
        # Ray says which GPU a worker has been given.
        device = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        own = re.sub(r"[^\w.-]+", "-", f"{order.lane}-{device}").strip("-")
        given[VARIABLE] = str(common / "turns" / own)
    return given


def main() -> int:
    """Read a parcel with its length before it, and write the answer."""
    length = int(sys.stdin.buffer.readline())
    parcel = sys.stdin.buffer.read(length)
    threading.Thread(target=_end_with, args=(sys.stdin.buffer,), daemon=True).start()
    try:
        with endings_interrupt(), tempfile.TemporaryDirectory(prefix="kernelwright-") as home:
            answer = work(parcel, Path(home).resolve())
    except KeyboardInterrupt:
        return INTERRUPTED
    except BadInput as error:
        sys.stderr.write(f"{error}\n")
        return BAD_INPUT
    sys.stdout.buffer.write(answer)
    sys.stdout.buffer.flush()
    return 0


def _end_with(stream: BinaryIO) -> None:
    while stream.read(1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    if working := os.fork():
        ended = os.waitstatus_to_exitcode(os.waitpid(working, 0)[1])
        os._exit(ended if ended >= 0 else 128 - ended)
    code = main()
    sys.stderr.flush()
    # Not by exit: the thread that waits for the end of the input would hold its lock.
    os._exit(code)
