"""Client disconnects: cancel the wait for an answer when its client has closed the connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.requests import ClientDisconnect, Request

#: key of the connection's `DisconnectSignal` in the ``state`` of a request's scope
DISCONNECT = "notebook_serve.disconnect"
#: seconds before `ReceivedDisconnect` starts a task; most answers come sooner
RECEIVE_DELAY = 0.01


class DisconnectSignal:
    """The disconnect of one connection, reported by its protocol without a task.

    `listen` is called for each watched future, so that the connection is read meanwhile.
    """

    def __init__(self, listen: Callable[[], None]) -> None:
        self.disconnected = False
        self._listen = listen
        self._watched: set[asyncio.Future[Any]] = set()

    def watch(self, future: asyncio.Future[Any]) -> None:
        """Cancel `future` when the client disconnects."""
        self._watched.add(future)
        if self.disconnected:
            future.cancel()
        else:
            self._listen()

    def unwatch(self, future: asyncio.Future[Any]) -> None:
        """Stop watching `future`."""
        self._watched.discard(future)

    def disconnect(self) -> None:
        """Cancel all watched futures: the connection is lost."""
        self.disconnected = True
        for future in self._watched:
            future.cancel()


class ReceivedDisconnect:
    """The disconnect of one request, under a server that reports it only through ``receive``."""

    def __init__(self, request: Request) -> None:
        self.disconnected = False
        self._request = request
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def watch(self, future: asyncio.Future[Any]) -> None:
        """Cancel `future` when the client disconnects."""
        loop = asyncio.get_running_loop()

        def listen() -> None:
            self._task = loop.create_task(self._receive(future))

        self._timer = loop.call_later(RECEIVE_DELAY, listen)

    def unwatch(self, future: asyncio.Future[Any]) -> None:
        """Stop watching `future`."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    async def _receive(self, future: asyncio.Future[Any]) -> None:
        while (await self._request.receive())["type"] != "http.disconnect":
            pass
        self.disconnected = True
        future.cancel()


async def wait_while_connected(request: Request, future: asyncio.Future[Any]) -> Any:
    """Return the result of `future`.

    Raises `ClientDisconnect`, and cancels `future`, if the client of `request` disconnects.
    """
    signal = (request.scope.get("state") or {}).get(DISCONNECT)
    if not isinstance(signal, DisconnectSignal):
        signal = ReceivedDisconnect(request)
    signal.watch(future)
    try:
        return await future
    except asyncio.CancelledError:
        if signal.disconnected:
            raise ClientDisconnect from None
        raise  # the handler itself was cancelled
    finally:
        signal.unwatch(future)
