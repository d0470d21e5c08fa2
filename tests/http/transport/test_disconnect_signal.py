"""Departures: who waits is told when the client goes, by its protocol or by its server."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request

from notebook_serve.http.transport.disconnects import (
    DEPARTURE,
    DisconnectSignal,
    ReceivedDeparture,
    departure_of,
)


def request(state: dict[str, Any] | None = None, receive: Any = None) -> Request:
    scope: dict[str, Any] = {"type": "http", "headers": []}
    if state is not None:
        scope["state"] = state
    return Request(scope, receive) if receive else Request(scope)


def test_those_who_wait_are_cancelled_and_the_connection_is_read_meanwhile() -> None:
    async def main() -> None:
        listened: list[bool] = []
        departure = DisconnectSignal(lambda: listened.append(True))
        loop = asyncio.get_running_loop()
        stays, through, late = (loop.create_future() for _ in range(3))
        departure.watch(stays)
        departure.watch(through)
        assert listened == [True, True]
        departure.unwatch(through)
        departure.left()
        assert departure.gone
        assert stays.cancelled()
        assert not through.cancelled()
        departure.watch(late)  # it came while the client was going
        assert late.cancelled()

    asyncio.run(main())


def test_under_another_server_the_disconnect_message_tells() -> None:
    async def main() -> None:
        messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        departure = departure_of(request(receive=messages.get))
        assert isinstance(departure, ReceivedDeparture)
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        departure.watch(future)
        await messages.put({"type": "http.request"})
        await messages.put({"type": "http.disconnect"})
        await asyncio.wait([future], timeout=30)
        assert future.cancelled()
        assert departure.gone
        departure.unwatch(future)

    asyncio.run(main())


def test_it_leaves_no_task_to_those_who_have_their_answer() -> None:
    async def main() -> None:
        departure = departure_of(request({}, receive=asyncio.Event().wait))
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        departure.watch(future)
        departure.unwatch(future)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_our_own_protocols_departure_is_found() -> None:
    own = DisconnectSignal(lambda: None)
    assert departure_of(request({DEPARTURE: own})) is own
