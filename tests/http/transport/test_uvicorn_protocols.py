from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import httpx
import pytest

from notebook_serve import Server
from notebook_serve.http.transport.uvicorn_protocols import MOST_HEAD, fastest

from ...helpers.blocking_model import Gate
from ...helpers.raw_clients import PROTOCOLS, connected, every_protocol, everything, use

Make = Callable[..., Server]

#: more than what the kernel keeps for a server that does not read
MUCH = 50_000_000
POST = b"POST / HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
#: a beginning, and what would then come for ever
ENDLESS = {
    "lines": (POST, b"X-Header: value\r\n"),
    "value": (POST + b"X-Header: ", b"v" * 1000),
    "name": (POST, b"n" * 1000),
    "url": (b"GET /", b"u" * 1000),
    "query": (b"GET /?", b"q=1&" * 250),
    "blank": (b"", b"\r\n"),
    "upgrade": (b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", b"u" * 1000),
    "trailers": (CHUNKED + b"1\r\nx\r\n0\r\n", b"X-Trailer: value\r\n"),
    "extension": (CHUNKED + b"1;", b"e" * 1000),
}


def echo(inputs: list[Any]) -> list[Any]:
    return inputs


def sent(connection: socket.socket, parts: Iterable[bytes]) -> int:
    """Send `parts` until the server closes the connection; return the number of bytes sent."""
    size = 0
    with contextlib.suppress(ConnectionError):
        for part in parts:
            connection.sendall(part)
            size += len(part)
    return size


@contextlib.contextmanager
def sending(connection: socket.socket, data: bytes) -> Iterator[None]:
    """Send `data` from a thread within the context."""
    thread = threading.Thread(target=sent, args=(connection, [data]))
    thread.start()
    try:
        yield
    finally:
        thread.join()


def test_httptools_is_used_where_it_is_installed() -> None:
    """httptools is several times as fast as h11."""
    assert fastest is PROTOCOLS["httptools"]


@every_protocol
@pytest.mark.parametrize("what", ENDLESS)
def test_a_head_without_an_end_is_refused(
    make: Make, monkeypatch: pytest.MonkeyPatch, http: str, what: str
) -> None:
    """The server closes the connection, and serves the next client."""
    use(monkeypatch, http)
    server = make(echo)
    beginning, more = ENDLESS[what]
    with connected(server) as client:
        repeated = itertools.repeat(more * (50_000 // len(more)), MUCH // 50_000)

        assert sent(client, [beginning, *repeated]) < MUCH
    assert httpx.post(server.url, content="fine").json() == "fine"


@every_protocol
@pytest.mark.parametrize(
    "head",
    [
        POST + b"".join(b"X-%d: 1\r\n" % n for n in range(100_000)),
        POST + b"X-Header: " + b"v" * 1_000_000 + b"\r\n",
        b"GET /" + b"u" * 1_000_000 + b" HTTP/1.1\r\nHost: localhost\r\n",
    ],
    ids=["lines", "value", "url"],
)
def test_a_head_that_is_too_large_is_400(
    make: Make, monkeypatch: pytest.MonkeyPatch, http: str, head: bytes
) -> None:
    """A header above the limit is rejected even if it is complete."""
    use(monkeypatch, http)
    server = make(echo)
    with connected(server) as client:
        sent(client, [head, b"Content-Length: 1\r\n\r\nx"])
        answer = everything(client)

    assert not answer or answer.startswith(b"HTTP/1.1 400")
    assert server.stats().outcomes["ok"] == 0


@every_protocol
def test_a_head_of_the_usual_size_is_taken(
    make: Make, monkeypatch: pytest.MonkeyPatch, http: str
) -> None:
    """A header just below the limit is answered, in any parts, many times on a connection."""
    use(monkeypatch, http)
    server = make(echo)
    head = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"v" * (MOST_HEAD - 1000) + b"\r\n"
    with connected(server) as client:
        for cut in (1, 17, 1000, 40_000):
            client.sendall(head[:cut])
            client.sendall(head[cut:] + b"\r\n")
        client.sendall(head + b"Connection: close\r\n\r\n")
        answer = everything(client)

    assert answer.count(b"HTTP/1.1 200") == 5


def test_a_head_too_large_does_not_disturb_another_answer(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another request of the connection runs, the server only closes the connection."""
    use(monkeypatch, "httptools")
    gate = Gate()
    server = make(gate)
    with connected(server) as client:
        client.sendall(POST + b"Content-Length: 1\r\n\r\nx")
        assert gate.begun.wait(60)
        sent(client, [POST + b"X-Header: " + b"v" * 1_000_000])

        assert everything(client) == b""
    gate.opened.set()


@every_protocol
def test_many_requests_in_one_go_are_answered(
    make: Make, monkeypatch: pytest.MonkeyPatch, http: str
) -> None:
    """Pipelined requests above the header limit in total are all answered."""
    use(monkeypatch, http)
    server = make(echo)
    one = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
    requests = (one + b"\r\n") * 3000 + one + b"Connection: close\r\n\r\n"
    with connected(server) as client, sending(client, requests):
        answer = everything(client)

    assert len(requests) > MOST_HEAD
    assert answer.count(b"HTTP/1.1 200") == 3001


@every_protocol
@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 1000000\r\n\r\n" + b"x" * 1_000_000,
        b"Transfer-Encoding: chunked\r\n\r\n" + b"f4240\r\n" + b"x" * 1_000_000 + b"\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n" + b"a\r\nxxxxxxxxxx\r\n" * 100_000 + b"0\r\n\r\n",
    ],
    ids=["length", "chunk", "chunks"],
)
def test_a_large_body_is_no_head(
    make: Make, monkeypatch: pytest.MonkeyPatch, http: str, body: bytes
) -> None:
    """The limit of a header does not apply to a body."""
    use(monkeypatch, http)

    def length(inputs: list[str]) -> list[int]:
        return [len(text) for text in inputs]

    with connected(make(length)) as client:
        client.sendall(POST + b"Connection: close\r\n" + body)
        answer = everything(client)

    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"\r\n\r\n1000000")


@every_protocol
def test_pipelined_requests_are_not_read_ahead(
    make: Make, monkeypatch: pytest.MonkeyPatch, http: str
) -> None:
    """Pipelined requests are read one at a time, so they cannot fill the memory."""
    use(monkeypatch, http)
    one = POST + b"X-Header: " + b"v" * 1000 + b"\r\nContent-Length: 1\r\n"
    backlog = [0]

    class Watched(PROTOCOLS[http]):  # type: ignore[misc, valid-type]
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if http == "h11":
                backlog.append(len(self.conn.trailing_data[0]))
            else:
                backlog.append(len(self.pipeline) * len(one))

    monkeypatch.setattr("notebook_serve.http.transport.uvicorn_thread.fastest", Watched)
    server = make(echo, refuse_late=False)
    requests = (one + b"\r\nx") * 2000 + one + b"Connection: close\r\n\r\nx"
    with connected(server) as client, sending(client, requests):
        answer = everything(client)

    assert answer.count(b"HTTP/1.1 200") == 2001
    two_reads = 2 * 262_144
    assert max(backlog) <= two_reads < len(requests) / 4
