"""What every answer carries: its id, its timing, and JSON."""

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
from .headers import header
from .json_encoding import file_of, is_bulky, to_json
from .telemetry.request_context import RECORDS, REQUEST_ID

#: how an absolute path begins: /, \\server or C:\ (or C:/)
_ROOT = r"(?:/|\\\\|[a-z]:[/\\])"
_PLACES = re.compile(
    # A web address is no place of this machine; it is found first, and left as it is.
    r"""(?P<address>\b(?!file:)[a-z][a-z0-9+.-]{1,20}://[^\s/'"`<>][^\s'"`<>]*)"""
    # Between quotes a path may have blanks; elsewhere it ends with the first. What comes before
    # tells it from "and/or" and from a relative one. Each branch takes time linear in its length.
    rf"""|(?<=['"`]){_ROOT}[^\s'"`]*(?:[ ](?![/\\])[^\s'"`]*)*(?=['"`])"""
    rf"""|(?:(?<![\w.~/\\-])|(?<=\s-[IL])){_ROOT}[^\s'"`<>|]*""",
    re.IGNORECASE,
)
#: how the ids of this process begin; random bytes for every one would take a tenth of a request
_OURS = os.urandom(8).hex()
_numbers = itertools.count()
_TRACEBACK = re.compile(r"Traceback \(most recent call last\):\n(?:[ \t].*\n?)*")


def without_places(text: str) -> str:
    """`text` without tracebacks, and of absolute paths only the name of the file.

    What an exception says may travel to a client; where things lie on this machine may not.
    """
    text = _TRACEBACK.sub("", text)
    return _PLACES.sub(_name_only, text) if "/" in text or "\\" in text else text


def _name_only(found: re.Match[str]) -> str:
    parts = [part for part in re.split(r"[/\\]+", found[0]) if part]
    # A single name, such as that of a route, is in no folder.
    return found[0] if found["address"] or len(parts) < 2 else f"…/{parts[-1]}"


def request_id(request: Request) -> str:
    """The id that the client gave, if it is a sane one, or one that is ours."""
    known: str | None = request.scope.get(REQUEST_ID)
    if known is None:
        given = header(request.scope, b"x-request-id")
        sane = 0 < len(given) <= 128 and given.isascii() and given.isprintable()
        known = given if sane else f"{_OURS}{next(_numbers):016x}"
        request.scope[REQUEST_ID] = known
    return known


def headers_of(request: Request, records: Sequence[RequestRecord] = ()) -> dict[str, str]:
    """The headers of every answer; of a list's items, the slowest and the largest batch."""
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
    """`content` as JSON."""
    return Response(to_json(content), status, headers, media_type="application/json")


async def answer_response(request: Request, value: Any, headers: Mapping[str, str]) -> Response:
    """An answer as the client wants it: JSON, or the file that it is.

    Raises `NotAcceptable` where it is no such file.
    """
    kind = wanted_file(header(request.scope, b"accept"))
    if kind:
        data = await asyncio.to_thread(file_of, value, kind)
        if data is None:
            raise NotAcceptable(
                f"the answer is not one file of the type {kind}; ask for application/json"
            )
        return Response(data, headers=dict(headers), media_type=kind)
    # Where encoding takes long, everybody else would wait for it.
    data = await asyncio.to_thread(to_json, value) if is_bulky(value) else to_json(value)
    return Response(data, headers=dict(headers), media_type="application/json")


def wanted_file(accept: str) -> str:
    """``image/png`` or ``audio/wav`` where that is the first that `accept` names, or nothing."""
    for item in accept.split(","):
        kind = item.partition(";")[0].strip().lower()
        if kind in ("application/json", "application/*", "*/*"):
            return ""
        if kind in FILES:
            return FILES[kind]
    return ""


#: what is called how in ``Accept``
FILES = {
    **dict.fromkeys(("image/png", "image/*"), "image/png"),
    **dict.fromkeys(("audio/wav", "audio/x-wav", "audio/wave", "audio/*"), "audio/wav"),
}


def error_content(request: Request, status: int, kind: str, message: str) -> dict[str, Any]:
    """An error in the form that clients of its path read."""
    if not request.scope["path"].startswith("/v1/"):
        return {"error": message, "type": kind}
    whose = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": whose, "code": kind}}


def error_response(
    request: Request, error: ServeError, message: str = "", more: Mapping[str, Any] | None = None
) -> Response:
    """An error of ours as JSON, with what its kind asks for; `message` in place of its own.

    `more` is put beside it.
    """
    said = without_places(message or error.message)
    content = error_content(request, error.status, type(error).__name__, said)
    if error.index is not None and isinstance(content["error"], str):
        content["index"] = error.index
    headers = headers_of(request, [error.record] if error.record else [])
    if isinstance(error, Unavailable):
        headers["Retry-After"] = str(error.retry_after)
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return json_response({**content, **(more or {})}, error.status, headers)
