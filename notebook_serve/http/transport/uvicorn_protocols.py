"""uvicorn's HTTP protocols, held to bounds: how large a head may be, and how much is read ahead."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import h11
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol

from .disconnects import DEPARTURE, DisconnectSignal

#: most bytes of a request's head, and of anything else that is neither head nor body
MOST_HEAD = 65_536


class Backpressure(FlowControl):
    """Reads nothing more from a client while requests that it sent ahead wait for their turn.

    uvicorn itself reads on with every body that is asked for: a few requests answered let in
    thousands, and a client that only ever sends could fill the memory.
    """

    def __init__(self, transport: asyncio.Transport, ahead: Callable[[], bool]) -> None:
        super().__init__(transport)
        self._ahead = ahead

    def resume_reading(self) -> None:
        """Read on, unless there is enough to do."""
        if not self._ahead():
            super().resume_reading()


class H11(H11Protocol):
    """uvicorn on h11, which itself bounds a head by ``h11_max_incomplete_event_size``."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin a connection."""
        super().connection_made(transport)
        self.flow = Backpressure(transport, self._ahead)
        self._departure = DisconnectSignal(self.flow.resume_reading)
        self.app_state = {**self.app_state, DEPARTURE: self._departure}

    def connection_lost(self, exc: Exception | None) -> None:
        """End a connection."""
        super().connection_lost(exc)
        self._departure.left()
        # Where the client reset it, uvicorn leaves the timer, and that keeps all of it alive.
        self._unset_keepalive_if_required()

    def on_response_complete(self) -> None:
        """Go on with the next request."""
        super().on_response_complete()
        # Only now what was sent ahead is parsed, and may turn out to be half a request.
        if not self.transport.is_closing():
            self.flow.resume_reading()

    def _ahead(self) -> bool:
        return self.conn.their_state is h11.DONE and bool(self.conn.trailing_data[0])


#: the fastest that is installed
fastest: type[asyncio.Protocol] = H11

try:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
except ImportError:  # the extra `fast` is not installed
    pass
else:

    class HttpTools(HttpToolsProtocol):
        """uvicorn on httptools, which bounds nothing by itself."""

        #: whether the newest bytes completed a head or brought some of a body
        _useful = False
        #: how many came since: of a head, of a chunk's extension, or after the last chunk
        _useless = 0

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            """Begin a connection."""
            super().connection_made(transport)
            self.flow = Backpressure(transport, lambda: bool(self.pipeline))
            self._departure = DisconnectSignal(self.flow.resume_reading)
            self.app_state = {**self.app_state, DEPARTURE: self._departure}

        def connection_lost(self, exc: Exception | None) -> None:
            """End a connection."""
            super().connection_lost(exc)
            self._departure.left()
            # Where the client reset it, uvicorn leaves the timer, and that keeps all of it alive.
            self._unset_keepalive_if_required()

        def data_received(self, data: bytes) -> None:
            """Parse `data`; hang up on a head without an end."""
            self._useful = False
            super().data_received(data)
            self._useless = 0 if self._useful else self._useless + len(data)
            if self._useless <= MOST_HEAD or self.transport.is_closing():
                return
            if self.cycle is None or self.cycle.response_complete:
                self.send_400_response("The head of the request is too large.")
            else:  # in the middle of another answer
                self.transport.close()

        def on_headers_complete(self) -> None:
            """Begin to answer."""
            self._useful = True
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            """Take some of a body."""
            self._useful = True
            super().on_body(body)

    fastest = HttpTools
