"""HTTP responses: answers and errors as JSON, with the request id and the times."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ..errors import NotAcceptable, ServeError, Unavailable
from ..records import RequestRecord
from .json_encoding import is_slow_to_encode, to_file, to_json
from .request import read_headers
from .telemetry.request_context import RECORDS, REQUEST_ID

#: start of an absolute path: /, \\server or C:\ (or C:/)
_ROOT = r"(?:/|\\\\|[a-z]:[/\\])"
_PATHS = re.compile(
    # A web address is not a path of this machine; it is matched first, and left as it is.
    r"""(?P<address>\b(?!file:)[a-z][a-z0-9+.-]{1,20}://[^\s/'"`<>][^\s'"`<>]*)"""
    # A path in quotes may contain spaces; elsewhere it ends at the first space. The characters
    # before it exclude "and/or" and relative paths. Each branch takes linear time.
    rf"""|(?<=['"`]){_ROOT}[^\s'"`]*(?:[ ](?![/\\])[^\s'"`]*)*(?=['"`])"""
    rf"""|(?:(?<![\w.~/\\-])|(?<=\s-[IL])){_ROOT}[^\s'"`<>|]*""",
    re.IGNORECASE,
)
#: prefix of this process's ids; random bytes for each id would take a tenth of a request's time
_ID_PREFIX = os.urandom(8).hex()
_numbers = itertools.count()
_TRACEBACK = re.compile(r"Traceback \(most recent call last\):\n(?:[ \t].*\n?)*")


def hide_paths(text: str) -> str:
    """Return `text` without tracebacks, and with only the file names of absolute paths.

    A client may read the message of an exception, but not the folders of this machine.
    """
    text = _TRACEBACK.sub("", text)
    return _PATHS.sub(_shorten_path, text) if "/" in text or "\\" in text else text


def _shorten_path(found: re.Match[str]) -> str:
    parts = [part for part in re.split(r"[/\\]+", found[0]) if part]
    # A single name, such as a route, has no folder.
    return found[0] if found["address"] or len(parts) < 2 else f"…/{parts[-1]}"


def request_id(request: Request) -> str:
    """Return the client's ``X-Request-ID`` if it is short printable ASCII, else a new id."""
    identifier: str | None = request.scope.get(REQUEST_ID)
    if identifier is None:
        given = read_headers(request.scope).get("x-request-id", "")
        valid = 0 < len(given) <= 128 and given.isascii() and given.isprintable()
        identifier = given if valid else f"{_ID_PREFIX}{next(_numbers):016x}"
        request.scope[REQUEST_ID] = identifier
    return identifier


def answer_headers(request: Request, records: Sequence[RequestRecord] = ()) -> dict[str, str]:
    """Return the headers of every answer.

    For a list of inputs, they show the slowest input and the largest batch.
    """
    if records:
        request.scope[RECORDS] = records
    queue = inference = 0.0
    largest = 0
    for record in records:
        queue = max(queue, record.queue_time)
        inference = max(inference, record.inference_time)
        largest = max(largest, record.batch_size)
    return {
        "Server-Timing": f"queue;dur={queue * 1e3:.3f}, inference;dur={inference * 1e3:.3f}",
        "X-Batch-Size": str(largest),
        "X-Request-ID": request_id(request),
    }


def json_response(
    content: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a response with `content` as JSON."""
    return Response(to_json(content), status, headers, media_type="application/json")


async def answer_response(request: Request, value: Any, headers: Mapping[str, str]) -> Response:
    """Return a response with the answer `value`: as JSON, or as a file if ``Accept`` asks for one.

    Raises `NotAcceptable` if the answer is not one file of that type.
    """
    accept = read_headers(request.scope).get("accept")
    kind = accepted_file(accept) if accept else ""
    if kind:
        data = await asyncio.to_thread(to_file, value, kind)
        if data is None:
            raise NotAcceptable(
                f"the answer is not one file of the type {kind}; send Accept: application/json"
            )
        return Response(data, headers=dict(headers), media_type=kind)
    # Slow encoding on the event loop would delay all other requests.
    slow = is_slow_to_encode(value)
    data = await asyncio.to_thread(to_json, value) if slow else to_json(value)
    return Response(data, headers=dict(headers), media_type="application/json")


def accepted_file(accept: str) -> str:
    """Return ``image/png`` or ``audio/wav`` if `accept` names it before JSON, else ``""``."""
    for item in accept.split(","):
        kind = item.partition(";")[0].strip().lower()
        if kind in ("application/json", "application/*", "*/*"):
            return ""
        if kind in FILES:
            return FILES[kind]
    return ""


#: media type of a file, by the names that ``Accept`` may have for it
FILES = {
    **dict.fromkeys(("image/png", "image/*"), "image/png"),
    **dict.fromkeys(("audio/wav", "audio/x-wav", "audio/wave", "audio/*"), "audio/wav"),
}


def error_content(request: Request, status: int, kind: str, message: str) -> dict[str, Any]:
    """Return an error in the form that clients of the request's path expect."""
    if not request.scope["path"].startswith("/v1/"):
        return {"error": message, "type": kind}
    category = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": category, "code": kind}}


def error_response(
    request: Request, error: ServeError, message: str = "", more: Mapping[str, Any] | None = None
) -> Response:
    """Return a response with an error as JSON, and the headers of its kind.

    `message` replaces the error's own; `more` has further fields.
    """
    text = hide_paths(message or error.message)
    content = error_content(request, error.status, type(error).__name__, text)
    if error.index is not None and isinstance(content["error"], str):
        content["index"] = error.index
    headers = answer_headers(request, [error.record] if error.record else [])
    if isinstance(error, Unavailable):
        headers["Retry-After"] = str(error.retry_after)
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return json_response({**content, **(more or {})}, error.status, headers)
