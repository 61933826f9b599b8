"""Messages between the judge and what it starts: one JSON object a packet, with file descriptors.

A packet socket keeps message borders, so that a torn or padded write by the other side is one bad
packet and never shifts the next. Nothing is ever unpickled.
"""

import json
import os
import select
import socket
import struct
import time
from typing import Any

PACKET_LIMIT = 160_000
CREDENTIALS = struct.Struct("3i")
DESCRIPTORS = 8


class ChannelClosed(Exception):
    """The other side is gone."""


class ChannelTimeout(Exception):
    """The other side said nothing in time."""


class ChannelGarbled(Exception):
    """The other side sent something that is not a message."""


class Channel:
    """One end of a packet socket.

    Args:
        end: a connected `AF_UNIX`, `SOCK_SEQPACKET` socket; the channel owns it from now on.
    """

    def __init__(self, end: socket.socket) -> None:
        self.socket = end
        self._poll = select.poll()
        self._poll.register(end.fileno(), select.POLLIN)
        self._watched: int | None = None

    def watch(self, pidfd: int) -> None:
        """Also wake when this process ends: its children may keep the socket open after it."""
        self._watched = pidfd
        self._poll.register(pidfd, select.POLLIN)

    def unwatch(self) -> None:
        """Wake for messages alone again."""
        if self._watched is not None:
            self._poll.unregister(self._watched)
            self._watched = None

    def send(self, message: dict[str, Any], descriptors: tuple[int, ...] = ()) -> None:
        """Send one message.

        Raises:
            ChannelClosed: nobody listens any more.
            ValueError: the message is larger than a packet may be, which is a bug.
        """
        data = json.dumps(message).encode()
        if len(data) > PACKET_LIMIT:
            raise ValueError(f"a message of {len(data)} bytes is larger than a packet")
        try:
            socket.send_fds(self.socket, [data], descriptors)
        except OSError as error:
            raise ChannelClosed(str(error)) from error

    def receive(self, timeout_s: float | None = None) -> dict[str, Any]:
        """The next message; descriptors that came with it are closed.

        Raises:
            ChannelClosed, ChannelTimeout, ChannelGarbled: see their classes.
        """
        message, descriptors, _ = self.receive_all(timeout_s)
        _close(descriptors)
        return message

    def receive_all(
        self, timeout_s: float | None = None
    ) -> tuple[dict[str, Any], list[int], int | None]:
        """The next message, the descriptors that came with it, and the sender's process id.

        The id is the kernel's word, in the receiver's own numbering; None unless the socket has
        `SO_PASSCRED` set.
        """
        self._wait(timeout_s)
        space = socket.CMSG_SPACE(DESCRIPTORS * 4) + socket.CMSG_SPACE(CREDENTIALS.size)
        try:
            data, ancillary, flags, _ = self.socket.recvmsg(
                PACKET_LIMIT, space, socket.MSG_CMSG_CLOEXEC
            )
        except OSError as error:
            raise ChannelClosed(str(error)) from error
        descriptors, sender = _unpack(ancillary)
        if not data:
            _close(descriptors)
            raise ChannelClosed("end of file")
        try:
            message = None if flags & socket.MSG_TRUNC else json.loads(data)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            _close(descriptors)
            raise ChannelGarbled(f"{len(data)} bytes that are not a message")
        return message, descriptors, sender

    def _wait(self, timeout_s: float | None) -> None:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1e3
            ready = dict(self._poll.poll(left))
            if self.socket.fileno() in ready:
                return
            if self._watched is not None and self._watched in ready:
                raise ChannelClosed("the process ended")
            if deadline is not None and time.monotonic() >= deadline:
                raise ChannelTimeout

    def close(self) -> None:
        """Close the socket; twice is fine."""
        self.socket.close()


def _unpack(ancillary: list[tuple[int, int, bytes]]) -> tuple[list[int], int | None]:
    descriptors: list[int] = []
    sender: int | None = None
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            count = len(data) // 4
            descriptors.extend(struct.unpack(f"{count}i", data[: count * 4]))
        elif level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            sender = CREDENTIALS.unpack(data[: CREDENTIALS.size])[0]
    return descriptors, sender


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends, neither of which survives an exec unless it is passed on purpose."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
