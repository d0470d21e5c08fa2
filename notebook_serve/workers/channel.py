"""Messages between two processes: one pickle each, large arrays beside it."""

from __future__ import annotations

import socket
import struct
from collections import deque
from contextlib import suppress
from itertools import islice
from typing import Any

from .pickling import dumps, loads

#: bytes that are asked for first: a message that is no larger takes one call to read. Each call
#: gives up the interpreter's lock, which a busy cell does not soon give back.
FIRST = 65_536
#: the most pieces of memory that one call sends
MOST = 512


class Channel:
    """One end of a pair of connected sockets. One thread may send while another receives."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._read = memoryview(bytearray(FIRST))
        #: what of it has been read and not been used
        self._unused = self._read[:0]

    def send(self, value: Any, **how: Any) -> None:
        """Send `value`; `how` are options of `dumps`. Raises `OSError` if nobody is there."""
        data, buffers = dumps(value, **how)
        parts = [data, *buffers]
        head = struct.pack(f"!{1 + len(parts)}Q", len(parts), *(part.nbytes for part in parts))
        left = deque([memoryview(head), *parts])
        while left:
            sent = self._socket.sendmsg(list(islice(left, MOST)))
            while left and sent >= left[0].nbytes:
                sent -= left.popleft().nbytes
            if sent:
                left[0] = left[0].cast("B")[sent:]

    def receive(self) -> Any:
        """Wait for the next message. Raises `EOFError` or `OSError` if none can come any more."""
        (count,) = struct.unpack("!Q", self._take(8))
        sizes = struct.unpack(f"!{count}Q", self._take(8 * count))
        data, *buffers = map(self._take, sizes)
        return loads(data, buffers)

    def shut(self) -> None:
        """Let nobody send or receive any more; who waits for a message is woken."""
        with suppress(OSError):  # it was already
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the socket back; nobody may use it any more."""
        self._socket.close()

    def _take(self, size: int) -> bytearray:
        """The next `size` bytes."""
        taken = bytearray(size)
        have = min(size, len(self._unused))
        taken[:have] = self._unused[:have]
        self._unused = self._unused[have:]
        with memoryview(taken) as view:
            while have < size:
                missing = size - have
                if missing >= FIRST:
                    have += self._more(view[have:], socket.MSG_WAITALL)
                    continue
                got = self._more(self._read)
                used = min(got, missing)
                view[have : have + used] = self._read[:used]
                self._unused = self._read[used:got]
                have += used
        return taken

    def _more(self, into: memoryview, flags: int = 0) -> int:
        got = self._socket.recv_into(into, flags=flags)
        if not got:
            raise EOFError
        return got
