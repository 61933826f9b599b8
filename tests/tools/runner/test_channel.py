import os
import socket

import pytest

from tools.runner.channel import Channel, ChannelClosed, ChannelGarbled, ChannelTimeout, pair


@pytest.fixture
def ends():
    one, other = (Channel(end) for end in pair())
    yield one, other
    one.close()
    other.close()


def test_messages_and_descriptors_arrive_whole(ends):
    one, other = ends
    read, write = os.pipe()
    one.send({"a": [1, "x"]}, (read,))
    message, (copy,), _ = other.receive_all(5)
    os.write(write, b"through")
    assert message == {"a": [1, "x"]}
    assert os.read(copy, 10) == b"through"
    for descriptor in (read, write, copy):
        os.close(descriptor)


def test_the_kernel_tells_who_sent_a_message(ends):
    one, other = ends
    other.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    one.send({"pid": 1})
    assert other.receive_all(5)[2] == os.getpid()


def test_silence_ends_at_the_deadline(ends):
    with pytest.raises(ChannelTimeout):
        ends[0].receive(0.01)


@pytest.mark.parametrize("data", [b"{", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_message_is_said_to_be_none(ends, data):
    ends[0].socket.send(data)
    with pytest.raises(ChannelGarbled):
        ends[1].receive(5)


def test_a_closed_end_is_noticed(ends):
    ends[0].close()
    with pytest.raises(ChannelClosed):
        ends[1].receive(5)
