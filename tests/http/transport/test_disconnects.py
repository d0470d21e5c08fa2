"""Client disconnects: a wait ends when the protocol, or the server, reports a disconnect."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request

from notebook_serve.http.transport.disconnects import (
    DISCONNECT,
    DisconnectSignal,
    ReceivedDisconnect,
    wait_while_connected,
)


def request(state: dict[str, Any] | None = None, receive: Any = None) -> Request:
    """Return a request with this state, whose messages come from `receive`."""
    scope: dict[str, Any] = {"type": "http", "headers": []}
    if state is not None:
        scope["state"] = state
    return Request(scope, receive) if receive else Request(scope)


def test_a_disconnect_cancels_the_watched_futures() -> None:
    """Each watched future makes the protocol read; a disconnect cancels those still watched."""

    async def main() -> None:
        listened: list[bool] = []
        signal = DisconnectSignal(lambda: listened.append(True))
        loop = asyncio.get_running_loop()
        watched, unwatched, late = (loop.create_future() for _ in range(3))
        signal.watch(watched)
        signal.watch(unwatched)
        assert listened == [True, True]
        signal.unwatch(unwatched)
        signal.disconnect()
        assert signal.disconnected
        assert watched.cancelled()
        assert not unwatched.cancelled()
        signal.watch(late)  # after the disconnect
        assert late.cancelled()

    asyncio.run(main())


def test_under_another_server_the_disconnect_message_cancels() -> None:
    """Without a signal of the connection, the messages of ``receive`` are read."""

    async def main() -> None:
        messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        signal = ReceivedDisconnect(request(receive=messages.get))
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        signal.watch(future)
        await messages.put({"type": "http.request"})
        await messages.put({"type": "http.disconnect"})
        await asyncio.wait([future], timeout=30)
        assert future.cancelled()
        assert signal.disconnected
        signal.unwatch(future)

    asyncio.run(main())


def test_no_task_is_left_after_an_answer() -> None:
    """A future that is unwatched in time costs no task."""

    async def main() -> None:
        signal = ReceivedDisconnect(request({}, receive=asyncio.Event().wait))
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        signal.watch(future)
        signal.unwatch(future)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_a_result_that_comes_first_is_returned() -> None:
    """The result is returned, and the connection's signal watches the future no more."""

    async def main() -> None:
        signal = DisconnectSignal(lambda: None)
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        future.set_result(3)
        assert await wait_while_connected(request({DISCONNECT: signal}), future) == 3
        signal.disconnect()
        assert not future.cancelled()

    asyncio.run(main())


def test_a_disconnect_of_the_connection_ends_the_wait() -> None:
    """The signal in the request's state is used; the wait raises, and its future is cancelled."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        signal = DisconnectSignal(lambda: None)
        loop.call_soon(signal.disconnect)
        future: asyncio.Future[int] = loop.create_future()
        with pytest.raises(ClientDisconnect):
            await wait_while_connected(request({DISCONNECT: signal}), future)
        assert future.cancelled()

    asyncio.run(main())


def test_a_disconnect_message_ends_the_wait() -> None:
    """Under a server without the signal, the message of ``receive`` ends the wait as well."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def main() -> None:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        with pytest.raises(ClientDisconnect):
            await wait_while_connected(request(receive=receive), future)
        assert future.cancelled()

    asyncio.run(main())


def test_a_cancelled_handler_is_not_a_disconnect() -> None:
    """If the waiting task itself is cancelled, `CancelledError` passes through."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        signal = DisconnectSignal(lambda: None)
        loop.call_soon(task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await wait_while_connected(request({DISCONNECT: signal}), loop.create_future())
        if hasattr(task, "uncancel"):
            task.uncancel()

    asyncio.run(main())
