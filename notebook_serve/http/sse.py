"""Server-sent events: an answer as a stream of JSON lines."""

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

#: last event of a stream in OpenAI's form
DONE = b"data: [DONE]\n\n"


def encode_event(value: Any) -> bytes:
    """Encode `value` as an event.

    Text is escaped to ASCII, because some clients also split lines at Unicode's line separators.
    """
    return b"data: " + json.dumps(value, allow_nan=False).encode("ascii") + b"\n\n"


class EventStreamResponse(StreamingResponse):
    """A response that sends `events`, and closes `stream` when it ends for any reason."""

    def __init__(self, request: Request, stream: Stream, events: AsyncIterator[bytes]) -> None:
        # The other times are known only at the end, after the headers are sent.
        headers = {
            "Server-Timing": f"first-token;dur={stream.until_first * 1e3:.3f}",
            "X-Batch-Size": "1",  # a stream runs alone
            "X-Request-ID": request_id(request),
            "Cache-Control": "no-store",
        }
        super().__init__(events, headers=headers, media_type="text/event-stream")
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the headers, then each event when it is generated."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._stream.close()
            answer = getattr(self._stream, "answer", None)
            if answer is not None:  # for logs and traces
                scope[RECORDS] = [answer.record]
