"""Read a request: its headers, its body within limits, and the inputs in the body."""

from __future__ import annotations

import asyncio
import json
import math
import sys
from collections.abc import Collection, Mapping, MutableMapping
from typing import Any, NoReturn

from starlette.requests import ClientDisconnect, Request

from ..errors import BadRequest, BodyTooLarge, BodyTooSlow, InvalidInput, UnsupportedMediaType
from ..models.base import Model

#: most lists and objects inside each other; chats and tensors need a few
MOST_DEPTH = 100
#: the form of a JSON body, as error messages show it
FORM = '{"inputs": ..., "parameters": {...}}'

_HEADERS = "notebook_serve.headers"


# -- headers ------------------------------------------------------------------------------------


def read_headers(scope: MutableMapping[str, Any]) -> dict[str, str]:
    """Return the headers of an ASGI `scope` by their names in lower case; decoded only once."""
    headers: dict[str, str] | None = scope.get(_HEADERS)
    if headers is None:
        headers = scope[_HEADERS] = {}
        for name, value in scope["headers"]:
            headers[name.decode("latin-1")] = value.decode("latin-1")
    return headers


def is_same_origin(origin: str, host: str) -> bool:
    """Return True if a page from `origin` belongs to the server with this Host header."""
    return origin.partition("://")[2].lower() == host.lower()


def parse_timeout(headers: Mapping[str, str]) -> float | None:
    """Return the seconds in ``X-Request-Timeout``; None if the header is missing or empty."""
    given = headers.get("x-request-timeout")
    if not given:
        return None
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise BadRequest(f"X-Request-Timeout must be a positive number of seconds, got {given!r}")
    return seconds


def parse_content_type(headers: Mapping[str, str]) -> tuple[str, str]:
    """Return the media type and the charset, in lower case; empty strings if not given."""
    kind, more, rest = headers.get("content-type", "").lower().partition(";")
    if not more:
        return kind.strip(), ""
    options = dict(option.strip().partition("=")[::2] for option in rest.split(";"))
    return kind.strip(), options.get("charset", "").strip('"')


# -- the body -----------------------------------------------------------------------------------


async def read_body(request: Request, limit: int, seconds: float) -> bytes:
    """Read the body.

    Raises `BodyTooLarge` as soon as the body is known to have more than `limit` bytes, and
    `BodyTooSlow` after `seconds`.
    """
    # asyncio.wait_for would make a task for every request; asyncio.timeout needs Python 3.11.
    task, expired = asyncio.current_task(), False
    assert task is not None

    def expire() -> None:
        nonlocal expired
        expired = True
        task.cancel()

    timer = asyncio.get_running_loop().call_later(seconds, expire)
    try:
        return await _receive_body(request, limit)
    except asyncio.CancelledError:
        if not expired:
            raise
        if sys.version_info >= (3, 11):
            task.uncancel()
        raise BodyTooSlow(f"the body did not arrive within {seconds:g} s") from None
    finally:
        timer.cancel()


async def _receive_body(request: Request, limit: int) -> bytes:
    declared = _parse_content_length(read_headers(request.scope))
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
        raise BadRequest(f"the body has {size} bytes, but Content-Length is {declared}")
    return b"".join(chunks)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body has more than {limit} bytes")


def _parse_content_length(headers: Mapping[str, str]) -> int | None:
    """Return the number of bytes in ``Content-Length``; None if the header is missing."""
    given = headers.get("content-length")
    if not given:
        return None
    if not given.isdecimal() or len(given) > 20:
        raise BadRequest(f"Content-Length must be a number of bytes, got {given[:50]!r}")
    return int(given)


# -- inputs -------------------------------------------------------------------------------------


def parse_inputs(
    model: Model, body: bytes, headers: Mapping[str, str]
) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Return the inputs, the parameters and the other fields in a body, by its media type.

    Only JSON has other fields; see `reject_unknown`. Raises `UnsupportedMediaType` if the model
    does not accept the media type.
    """
    kind, charset = parse_content_type(headers)
    if kind == "application/json" or kind.endswith("+json"):
        return split_fields(parse_json(body))
    accepts = model.accepts
    # `curl -d` sends any body as a form, and some clients send no media type.
    untyped = kind in ("", "application/x-www-form-urlencoded")
    if "text" in accepts and (untyped or kind.startswith("text/")):
        if charset in ("", "utf-8", "utf8", "us-ascii"):
            return decode_text(body), {}, {}
    elif "bytes" in accepts and untyped:
        return body, {}, {}
    if "bytes" in accepts and is_file(kind):
        return body, {}, {}
    raise UnsupportedMediaType(
        f"{model.task} does not take {kind or 'text'}"
        + (f" in {charset}" if charset else "")
        + f"; send {describe_bodies(accepts)}"
    )


def parse_json(body: bytes) -> Any:
    """Parse a JSON body; raise `BadRequest` if it is malformed or nested too deep."""
    try:
        value = json.loads(body, parse_constant=_reject_constant)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from error
    if body.count(b"[") + body.count(b"{") > MOST_DEPTH and _is_deep(value):
        raise BadRequest(f"the body is more than {MOST_DEPTH} lists and objects deep")
    return value


def split_fields(value: Any) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Return the inputs, the parameters and the other fields of a JSON body."""
    if not isinstance(value, dict) or "inputs" not in value:
        raise InvalidInput(f'the body has no "inputs"; send {FORM}')
    parameters = value.get("parameters")
    if not isinstance(parameters, dict | None):
        raise InvalidInput(f'"parameters" must be an object; send {FORM}')
    others = {key: item for key, item in value.items() if key not in ("inputs", "parameters")}
    return value["inputs"], parameters or {}, others


def reject_unknown(fields: Mapping[str, Any]) -> None:
    """Raise `InvalidInput` for a JSON body with `fields` that it may not have."""
    if fields:
        raise InvalidInput(f"the body has an unknown key {min(fields)!r}; send {FORM}")


def decode_text(body: bytes) -> str:
    """Decode a body from UTF-8."""
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRequest(f"the body is not UTF-8: {error}") from error


def is_file(kind: str) -> bool:
    """Return True if `kind` is a media type of images, audio, video or plain bytes."""
    return kind.startswith(("image/", "audio/", "video/")) or kind == "application/octet-stream"


def describe_bodies(accepts: Collection[str]) -> str:
    """Return the bodies that a task `accepts`, as words to follow "send"."""
    known = {
        "text": "text/plain in UTF-8",
        "bytes": "the bytes of a file as application/octet-stream",
        "json": f"application/json: {FORM}",
    }
    return ", or ".join(words for kind, words in known.items() if kind in accepts)


def _is_deep(value: Any) -> bool:
    """Return True if `value` is too deep for code that walks it by recursion later."""
    level = [value]
    for _ in range(MOST_DEPTH):
        containers = (item for item in level if isinstance(item, (list, dict)))
        parts = (item.values() if isinstance(item, dict) else item for item in containers)
        level = [item for part in parts for item in part]
    return any(isinstance(item, (list, dict)) for item in level)


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
