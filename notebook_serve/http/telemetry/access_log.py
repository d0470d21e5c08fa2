"""The access log: a line for each HTTP request, through ``logging``; off by default."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from ...validation.checks import check_flags
from ...validation.tracebacks import entry_point
from .request_context import RequestContext

logger = logging.getLogger("notebook_serve.access")

#: attributes of a log record that other loggers' records lack
FIELDS = (
    *("client", "method", "path", "status", "model"),
    *("queue_ms", "inference_ms", "total_ms", "batch_ids", "batch_size", "request_id"),
)


if TYPE_CHECKING:
    Stream = logging.StreamHandler[Any]
else:  # not generic before Python 3.11
    Stream = logging.StreamHandler


class _Handler(Stream):
    """The handler that `access_log` sets; a second call replaces it."""


class JsonLines(logging.Formatter):
    """A formatter that writes a record of the access log as one line of JSON.

    The keys are ``time``, in seconds since 1970, and those of `FIELDS`; a missing value is null.
    For your own handler::

        handler.setFormatter(JsonLines())
        logging.getLogger("notebook_serve.access").addHandler(handler)
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without a newline."""
        fields = {name: getattr(record, name, None) for name in FIELDS}
        return json.dumps({"time": round(record.created, 6), **fields})

    def __repr__(self) -> str:
        return "JsonLines()"


@entry_point
def access_log(*, json: bool = False) -> None:
    """Write a line for each HTTP request to the standard error stream, from now on.

    A line has the client, the request, the status, its batch, and the milliseconds in the queue
    and in the model. With `json` it is a JSON object. The lines go through the standard logger
    ``notebook_serve.access``, at level INFO. To send them elsewhere, do not call this function: set
    a handler and the level of that logger. The level WARNING switches the lines off.
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


def log_request(request: RequestContext, seconds: float) -> None:
    """Log a request that was answered within `seconds`."""
    fields: dict[str, Any] = {
        "request_id": request.request_id or None,
        "client": request.client or None,
        "method": request.method,
        "path": request.path,
        "status": request.status,
        "model": request.model or None,
        "queue_ms": _ms(request.queue_time),
        "inference_ms": _ms(request.inference_time),
        "total_ms": _ms(seconds),
        "batch_ids": request.batches,
        "batch_size": request.batch_size,
    }
    logger.info("%s", Line(fields), extra=fields)


class Line(dict[str, Any]):
    """The fields of a log record, with their line of text as `str`."""

    def __str__(self) -> str:
        head = " ".join(_format(self[name]) for name in ("client", "method", "path", "status"))
        rest = (f"{name}={_format(self[name])}" for name in FIELDS[4:])
        return " ".join([head, *rest])


def _format(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value)) or "-"
    return "-" if value is None else str(value)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e3, 3)
