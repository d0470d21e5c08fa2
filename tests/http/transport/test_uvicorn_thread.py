from __future__ import annotations

import gc
import itertools
import logging
import socket
import threading
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn

from notebook_serve import Server
from notebook_serve.http.transport.uvicorn_thread import KEEP_ALIVE, _Uvicorn

from ...helpers.blocking_model import eventually
from ...helpers.raw_clients import (
    connected,
    connections,
    every_variant,
    everything,
    use,
    uvicorn_of,
)

Make = Callable[..., Server]

POST = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n%s\r\nx"
#: ways to ask: the connection stays, is closed after the answer, or has another request on it
WAYS = {
    "kept": POST % b"",
    "closed": POST % b"Connection: close\r\n",
    "pipelined": 2 * (POST % b""),
}
LARGE = 20_000_000


def large(inputs: list[Any]) -> list[str]:
    """Return answers that fill every buffer on the way to the client."""
    return ["x" * LARGE for _ in inputs]


def unread(server: Server) -> int:
    """Return the bytes in the server that its one client has not read."""
    return sum(item.transport.get_write_buffer_size() for item in connections(server))


def clock(server: Server, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], bool]:
    """Return a function that checks for idle connections at a time; True if none is left."""
    web = uvicorn_of(server)
    hang_up = web.close_idle_connections
    monkeypatch.setattr(web, "close_idle_connections", lambda now: None)

    def tick(now: float) -> bool:
        done = threading.Event()

        def look() -> None:
            hang_up(now)
            done.set()

        assert server._listener is not None
        server._listener._loop.call_soon_threadsafe(look)
        assert done.wait(60)
        return not connections(server)

    return tick


def asked(server: Server, connection: socket.socket, request: bytes) -> None:
    """Send `request`, and wait until its response waits to be read."""
    connection.sendall(request)
    eventually(lambda: unread(server) > LARGE / 4, "the answer waits for its reader")


def test_a_connection_in_use_is_not_hung_up_on() -> None:
    """A connection with new requests between two checks stays; an idle one is closed."""
    ended: list[str] = []

    class Cycle:
        response_complete = True

    def connection(name: str) -> Any:
        transport = SimpleNamespace(
            abort=lambda: ended.append(name), get_write_buffer_size=lambda: 0
        )
        return type("Connection", (), {"cycle": None, "transport": transport})()

    server = _Uvicorn(uvicorn.Config("app:app", log_config=None), lambda: None)
    busy, silent = connection("busy"), connection("silent")
    server.server_state.connections = {busy, silent}
    for tick in range(int(KEEP_ALIVE) + 2):
        busy.cycle = Cycle()
        server.close_idle_connections(1000.0 + tick)

    assert ended == ["silent"]


@every_variant
@pytest.mark.parametrize("way", WAYS)
def test_a_client_that_takes_nothing_is_hung_up_on(
    make: Make, monkeypatch: pytest.MonkeyPatch, http: str, loop: str, way: str
) -> None:
    """The connection of a client that does not read is closed, and its response freed."""
    use(monkeypatch, http, loop)
    server = make(large)
    tick = clock(server, monkeypatch)
    with connected(server) as client:
        asked(server, client, WAYS[way])
        if way == "pipelined":
            waiting = connections(server)[0]
            eventually(lambda: server.stats().outcomes["ok"] == 2, "the second is computed")
            assert not waiting.cycle.response_complete
        # Each check is so late that a connection idle since the last one is closed.
        times = itertools.count(1000.0, KEEP_ALIVE + 1)
        eventually(lambda: tick(next(times)), "it is hung up on")

        assert len(everything(client)) < LARGE
    assert server.predict("x") == "x" * LARGE


@every_variant
def test_a_client_that_reads_slowly_is_left_alone(
    make: Make, monkeypatch: pytest.MonkeyPatch, http: str, loop: str
) -> None:
    """A client that reads a little at a time gets its whole response."""
    use(monkeypatch, http, loop)
    server = make(large)
    tick = clock(server, monkeypatch)
    with connected(server) as client:
        asked(server, client, WAYS["closed"])
        got = b""
        for now in range(1000, 1000 + 5 * (KEEP_ALIVE + 1), KEEP_ALIVE + 1):
            tick(now)
            before = unread(server)
            while unread(server) == before:
                got += client.recv(65536)
        got += everything(client)

    head, _, body = got.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert len(body) == LARGE + 2


@every_variant
@pytest.mark.parametrize("way", WAYS)
def test_stop_does_not_wait_for_a_client_that_takes_nothing(
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    http: str,
    loop: str,
    way: str,
) -> None:
    """`stop` takes bounded time, and leaves no connection, task or warning."""
    use(monkeypatch, http, loop)
    monkeypatch.setattr("notebook_serve.http.transport.uvicorn_thread.GRACE", 0.1)
    server = make(large)
    with connected(server) as client, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        asked(server, client, WAYS[way])
        state = uvicorn_of(server).server_state
        server.stop()
        gc.collect()

        assert (state.connections, state.tasks) == (set(), set())
        assert len(everything(client)) < LARGE
    assert not warned
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_connections_in_the_backlog_are_answered_at_a_stop(make: Callable[..., Server]) -> None:
    """Twenty requests in the kernel's backlog at a stop get 503, and no reset."""
    server = make(lambda inputs: inputs)
    listener = server._listener
    assert listener is not None
    busy, free = threading.Event(), threading.Event()

    def block() -> None:
        busy.set()
        assert free.wait(60)

    listener._loop.call_soon_threadsafe(block)
    assert busy.wait(60)
    with ExitStack() as stack:
        clients = [stack.enter_context(connected(server)) for _ in range(20)]
        for client in clients:
            client.sendall(POST % b"")
        server._engines.stop(True, 10.0)
        listener._loop.call_soon_threadsafe(uvicorn_of(server).stopping.set)
        free.set()
        for client in clients:
            assert client.recv(100).startswith(b"HTTP/1.1 503")


def test_a_connection_without_a_request_is_closed(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a request's header does not keep a connection open."""
    monkeypatch.setattr("notebook_serve.http.transport.uvicorn_thread.KEEP_ALIVE", 0.0)
    server = make(lambda inputs: inputs)
    host, port = server._address or ("", 0)
    with socket.create_connection((host, port), timeout=30) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: loc")
        assert connection.recv(65536) == b""
