"""Servers on each event loop and HTTP protocol, and clients that do not behave."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from notebook_serve import Server
from notebook_serve.http.transport.uvicorn_protocols import H11, HttpTools

PROTOCOLS: dict[str, type[asyncio.Protocol]] = {"h11": H11, "httptools": HttpTools}
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
if sys.platform != "win32":
    import uvloop

    LOOPS["uvloop"] = uvloop.new_event_loop

#: for a test that takes `http` and passes it to `use`
every_protocol = pytest.mark.parametrize("http", PROTOCOLS)
#: for a test that takes `http` and `loop` and passes them to `use`
every_variant = pytest.mark.parametrize(
    ("http", "loop"), [(http, loop) for http in PROTOCOLS for loop in LOOPS]
)


def use(monkeypatch: pytest.MonkeyPatch, http: str, loop: str = "asyncio") -> None:
    """Let the servers that are made from now on speak by `http` and run on `loop`."""
    monkeypatch.setattr("notebook_serve.http.transport.uvicorn_thread.fastest", PROTOCOLS[http])
    monkeypatch.setattr("notebook_serve.http.transport.uvicorn_thread._new_loop", LOOPS[loop])


@contextlib.contextmanager
def connected(server: Server) -> Iterator[socket.socket]:
    """A connection with a small buffer, so that the server soon feels what is not read."""
    address = server._address
    assert address is not None
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.settimeout(60)
        connection.connect(address)
        yield connection


def everything(connection: socket.socket) -> bytes:
    """What comes until the server hangs up, in whatever way."""
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(1 << 20):
            parts.append(part)
    return b"".join(parts)


def exchange(server: Server, data: bytes) -> bytes:
    """Send `data` on a new connection, and return all bytes until the server closes it."""
    assert server._address is not None
    with socket.create_connection(server._address, timeout=30) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def uvicorn_of(server: Server) -> Any:
    """The web server inside."""
    assert server._listener is not None
    return server._listener._server


def connections(server: Server) -> list[Any]:
    """uvicorn's protocol objects, one for each open connection."""
    return list(uvicorn_of(server).server_state.connections)
