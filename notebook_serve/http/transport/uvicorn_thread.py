"""uvicorn in a thread with an event loop of its own, started and stopped from any other."""

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

#: seconds that a connection may bring no request, or take nothing of an answer
KEEP_ALIVE = 75
#: seconds that clients have at the end to read their answers
GRACE = 2
#: the same, where what waits is refused and not answered
SHORT_GRACE = 0.5
#: turns of the event loop before it closes: some to accept who waits, some to read his request
TURNS = 50


class _Uvicorn(uvicorn.Server):
    """uvicorn without its ten wake-ups a second: it sleeps until it is told to stop."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started
        self.stopping = asyncio.Event()
        #: seconds that clients have at the end to read their answers
        self.grace: float = GRACE
        #: connections that stand still: how they stood when that began, and when it did
        self._silent: dict[Any, tuple[Any, float]] = {}

    async def main_loop(self) -> None:
        """Serve; keep the Date header fresh once a second."""
        self._on_started()
        tick = 0
        while not self.stopping.is_set():
            await self.on_tick(tick)
            self.hang_up_on_the_silent(time.monotonic())
            tick += 10  # in its unit, tenths of a second
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), 1.0)

    def hang_up_on_the_silent(self, now: float) -> None:
        """End connections that for too long brought no request, or took nothing of an answer."""
        silent: dict[Any, tuple[Any, float]] = {}
        for connection in self.server_state.connections:
            standing = _standing(connection)
            if standing is not None:
                # The same as before: nothing came and nothing went in between.
                known, since = self._silent.get(connection, (standing, now))
                silent[connection] = (standing, since if known == standing else now)
        self._silent = silent
        for connection, (_, since) in silent.items():
            if now - since > KEEP_ALIVE:
                connection.transport.abort()  # close() would wait until everything is read

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop as uvicorn does, and wait no longer than `grace` for clients to read or to send."""
        # Sooner than uvicorn cancels requests: without its connection each ends by itself.
        timer = asyncio.get_running_loop().call_later(self.grace, self._hang_up_on_all)
        # To close the socket would reset whom the kernel has let in and nobody has accepted yet, or
        # whose request nobody has read yet.
        for _ in range(TURNS):
            await asyncio.sleep(0)
        await super().shutdown(sockets)
        timer.cancel()

    def _hang_up_on_all(self) -> None:
        for connection in self.server_state.connections:
            connection.transport.abort()


def _standing(connection: Any) -> tuple[Any, int] | None:
    """What changes as soon as a connection is used: its request, and the bytes not taken yet.

    None while nothing is expected of its client.
    """
    unread = connection.transport.get_write_buffer_size()
    idle = connection.cycle is None or connection.cycle.response_complete
    return (connection.cycle, unread) if idle or unread else None


class UvicornThread:
    """Serves an ASGI application on a listening socket."""

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
        """Return once it answers, or raise `StartError`."""
        self._thread.start()
        self._started.wait()
        if self._error is not None:
            self._thread.join()
            raise StartError(f"the web server did not start: {self._error!r}") from self._error

    def stop(self, drain: bool = True) -> None:
        """Answer what is in flight, close every connection, and end the thread.

        Without `drain`, clients have less time to read what they are told.
        """
        if self._thread.is_alive():
            assert self._server is not None
            self._server.grace = GRACE if drain else SHORT_GRACE
            with contextlib.suppress(RuntimeError):  # it ended by itself just now
                self._loop.call_soon_threadsafe(self._server.stopping.set)
            self._thread.join()

    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def is_current(self) -> bool:
        """Whether the caller runs on the event loop's own thread."""
        return threading.current_thread() is self._thread

    def _serve(self) -> None:
        # Neither the kernel's loop nor uvicorn.Server.run: the one is busy with cells, the other
        # fails where nest_asyncio has patched asyncio.
        try:
            asyncio.set_event_loop(self._loop)
            self._server = _Uvicorn(self._config, self._started.set)
            self._loop.run_until_complete(self._server.serve(sockets=[self._sock]))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
        except BaseException as error:  # SystemExit, too, is how uvicorn fails
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
