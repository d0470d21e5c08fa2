"""Answers as server-sent events: one line of JSON for each piece."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from ..engine.text_stream import Stream
from .responses import request_id
from .telemetry.request_context import RECORDS

#: the last event of a stream, where clients wait for one
DONE = b"data: [DONE]\n\n"


def event(value: Any) -> bytes:
    """`value` as an event.

    In ASCII: some clients also split lines where Unicode sees an end of one.
    """
    return b"data: " + json.dumps(value, allow_nan=False).encode("ascii") + b"\n\n"


class Events(StreamingResponse):
    """Sends `events`; however that ends, `stream` is not written on."""

    def __init__(self, request: Request, stream: Stream, events: AsyncIterator[bytes]) -> None:
        # How long it waits and runs is known at its end only, when the headers are gone.
        headers = {
            "Server-Timing": f"first-token;dur={stream.until_first * 1e3:.3f}",
            "X-Batch-Size": "1",  # a stream runs alone
            "X-Request-ID": request_id(request),
            "Cache-Control": "no-store",
        }
        super().__init__(events, headers=headers, media_type="text/event-stream")
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the head and each event as it comes."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._stream.close()
            answer = getattr(self._stream, "answer", None)
            if answer is not None:  # for those who log or trace, who could not know it before
                scope[RECORDS] = [answer.record]
