"""Reading requests: bodies within limits, headers, and inputs by media type."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from notebook_serve import InvalidInput, Server
from notebook_serve.errors import BadRequest, BodyTooLarge, BodyTooSlow, UnsupportedMediaType
from notebook_serve.http.request import (
    FORM,
    is_same_origin,
    parse_content_type,
    parse_inputs,
    parse_timeout,
    read_body,
    read_headers,
    reject_unknown,
)
from notebook_serve.models.functions.function_model import FunctionModel

from ..helpers import small_models
from ..helpers.http_errors import error_of
from ..helpers.raw_clients import exchange

Make = Callable[..., Server]
JSON = {"content-type": "application/json"}


def echo(inputs: list[Any]) -> list[Any]:
    return inputs


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (b"plain", None, "plain"),
        (b"plain", "text/plain", "plain"),
        ("grün".encode(), "text/plain; charset=UTF-8", "grün"),
        (b"a=1&b=%20+", "application/x-www-form-urlencoded", "a=1&b=%20+"),
        (b'{"inputs": "x"}', "application/json", "x"),
        (b'{"inputs": ["x", "y"]}', "application/json; charset=utf-8", ["x", "y"]),
        (b'{"inputs": []}', "application/json", []),
        (b'{"inputs": {"a": 1}, "parameters": {}}', "application/vnd.x+json", {"a": 1}),
        (b'{"inputs": null, "parameters": null}', "application/json", None),
        (b'{"inputs": [[1, 2], [3]]}', "application/json", [[1, 2], [3]]),
    ],
)
def test_forms_of_input(
    make: Make, client: httpx.Client, body: bytes, content_type: str | None, expected: Any
) -> None:
    """Text, the forms of curl, and JSON are read as documented."""
    headers = {"content-type": content_type} if content_type else {}
    response = client.post(make(echo).url, content=body, headers=headers)
    assert (response.status_code, response.json()) == (200, expected)
    assert response.headers["content-type"] == "application/json"


def test_bytes_reach_a_function_as_bytes(make: Make, client: httpx.Client) -> None:
    """An octet stream is the input, unchanged."""

    def lengths(inputs: list[bytes]) -> list[int]:
        return [len(value) for value in inputs if isinstance(value, bytes)]

    kind = {"content-type": "application/octet-stream"}
    assert client.post(make(lengths).url, content=b"\0\xff", headers=kind).json() == 2


@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        (b"{", JSON, (400, "BadRequest")),
        (b'{"inputs": NaN}', JSON, (400, "BadRequest")),
        (b"[" * 100_000, JSON, (400, "BadRequest")),
        (b'{"inputs": ' + b"[" * 100 + b"]" * 100 + b"}", JSON, (400, "BadRequest")),
        (b'{"inputs": ' + b'{"a": ' * 900 + b"1" + b"}" * 901, JSON, (400, "BadRequest")),
        (b'{"inputs": 1' + b"0" * 5000 + b"}", JSON, (400, "BadRequest")),
        (b'"\xff"', JSON, (400, "BadRequest")),
        (b"\xff", {}, (400, "BadRequest")),
        (b"x", {"X-Request-Timeout": "soon"}, (400, "BadRequest")),
        (b"x", {"X-Request-Timeout": "-1"}, (400, "BadRequest")),
        (b"x", {"X-Request-Timeout": "nan"}, (400, "BadRequest")),
        (b"x" * 1001, {}, (413, "BodyTooLarge")),
        (b"x", {"content-type": "model/obj"}, (415, "UnsupportedMediaType")),
        (b"x", {"content-type": "text/plain; charset=latin-1"}, (415, "UnsupportedMediaType")),
        (b"[1]", JSON, (422, "InvalidInput")),
        (b'{"input": 1}', JSON, (422, "InvalidInput")),
        (b'{"inputs": 1, "params": {}}', JSON, (422, "InvalidInput")),
        (b'{"inputs": 1, "parameters": [1]}', JSON, (422, "InvalidInput")),
        (b'{"inputs": 1, "parameters": {"a": 1}}', JSON, (422, "InvalidInput")),
        (b'{"inputs": 1, "parameters": []}', JSON, (422, "InvalidInput")),
        (b'{"inputs": 1, "parameters": ""}', JSON, (422, "InvalidInput")),
    ],
)
def test_bad_requests(
    make: Make,
    client: httpx.Client,
    body: bytes,
    headers: dict[str, str],
    expected: tuple[int, str],
) -> None:
    """Each kind of bad request has its status and its type, and the server answers afterwards."""
    server = make(echo, max_body_size=1000 if expected[0] == 413 else 10_000_000)
    response = client.post(server.url, content=body, headers=headers)
    assert error_of(response) == expected
    assert client.post(server.url, content="fine").json() == "fine"


def test_depth_is_not_breadth(make: Make, client: httpx.Client) -> None:
    """Many lists side by side are accepted, and so are a hundred nested ones."""
    deep: Any = []
    for _ in range(97):
        deep = [deep]
    server = make(echo)
    values: list[Any] = [deep, [[]] * 500, "[" * 1000]
    for value in values:
        assert client.post(server.url, json={"inputs": {"a": value}}).json() == {"a": value}


def test_a_missing_inputs_key_shows_the_right_form(make: Make, client: httpx.Client) -> None:
    """The message of a 422 shows what to send."""
    response = client.post(make(echo).url, json={"text": "x"})
    assert FORM in response.json()["error"]


def test_a_text_task_takes_no_bytes(make: Make, client: httpx.Client) -> None:
    """The status is 415, and the message names the task and the content type."""
    server = make(small_models.pipeline("fill-mask"))
    response = client.post(server.url, content=b"x", headers={"content-type": "image/png"})
    assert error_of(response) == (415, "UnsupportedMediaType")
    assert "fill-mask does not take image/png" in response.json()["error"]


def test_wrong_length_headers(make: Make, client: httpx.Client) -> None:
    """An invalid length is 400, and a body cut short is not run."""
    server = make(echo)
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: "
    assert exchange(server, head + b"many\r\n\r\nx").startswith(b"HTTP/1.1 400")
    assert exchange(server, head + b"-1\r\n\r\nx").startswith(b"HTTP/1.1 400")
    exchange(server, head + b"10\r\n\r\nshort")
    assert client.post(server.url, content="fine").json() == "fine"
    assert server.stats().outcomes["ok"] == 1


def test_a_large_body_is_refused_while_it_is_read(make: Make) -> None:
    """A body without a declared length is rejected as soon as it is too large."""
    server = make(echo, max_body_size=10)
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = exchange(server, head + b"b\r\n" + b"x" * 11 + b"\r\n")  # and no end
    assert answer.startswith(b"HTTP/1.1 413")


def test_a_body_that_does_not_come_is_refused(make: Make, client: httpx.Client) -> None:
    """A body that takes longer than the server's timeout is rejected with 408."""
    server = make(echo, timeout=0.2)
    host, port = server._address or ("", 0)
    with socket.create_connection((host, port), timeout=30) as connection:
        head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n"
        connection.sendall(head + b"a")
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"BodyTooSlow" in answer
    assert client.post(server.url, content="fine").json() == "fine"


