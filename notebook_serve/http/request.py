"""What a request says: its body, read within bounds, and the headers that matter."""

from __future__ import annotations

import asyncio
import json
import math
import sys
from collections.abc import Collection
from typing import Any, NoReturn

from starlette.requests import ClientDisconnect, Request

from ..errors import BadRequest, BodyTooLarge, BodyTooSlow, InvalidInput
from .headers import header

#: how many lists and objects may be inside each other: chats and tensors need a few
MOST_DEPTH = 100
#: what a JSON body looks like
FORM = '{"inputs": ..., "parameters": {...}}'


async def body_of(request: Request, limit: int, seconds: float) -> bytes:
    """The body, refused as soon as it is known to be too large, or after `seconds`."""
    # asyncio.wait_for would make a task of every request, and asyncio.timeout wants Python 3.11.
    task, expired = asyncio.current_task(), False
    assert task is not None

    def expire() -> None:
        nonlocal expired
        expired = True
        task.cancel()

    timer = asyncio.get_running_loop().call_later(seconds, expire)
    try:
        return await _read(request, limit)
    except asyncio.CancelledError:
        if not expired:
            raise
        if sys.version_info >= (3, 11):
            task.uncancel()
        raise BodyTooSlow(f"the body did not arrive within {seconds:g} s") from None
    finally:
        timer.cancel()


async def _read(request: Request, limit: int) -> bytes:
    declared = _declared(request)
    if declared is not None and declared > limit:
        raise _too_large(limit)
    chunks, size, more = [], 0, True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk, more = message.get("body", b""), message.get("more_body", False)
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
    if declared is not None and size != declared:
        raise BadRequest(f"the body has {size} bytes where Content-Length says {declared}")
    return b"".join(chunks)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body has more than {limit} bytes")


def _declared(request: Request) -> int | None:
    """The length that the client says the body has."""
    said = header(request.scope, b"content-length")
    if not said:
        return None
    if not said.isdecimal() or len(said) > 20:
        raise BadRequest(f"Content-Length {said[:50]!r} is no number of bytes")
    return int(said)


def json_value(body: bytes) -> Any:
    """The value that a JSON body is."""
    try:
        value = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from error
    if body.count(b"[") + body.count(b"{") > MOST_DEPTH and _is_deep(value):
        raise BadRequest(f"the body is more than {MOST_DEPTH} lists and objects deep")
    return value


def from_json(body: bytes) -> tuple[Any, dict[str, Any]]:
    """The inputs and the parameters in a JSON body."""
    inputs, parameters, others = fields_of(json_value(body))
    if others:
        raise InvalidInput(f"the body has an unknown key {min(others)!r}; send {FORM}")
    return inputs, parameters


def fields_of(value: Any) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The inputs, the parameters and whatever else a JSON body has beside them."""
    if not isinstance(value, dict) or "inputs" not in value:
        raise InvalidInput(f'the body has no "inputs"; send {FORM}')
    parameters = value.get("parameters")
    if not isinstance(parameters, dict | None):
        raise InvalidInput(f'"parameters" must be an object; send {FORM}')
    others = {key: item for key, item in value.items() if key not in ("inputs", "parameters")}
    return value["inputs"], parameters or {}, others


def _is_deep(value: Any) -> bool:
    """Whether `value` is too deep for whatever goes through it by recursion later."""
    level = [value]
    for _ in range(MOST_DEPTH):
        containers = (item for item in level if isinstance(item, (list, dict)))
        parts = (item.values() if isinstance(item, dict) else item for item in containers)
        level = [item for part in parts for item in part]
    return any(isinstance(item, (list, dict)) for item in level)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def from_text(body: bytes) -> str:
    """The input that a body is, as UTF-8 text."""
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRequest(f"the body is not UTF-8: {error}") from error


def content_type_of(request: Request) -> tuple[str, str]:
    """The media type and the charset, in lower case; empty strings where not given."""
    kind, more, rest = header(request.scope, b"content-type").lower().partition(";")
    if not more:
        return kind.strip(), ""
    options = dict(option.strip().partition("=")[::2] for option in rest.split(";"))
    return kind.strip(), options.get("charset", "").strip('"')


def is_file(kind: str) -> bool:
    """Whether a body of the media type `kind` is a file: a picture, sound, a video."""
    return kind.startswith(("image/", "audio/", "video/")) or kind == "application/octet-stream"


def forms(accepts: Collection[str]) -> str:
    """The bodies that a task which `accepts` these kinds takes, in words that follow "send"."""
    known = {
        "text": "text/plain in UTF-8",
        "bytes": "the bytes of a file as application/octet-stream",
        "json": f"application/json: {FORM}",
    }
    return ", or ".join(said for kind, said in known.items() if kind in accepts)


def timeout_of(request: Request) -> float | None:
    """The seconds that the client wants to wait, if it says so."""
    given = header(request.scope, b"x-request-timeout")
    if not given:
        return None
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise BadRequest(f"X-Request-Timeout {given!r} is no positive number of seconds")
    return seconds


def client_of(request: Request) -> str:
    """The client's address."""
    client = request.scope.get("client")
    return f"{client[0]}:{client[1]}" if client else ""
