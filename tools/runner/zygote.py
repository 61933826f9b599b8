"""The zygote: a jailed process that has torch loaded and forks one runner per request.

It never runs a kernel and never starts a thread: OpenMP's pool and CUDA do not survive a fork, so
neither may exist before one. It ends when the judge's end of the channel closes, and all its
descendants end with it.
"""

import contextlib
import gc
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import NoReturn

from tools.runner import child, confine
from tools.runner.channel import Channel, ChannelClosed

SWEEPS = 100


def main(descriptor: int) -> NoReturn:
    """Serve fork requests until the judge is gone."""
    confine.die_with_parent()
    channel = Channel(socket.socket(fileno=descriptor))
    # Monitors are not waited for: the kernel reaps them.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What is frozen here is neither scanned nor copied by any runner's own collections.
    gc.collect()
    gc.freeze()
    channel.send({"ready": True})
    while True:
        try:
            request, descriptors, _ = channel.receive_all()
        except ChannelClosed:
            # Taking torch down in good order takes a second, and there is nothing to save.
            os._exit(0)
        if os.fork() == 0:
            channel.close()
            _monitor(request, descriptors)
        for held in descriptors:
            os.close(held)


def _monitor(request: dict[str, object], descriptors: list[int]) -> None:
    """Fork the runner into its own namespaces; when it ends, end what it left, and tell how."""
    confine.die_with_parent()
    confine.adopt_orphans()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    own_namespaces = confine.enter_namespaces()
    runner = os.fork()
    if runner == 0:
        child.main(request, descriptors, own_namespaces)
    status = os.waitpid(runner, 0)[1]
    _end_orphans()
    code = os.waitstatus_to_exitcode(status)
    how = f"exit status {code}" if code >= 0 else f"signal {-code} ({signal.strsignal(-code)})"
    # Where the judge ended it, nobody listens any more.
    with contextlib.suppress(ChannelClosed):
        Channel(socket.socket(fileno=descriptors[0])).send({"ended": how})
    os._exit(0)


def _end_orphans() -> None:
    """End what a dead runner left: without a process namespace it is handed to the monitor."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    for _ in range(SWEEPS):
        try:
            found = [int(pid) for pid in children.read_text().split()]
        except OSError:
            return
        for pid in found:
            os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.01)


if __name__ == "__main__":
    main(int(sys.argv[1]))