# -- headers, without a server ----------------------------------------------------------------


def test_headers_are_decoded_once() -> None:
    """Every reader of a scope gets the same dict; of two equal names the last one counts."""
    scope: dict[str, Any] = {"headers": [(b"accept", b"a"), (b"x", b"\xfc"), (b"accept", b"b")]}
    headers = read_headers(scope)

    assert headers == {"accept": "b", "x": "ü"}
    scope["headers"] = []
    assert read_headers(scope) is headers


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("text/plain", ("text/plain", "")),
        (" Text/HTML ; Charset=UTF-8 ; x=y", ("text/html", "utf-8")),
        ('text/plain; charset="latin-1"', ("text/plain", "latin-1")),
        ("text/plain;", ("text/plain", "")),
        ("", ("", "")),
    ],
)
def test_content_types(given: str, expected: tuple[str, str]) -> None:
    """The media type and the charset come in lower case, without quotes and spaces."""
    assert parse_content_type({"content-type": given}) == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [({}, None), ({"x-request-timeout": ""}, None), ({"x-request-timeout": "2.5"}, 2.5)],
)
def test_timeouts(headers: dict[str, str], expected: float | None) -> None:
    """A missing or empty header means the server's own timeout."""
    assert parse_timeout(headers) == expected


@pytest.mark.parametrize("given", ["0", "-1", "inf", "nan", "1e999", "soon", "1,5"])
def test_a_timeout_must_be_positive_and_finite(given: str) -> None:
    """The message names the header and the value."""
    with pytest.raises(BadRequest, match=r"X-Request-Timeout must be a positive number") as caught:
        parse_timeout({"x-request-timeout": given})

    assert repr(given) in caught.value.message


