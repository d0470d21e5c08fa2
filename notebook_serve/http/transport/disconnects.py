"""Departures: a client that goes before it has its answer, and who wants to know of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import Request

#: where in the state of a request's scope the departure of its connection is
DEPARTURE = "notebook_serve.departure"
#: seconds after which a client is listened for where the connection itself does not tell; most
#: answers are there before that pays
UNWATCHED = 0.01


class DisconnectSignal:
    """That of one connection, as its protocol tells it: no task waits for it.

    `listen` is called for everyone who waits, so that the connection is read from.
    """

    def __init__(self, listen: Callable[[], None]) -> None:
        self.gone = False
        self._listen = listen
        self._waiting: set[asyncio.Future[Any]] = set()

    def watch(self, future: asyncio.Future[Any]) -> None:
        """Cancel `future` when the client goes."""
        self._waiting.add(future)
        if self.gone:
            future.cancel()
        else:
            self._listen()

    def unwatch(self, future: asyncio.Future[Any]) -> None:
        """Leave `future` alone."""
        self._waiting.discard(future)

    def left(self) -> None:
        """The connection is lost."""
        self.gone = True
        for future in self._waiting:
            future.cancel()


class ReceivedDeparture:
    """That of one request, under a server that tells it only to those who ask."""

    def __init__(self, request: Request) -> None:
        self.gone = False
        self._request = request
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def watch(self, future: asyncio.Future[Any]) -> None:
        """Cancel `future` when the client goes."""
        loop = asyncio.get_running_loop()

        def listen() -> None:
            self._task = loop.create_task(self._receive(future))

        self._timer = loop.call_later(UNWATCHED, listen)

    def unwatch(self, future: asyncio.Future[Any]) -> None:
        """Leave `future` alone."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    async def _receive(self, future: asyncio.Future[Any]) -> None:
        while (await self._request.receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        future.cancel()


def departure_of(request: Request) -> DisconnectSignal | ReceivedDeparture:
    """How to learn that the client of `request` goes."""
    state: Mapping[str, Any] = request.scope.get("state") or {}
    known = state.get(DEPARTURE)
    return known if isinstance(known, DisconnectSignal) else ReceivedDeparture(request)
