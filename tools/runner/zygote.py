"""The zygote: a jailed process that has torch loaded and forks one runner per request.

It never runs a kernel and never starts a thread: OpenMP's pool and CUDA do not survive a fork, so
neither may exist before one. It ends when the judge's end of the channel closes, and all its
descendants end with it.
"""

import contextlib
import ctypes
import gc
import importlib
import os
import signal
import socket
import sys
from typing import NoReturn

from tools.elementary import resolve
from tools.reference import seed_generators
from tools.runner import child, confine, enclose
from tools.runner.channel import Channel, ChannelClosed

# glibc's DEFAULT_MMAP_THRESHOLD_MAX on 64-bit machines, and room for what it adds to a request.
LARGEST_THRESHOLD, MALLOC_HEADER = 32 << 20, 8192


def main(descriptor: int) -> NoReturn:
    """Serve fork requests until the judge is gone."""
    enclose.die_with_parent()
    channel = Channel(socket.socket(fileno=descriptor))
    # Monitors are not waited for: the kernel reaps them.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _settle_allocator()
    # A kernel is not to tell from the arguments or the path of a file where it is being run.
    sys.argv[:] = [""]
    sys.orig_argv[:] = [sys.executable]
    # It imports NumPy's generators, which would cost every runner 15 ms; what a candidate's loader
    # of C++ imports would cost 4 ms more.
    seed_generators(0)
    resolve()
    importlib.import_module("tools.backends.cpp.loader")
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


def _settle_allocator() -> None:
    """Bring glibc's malloc to the state that it has in any process which ever freed a large tensor.

    Its thresholds grow with what is freed, up to 32 MiB. Until they have, it is chance whether the
    memory of an op's result is kept or given back and faulted in again by the next call: the same
    kernel took 0.2 ms in one process and 0.7 ms in another.
    """
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.free(libc.malloc(LARGEST_THRESHOLD - MALLOC_HEADER))


def _monitor(request: dict[str, object], descriptors: list[int]) -> None:
    """Fork the runner into its own namespaces; when it ends, end what it left, and tell how."""
    enclose.die_with_parent()
    enclose.adopt_orphans()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    own_namespaces = bool(request["namespaces"]) and confine.enter_namespaces()
    runner = os.fork()
    if runner == 0:
        child.main(request, descriptors, own_namespaces)
    status = os.waitpid(runner, 0)[1]
    # Without a process namespace, what a dead runner left is handed to the monitor.
    enclose.end_children()
    code = os.waitstatus_to_exitcode(status)
    how = f"exit status {code}" if code >= 0 else f"signal {-code} ({signal.strsignal(-code)})"
    # Where the judge ended it, nobody listens any more.
    with contextlib.suppress(ChannelClosed):
        Channel(socket.socket(fileno=descriptors[0])).send({"ended": how})
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
