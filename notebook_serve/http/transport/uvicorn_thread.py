"""uvicorn in a thread with its own event loop, started and stopped from any other thread."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from ...errors import StartError
from .uvicorn_protocols import MOST_HEAD, fastest

#: seconds without a request, or without reading the response, before a connection is closed
KEEP_ALIVE = 75
#: seconds that clients have to read their responses when the server stops
GRACE = 2
#: the same, if the queued requests are rejected and not answered
SHORT_GRACE = 0.5
#: turns of the event loop before it closes: to accept waiting connections and read their requests
TURNS = 50


class _Uvicorn(uvicorn.Server):
    """uvicorn's server without its ten wake-ups a second: it sleeps until `stopping` is set."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started
        self.stopping = asyncio.Event()
        #: seconds that clients have to read their responses when the server stops
        self.grace: float = GRACE
        #: idle connections: their state when they became idle, and that time
        self._idle: dict[Any, tuple[Any, float]] = {}

    async def main_loop(self) -> None:
        """Serve until `stopping` is set; refresh the Date header once a second."""
        self._on_started()
        tick = 0
        while not self.stopping.is_set():
            await self.on_tick(tick)
            self.close_idle_connections(time.monotonic())
            tick += 10  # in its unit, tenths of a second
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), 1.0)

    def close_idle_connections(self, now: float) -> None:
        """Close connections that made no progress for `KEEP_ALIVE` seconds."""
        idle: dict[Any, tuple[Any, float]] = {}
        for connection in self.server_state.connections:
            state = _idle_state(connection)
            if state is not None:
                # An unchanged state means that nothing was received or sent in between.
                known, since = self._idle.get(connection, (state, now))
                idle[connection] = (state, since if known == state else now)
        self._idle = idle
        for connection, (_, since) in idle.items():
            if now - since > KEEP_ALIVE:
                connection.transport.abort()  # close() would wait for the client to read

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop as uvicorn does, but wait at most `grace` seconds for clients."""
        # Before uvicorn cancels requests: without its connection each request ends by itself.
        timer = asyncio.get_running_loop().call_later(self.grace, self._abort_connections)
        # Closing the socket would reset connections in the kernel's backlog, and those whose
        # request is not read yet.
        for _ in range(TURNS):
            await asyncio.sleep(0)
        await super().shutdown(sockets)
        timer.cancel()

    def _abort_connections(self) -> None:
        for connection in self.server_state.connections:
            connection.transport.abort()


def _idle_state(connection: Any) -> tuple[Any, int] | None:
    """Return the request and the unread bytes of an idle connection, which any use changes.

    None if the server does not wait for its client.
    """
    unread = connection.transport.get_write_buffer_size()
    idle = connection.cycle is None or connection.cycle.response_complete
    return (connection.cycle, unread) if idle or unread else None


class UvicornThread:
    """A thread that serves an ASGI application on a listening socket."""

    def __init__(self, app: ASGIApp, sock: socket.socket, name: str) -> None:
        self._sock = sock
        self._config = uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,
            access_log=False,
            ws="none",
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=GRACE + 1,
            http=fastest,
            h11_max_incomplete_event_size=MOST_HEAD,
        )
        self._loop = _new_loop()
        self._server: _Uvicorn | None = None
        self._error: BaseException | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread; return when it accepts requests, or raise `StartError`."""
        self._thread.start()
        self._started.wait()
        if self._error is not None:
            self._thread.join()
            raise StartError(f"the web server did not start: {self._error!r}") from self._error

    def stop(self, drain: bool = True) -> None:
        """Answer the requests in flight, close every connection, and end the thread.

        Without `drain`, clients have less time to read their responses.
        """
        if self._thread.is_alive():
            assert self._server is not None
            self._server.grace = GRACE if drain else SHORT_GRACE
            with contextlib.suppress(RuntimeError):  # the loop has just ended
                self._loop.call_soon_threadsafe(self._server.stopping.set)
            self._thread.join()

    def is_alive(self) -> bool:
        """Return True if the thread runs."""
        return self._thread.is_alive()

    def is_current(self) -> bool:
        """Return True if the caller runs on the event loop's own thread."""
        return threading.current_thread() is self._thread

    def _serve(self) -> None:
        # The kernel's loop is busy with cells, and uvicorn.Server.run fails if nest_asyncio has
        # patched asyncio.
        try:
            asyncio.set_event_loop(self._loop)
            self._server = _Uvicorn(self._config, self._started.set)
            self._loop.run_until_complete(self._server.serve(sockets=[self._sock]))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
        except BaseException as error:  # uvicorn also fails with SystemExit
            self._error = error
        finally:
            asyncio.set_event_loop(None)
            self._loop.close()
            self._sock.close()
            self._started.set()


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
