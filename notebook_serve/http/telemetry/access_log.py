"""A line for each HTTP request, through the standard ``logging``; nothing unless asked for."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from ...validation.checks import check_flags
from ...validation.tracebacks import entry_point
from .request_context import RequestContext

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger("notebook_serve.access")

#: what a record of the log has, besides what every record has
FIELDS = (
    *("client", "method", "path", "status", "model"),
    *("queue_ms", "inference_ms", "total_ms", "batch_ids", "batch_size", "request_id"),
)


if TYPE_CHECKING:
    Stream = logging.StreamHandler[Any]
else:  # it takes no type before Python 3.11
    Stream = logging.StreamHandler


class _Handler(Stream):
    """The one that `access_log` sets; another takes its place."""


class JsonLines(logging.Formatter):
    """Formats a record of the access log as one line of JSON, with the names of `FIELDS`.

    ``time`` is seconds since 1970; what a request has not is null. For a handler of your own::

        handler.setFormatter(JsonLines())
        logging.getLogger("notebook_serve.access").addHandler(handler)
    """

    def format(self, record: logging.LogRecord) -> str:
        """One line, without its end."""
        fields = {name: getattr(record, name, None) for name in FIELDS}
        return json.dumps({"time": round(record.created, 6), **fields})

    def __repr__(self) -> str:
        return "JsonLines()"


@entry_point
def access_log(*, json: bool = False) -> None:
    """Write a line for each HTTP request to the standard error stream, from now on.

    It says who asked what, the status, how long the request waited and ran (milliseconds), and
    which batch it was in. With `json` each line is a JSON object. The lines go through the
    standard logger ``notebook_serve.access``, at level INFO; to have them elsewhere, leave this
    function and give that logger a handler and the level. Its level WARNING ends them.
    """
    check_flags(json=json)
    handler = _Handler()
    text = "%(asctime)s %(message)s"
    handler.setFormatter(JsonLines() if json else logging.Formatter(text))
    for before in [each for each in logger.handlers if isinstance(each, _Handler)]:
        logger.removeHandler(before)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


class AccessLog:
    """Tells the logger of every request; where it does not listen, passes on at once."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, and then tell of it."""
        if scope["type"] != "http" or not logger.isEnabledFor(logging.INFO):
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        status, noticing = watched(send)
        try:
            await self._app(scope, receive, noticing)
        finally:
            _tell(RequestContext.of(scope, status()), time.monotonic() - began)


def watched(send: Send) -> tuple[Callable[[], int], Callable[[Message], Awaitable[None]]]:
    """What gives the status of an answer once it was sent, and the `send` to send it with."""
    seen = 500  # what is sent where nothing was, because an exception passes through

    async def noticing(message: Message) -> None:
        nonlocal seen
        if message["type"] == "http.response.start":
            seen = message["status"]
        await send(message)

    return lambda: seen, noticing


def _tell(exchange: RequestContext, seconds: float) -> None:
    fields: dict[str, Any] = {
        "request_id": exchange.request_id or None,
        "client": exchange.client or None,
        "method": exchange.method,
        "path": exchange.path,
        "status": exchange.status,
        "model": exchange.model or None,
        "queue_ms": _ms(exchange.queue_time),
        "inference_ms": _ms(exchange.inference_time),
        "total_ms": _ms(seconds),
        "batch_ids": exchange.batches,
        "batch_size": exchange.batch_size,
    }
    logger.info("%s", Line(fields), extra=fields)


class Line(dict[str, Any]):
    """The fields of a record as a line of text."""

    def __str__(self) -> str:
        head = " ".join(_said(self[name]) for name in ("client", "method", "path", "status"))
        rest = (f"{name}={_said(self[name])}" for name in FIELDS[4:])
        return " ".join([head, *rest])


def _said(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value)) or "-"
    return "-" if value is None else str(value)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e3, 3)
