"""uvicorn's HTTP protocols with two limits: the size of a header, and bytes read ahead."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import h11
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol

from .disconnects import DISCONNECT, DisconnectSignal

#: most bytes of a request's header, and of other bytes outside a body
MOST_HEAD = 65_536


class Backpressure(FlowControl):
    """Flow control that stops reading while pipelined requests wait for a previous response.

    uvicorn itself resumes reading for every body that a handler asks for. Then a few responses let
    in thousands of requests, and a client that only sends could fill the memory.
    """

    def __init__(self, transport: asyncio.Transport, pipelined: Callable[[], int]) -> None:
        super().__init__(transport)
        self._pipelined = pipelined

    def resume_reading(self) -> None:
        """Resume reading, unless pipelined requests wait."""
        if not self._pipelined():
            super().resume_reading()


class H11(H11Protocol):
    """uvicorn's protocol on h11, which limits a header by ``h11_max_incomplete_event_size``."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Set up backpressure and the disconnect signal of a connection."""
        super().connection_made(transport)
        self.flow = Backpressure(transport, self._pipelined)
        self._disconnect = DisconnectSignal(self.flow.resume_reading)
        self.app_state = {**self.app_state, DISCONNECT: self._disconnect}

    def connection_lost(self, exc: Exception | None) -> None:
        """Report the disconnect."""
        super().connection_lost(exc)
        self._disconnect.disconnect()
        # After a reset uvicorn leaves the timer, which keeps the connection's objects alive.
        self._unset_keepalive_if_required()

    def on_response_complete(self) -> None:
        """Continue with the next request."""
        super().on_response_complete()
        # Only now the pipelined bytes are parsed, and they may be half a request.
        if not self.transport.is_closing():
            self.flow.resume_reading()

    def _pipelined(self) -> int:
        return len(self.conn.trailing_data[0]) if self.conn.their_state is h11.DONE else 0


#: the fastest protocol that is installed
fastest: type[asyncio.Protocol] = H11

try:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
except ImportError:  # the extra `fast` is not installed
    pass
else:

    class HttpTools(HttpToolsProtocol):
        """uvicorn's protocol on httptools, which limits no header by itself."""

        #: True if the newest bytes completed a header or were part of a body
        _progress = False
        #: bytes since then: of a header, of a chunk's extension, or after the last chunk
        _overhead = 0

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            """Set up backpressure and the disconnect signal of a connection."""
            super().connection_made(transport)
            self.flow = Backpressure(transport, self.pipeline.__len__)
            self._disconnect = DisconnectSignal(self.flow.resume_reading)
            self.app_state = {**self.app_state, DISCONNECT: self._disconnect}

        def connection_lost(self, exc: Exception | None) -> None:
            """Report the disconnect."""
            super().connection_lost(exc)
            self._disconnect.disconnect()
            # After a reset uvicorn leaves the timer, which keeps the connection's objects alive.
            self._unset_keepalive_if_required()

        def data_received(self, data: bytes) -> None:
            """Parse `data`; reject a header above the limit."""
            self._progress = False
            super().data_received(data)
            self._overhead = 0 if self._progress else self._overhead + len(data)
            if self._overhead <= MOST_HEAD or self.transport.is_closing():
                return
            if self.cycle is None or self.cycle.response_complete:
                self.send_400_response("The header of the request is too large.")
            else:  # in the middle of another response
                self.transport.close()

        def on_headers_complete(self) -> None:
            """Start the request; its header is complete."""
            self._progress = True
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            """Pass on a part of a body."""
            self._progress = True
            super().on_body(body)

    fastest = HttpTools