@pytest.mark.parametrize(
    ("origin", "host", "same"),
    [
        ("http://localhost:8000", "localhost:8000", True),
        ("HTTP://LocalHost:8000", "LOCALHOST:8000", True),
        ("http://localhost:8001", "localhost:8000", False),
        ("http://localhost", "localhost:8000", False),
        ("null", "localhost", False),
        ("http://evil.example", "localhost", False),
    ],
)
def test_same_origin(origin: str, host: str, same: bool) -> None:
    """Name and port must be equal, in upper or lower case."""
    assert is_same_origin(origin, host) is same


# -- bodies, without a server -----------------------------------------------------------------


def request_of(*messages: Message, **headers: str) -> Request:
    """Return a request with these messages; after them its client sends nothing more."""
    waiting = list(messages)

    async def receive() -> Message:
        if not waiting:
            await asyncio.Event().wait()
        return waiting.pop(0)

    named = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
    return Request({"type": "http", "headers": named}, receive)


def chunk(body: bytes, more: bool = False) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


def test_a_body_in_parts_is_joined() -> None:
    """A body of exactly the limit is accepted."""
    request = request_of(chunk(b"ab", more=True), chunk(b""), content_length="2")

    assert asyncio.run(read_body(request, 2, 30.0)) == b"ab"


def test_a_declared_length_above_the_limit_is_rejected_unread() -> None:
    """No part of such a body is received."""
    with pytest.raises(BodyTooLarge, match="more than 2 bytes"):
        asyncio.run(read_body(request_of(content_length="3"), 2, 30.0))


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        (request_of(chunk(b"abc", more=True)), BodyTooLarge, "more than 2 bytes"),
        (request_of(chunk(b"a"), content_length="2"), BadRequest, "1 bytes, but Content-Length"),
        (request_of(chunk(b"a"), content_length="+1"), BadRequest, "must be a number of bytes"),
        (request_of(chunk(b"a"), content_length="1" * 21), BadRequest, "must be a number of bytes"),
        (request_of({"type": "http.disconnect"}), ClientDisconnect, "^$"),
    ],
    ids=["limit", "shorter", "sign", "digits", "disconnect"],
)
def test_bodies_that_cannot_be_read(
    request_: Request, error: type[Exception], message: str
) -> None:
    """Each fault has its error, as soon as it is known."""
    with pytest.raises(error, match=message):
        asyncio.run(read_body(request_, 2, 30.0))


def test_a_slow_body_times_out_without_cancelling_its_task() -> None:
    """The time-out becomes an error; the handler's task goes on."""

    async def main() -> str:
        with pytest.raises(BodyTooSlow, match=r"within 0\.01 s"):
            await read_body(request_of(), 2, 0.01)
        await asyncio.sleep(0)
        return "alive"

    assert asyncio.run(main()) == "alive"


def test_a_cancelled_task_is_not_a_slow_body() -> None:
    """If the task itself is cancelled, `CancelledError` passes through."""

    async def main() -> None:
        reading = asyncio.ensure_future(read_body(request_of(), 2, 30.0))
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading

    asyncio.run(main())


def test_json_has_other_fields_too() -> None:
    """They are returned, for the routes that know them; `reject_unknown` names the first."""
    body = b'{"inputs": 1, "parameters": null, "b": 2, "a": 3}'
    fields = parse_inputs(FunctionModel(echo), body, JSON)

    assert fields == (1, {}, {"b": 2, "a": 3})
    with pytest.raises(InvalidInput, match="unknown key 'a'"):
        reject_unknown(fields[2])


def test_an_unsupported_body_names_the_supported_ones() -> None:
    """The message says what to send instead, in the model's order of preference."""
    model = FunctionModel(echo)
    model.accepts = frozenset({"bytes", "json"})
    with pytest.raises(UnsupportedMediaType, match="octet-stream, or application/json") as caught:
        parse_inputs(model, b"x", {"content-type": "text/plain"})

    assert caught.value.message.startswith("function does not take text/plain; send the bytes")
