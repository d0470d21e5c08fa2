"""Server-sent events: their encoding, and the response that sends them."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.requests import Request
from starlette.types import Message

from notebook_serve import RequestRecord
from notebook_serve.engine.requests import Answer
from notebook_serve.engine.text_stream import Stream
from notebook_serve.http.sse import DONE, EventStreamResponse, encode_event
from notebook_serve.http.telemetry.request_context import RECORDS


class ClosingStream(Stream):
    """A stream that counts how often it is closed."""

    closed = 0

    def close(self) -> None:
        """Count, and close."""
        self.closed += 1
        super().close()


async def events(*values: Any) -> AsyncIterator[bytes]:
    for value in values:
        yield encode_event(value)


async def receive() -> Message:
    """Return no message: the client stays connected."""
    await asyncio.Event().wait()
    raise AssertionError


def scope() -> dict[str, Any]:
    return {"type": "http", "headers": [(b"x-request-id", b"mine")], "asgi": {}}


@pytest.mark.parametrize("text", ["grün", "a\nb\r\nc", "a\u2028b\u2029c\x85d", "😀", "\ud800"])
def test_an_event_is_one_line_of_ascii(text: str) -> None:
    """Line breaks in a text, also those of Unicode only, are escaped."""
    encoded = encode_event({"text": text})

    assert encoded.startswith(b"data: ")
    assert encoded.endswith(b"\n\n")
    assert len(encoded.decode("ascii").splitlines()) == 2
    assert json.loads(encoded.removeprefix(b"data: ")) == {"text": text}


def test_a_number_that_json_lacks_is_an_error() -> None:
    """NaN is not JSON, so it never reaches a client."""
    with pytest.raises(ValueError, match="JSON"):
        encode_event(math.nan)


def test_events_are_sent_and_the_stream_is_closed() -> None:
    """The headers come first, with the id; the record is noted for logs at the end."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def main() -> None:
        stream = ClosingStream([])
        stream.until_first = 0.25
        stream.answer = Answer([], RequestRecord(1, 1.0, 2.0, 3.0, "ok"))
        request = Request(scope())
        response = EventStreamResponse(request, stream, events(1, 2))
        await response(request.scope, receive, send)
        assert stream.closed == 1
        assert [record.id for record in request.scope[RECORDS]] == [1]

    asyncio.run(main())
    headers = dict(sent[0]["headers"])
    assert headers[b"server-timing"] == b"first-token;dur=250.000"
    assert (headers[b"x-request-id"], headers[b"x-batch-size"]) == (b"mine", b"1")
    assert headers[b"content-type"].startswith(b"text/event-stream")
    assert b"".join(message.get("body", b"") for message in sent) == b"data: 1\n\ndata: 2\n\n"


def test_a_response_that_fails_closes_the_stream() -> None:
    """If the client cannot be written to, the model must not generate more."""

    async def send(message: Message) -> None:
        raise RuntimeError("no connection")

    async def main() -> None:
        stream = ClosingStream([])
        request = Request(scope())
        response = EventStreamResponse(request, stream, events(1))
        with pytest.raises(RuntimeError, match="no connection"):
            await response(request.scope, receive, send)
        assert stream.closed == 1
        assert RECORDS not in request.scope  # there is no answer

    asyncio.run(main())


def test_done_is_an_event() -> None:
    """The last event of OpenAI's streams has the same form as the others."""
    assert DONE.startswith(b"data: ")
    assert DONE.endswith(b"\n\n")
