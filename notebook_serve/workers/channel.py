"""Messages between two processes: each is one pickle, with its large arrays beside it."""

from __future__ import annotations

import socket
import struct
from collections import deque
from contextlib import suppress
from itertools import islice
from typing import Any

from .pickling import dumps, loads

#: bytes that the first read asks for, so that a small message takes one call. Each call releases
#: the GIL, and a busy cell does not give it back soon.
READ_SIZE = 65_536
#: pieces of memory that one call sends, at most
MAX_PIECES = 512


class Channel:
    """One end of a pair of connected sockets. One thread may send while another receives."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._read = memoryview(bytearray(READ_SIZE))
        #: the part of `_read` that has been read from the socket and not been used
        self._unused = self._read[:0]

    def send(self, value: Any, **options: Any) -> None:
        """Send `value`, with `options` of `dumps`. Raises `OSError` if the other end is closed."""
        data, buffers = dumps(value, **options)
        pieces = [data, *buffers]
        head = struct.pack(f"!{1 + len(pieces)}Q", len(pieces), *(each.nbytes for each in pieces))
        left = deque([memoryview(head), *pieces])
        while left:
            sent = self._socket.sendmsg(list(islice(left, MAX_PIECES)))
            while left and sent >= left[0].nbytes:
                sent -= left.popleft().nbytes
            if sent:
                left[0] = left[0].cast("B")[sent:]

    def receive(self) -> Any:
        """Wait for the next message. Raises `EOFError` or `OSError` if there can be none."""
        (count,) = struct.unpack("!Q", self._read_exactly(8))
        sizes = struct.unpack(f"!{count}Q", self._read_exactly(8 * count))
        data, *buffers = map(self._read_exactly, sizes)
        return loads(data, buffers)

    def shut_down(self) -> None:
        """End the connection in both directions, and wake a thread that waits for a message."""
        with suppress(OSError):  # it has ended already
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket. No thread may use it any more."""
        self._socket.close()

    def _read_exactly(self, size: int) -> bytearray:
        """Return the next `size` bytes."""
        taken = bytearray(size)
        have = min(size, len(self._unused))
        taken[:have] = self._unused[:have]
        self._unused = self._unused[have:]
        with memoryview(taken) as view:
            while have < size:
                missing = size - have
                if missing >= READ_SIZE:
                    have += self._receive_into(view[have:], socket.MSG_WAITALL)
                    continue
                got = self._receive_into(self._read)
                used = min(got, missing)
                view[have : have + used] = self._read[:used]
                self._unused = self._read[used:got]
                have += used
        return taken

    def _receive_into(self, memory: memoryview, flags: int = 0) -> int:
        got = self._socket.recv_into(memory, flags=flags)
        if not got:
            raise EOFError
        return got
