"""Messages over a pair of sockets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from notebook_serve.workers.channel import READ_SIZE, Channel
from notebook_serve.workers.pickling import SMALL


@pytest.fixture
def channels() -> Iterator[tuple[Channel, Channel]]:
    """Two connected channels."""
    ours, theirs = map(Channel, socket.socketpair())
    yield ours, theirs
    ours.close()
    theirs.close()


def transfer(channels: tuple[Channel, Channel], *messages: Any) -> list[Any]:
    """Send messages, and return what arrives at the other end."""

    def send() -> None:
        for message in messages:
            channels[0].send(message)

    thread = threading.Thread(target=send)
    thread.start()
    received = [channels[1].receive() for _ in messages]
    thread.join()
    return received


SIZES = [0, 1, SMALL - 1, SMALL, READ_SIZE - 100, READ_SIZE, READ_SIZE + 1, 3 * READ_SIZE + 7]


def test_messages_arrive_whole_and_in_order(channels: tuple[Channel, Channel]) -> None:
    """Send messages of all sizes in a row, one of them with many arrays."""
    messages: list[Any] = [np.arange(size, dtype=np.uint8) for size in (*SIZES, 5_000_000)]
    messages += [[np.full(SMALL, n, np.uint8) for n in range(40)], {"a": b"x" * 200_000}, "last"]

    for expected, found in zip(messages, transfer(channels, *messages), strict=True):
        if isinstance(expected, np.ndarray):
            assert np.array_equal(expected, found)
            found[...] = 0  # the receiver may write to it
        elif isinstance(expected, list):
            assert [int(array[-1]) for array in found] == list(range(40))
        else:
            assert expected == found


def test_a_message_with_more_arrays_than_one_call_sends(channels: tuple[Channel, Channel]) -> None:
    """Send 600 arrays beside one pickle; a call of the system takes fewer pieces."""
    arrays = [np.full(SMALL, n % 256, np.uint8) for n in range(600)]

    (found,) = transfer(channels, arrays)

    assert [int(array[0]) for array in found] == [n % 256 for n in range(600)]


def test_shutting_down_ends_both_directions(channels: tuple[Channel, Channel]) -> None:
    """After a shutdown, also a repeated one, the other end can neither receive nor send."""
    channels[0].shut_down()
    channels[0].shut_down()
    with pytest.raises(EOFError):
        channels[1].receive()
    with pytest.raises(OSError, match="Broken pipe"):
        channels[1].send("x")


def test_shutting_down_wakes_a_thread_that_receives(channels: tuple[Channel, Channel]) -> None:
    """A thread that waits for a message gets an `EOFError`."""
    raised: list[BaseException] = []

    def receive() -> None:
        try:
            channels[0].receive()
        except EOFError as error:
            raised.append(error)

    thread = threading.Thread(target=receive)
    thread.start()
    channels[0].shut_down()
    thread.join(60)

    assert [type(error) for error in raised] == [EOFError]


def test_a_message_that_is_cut_short_is_an_end(channels: tuple[Channel, Channel]) -> None:
    """If the other end closes in the middle of a message, no part of it is returned."""
    ours, theirs = socket.socketpair()
    with ours:
        ours.sendall(b"\0\0\0\0\0\0\0\1")  # one piece, without its size
    reader = Channel(theirs)

    with pytest.raises(EOFError):
        reader.receive()
    reader.close()


def test_a_value_that_cannot_be_pickled_sends_nothing(channels: tuple[Channel, Channel]) -> None:
    """The next message arrives as if the failed one had not been tried."""
    with pytest.raises(TypeError, match="cannot pickle"):
        channels[0].send(threading.Lock())

    assert transfer(channels, "next") == ["next"]
