"""HTTP in, the engine's queue, HTTP out. Errors become JSON; nothing heavy happens here.

The event loop reads, checks and answers. Preparing and running happen on the engine's threads.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import math
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from .display import render
from .encoding import to_json
from .engine import Answer, Engine
from .errors import (
    BadRequest,
    BodyTooLarge,
    InvalidInput,
    ModelFailed,
    NotReady,
    ServeError,
    Unauthorized,
    Unavailable,
    UnsupportedMediaType,
    WorkerDead,
)
from .jobs import RequestRecord
from .stats import Stats

logger = logging.getLogger("notebook_serve")

FORM = '{"inputs": ..., "parameters": {...}}'
COOKIE = "notebook_serve"
#: seconds after which it is noticed that a client has gone
UNWATCHED = 0.01


@dataclass(frozen=True)
class HttpOptions:
    """What the HTTP side needs to know."""

    #: most bytes of a body
    max_body_size: int = 10_000_000
    #: what a client must show, or None to let everybody in
    token: str | None = None
    #: whether clients read what exceptions say
    expose_errors: bool = True


def create_app(engine: Engine, options: HttpOptions) -> Starlette:
    """The ASGI application in front of `engine`.

    Under a server that runs lifespans (``uvicorn server:app``) it starts and stops the engine;
    where the engine runs already, it is left running.
    """
    handlers = Handlers(engine, options)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        ours = engine.state in ("new", "stopped", "failed", "dead")
        if ours:
            await asyncio.to_thread(engine.start)
        yield
        if ours:
            await asyncio.to_thread(engine.stop)

    app = Starlette(
        routes=[
            Route("/", handlers.root, methods=["GET", "POST"]),
            Route("/health", handlers.health),
            Route("/ready", handlers.ready),
            Route("/stats", handlers.stats),
        ],
        exception_handlers={
            ServeError: handlers.failed,
            HTTPException: handlers.refused,
            ClientDisconnect: handlers.left,
            Exception: handlers.broken,
        },
        lifespan=lifespan,
    )
    if options.token is not None:
        app.add_middleware(TokenGate, token=options.token)
    return app


class Handlers:
    """The endpoints."""

    def __init__(self, engine: Engine, options: HttpOptions) -> None:
        self._engine = engine
        self._options = options

    async def root(self, request: Request) -> Response:
        """``POST``: ask the model. ``GET``: a page about the server."""
        if request.method == "POST":
            return await self._ask(request)
        stats = await self._stats()
        page = render(
            "page.html",
            name=self._engine.name,
            state=stats.state,
            model=stats.model,
            stats=stats,
            url=request.base_url,
        )
        return HTMLResponse(page)

    async def health(self, request: Request) -> Response:
        """Whether the process answers and its worker lives."""
        if self._engine.state == "dead":
            raise WorkerDead(str(self._engine.cause), 1)
        return _json({"state": self._engine.state})

    async def ready(self, request: Request) -> Response:
        """Whether the model is loaded and requests are accepted."""
        refusal = self._engine.closed()
        if refusal is not None:
            raise refusal
        return _json({"state": self._engine.state})

    async def stats(self, request: Request) -> Response:
        """The statistics as JSON."""
        return _json((await self._stats()).to_dict())

    async def _stats(self) -> Stats:
        # Sorting thousands of records is not for the event loop.
        stats = await asyncio.to_thread(self._engine.stats)
        if stats.error and not self._options.expose_errors:
            stats = replace(stats, error="the server's log says what is wrong")
        return stats

    # -- asking -------------------------------------------------------------------------

    async def _ask(self, request: Request) -> Response:
        timeout, client = _timeout(request), _client(request)
        content_type = _content_type(request)
        # Refuse before the body is read, let alone prepared.
        self._engine.check_open(client)
        body = await _body(request, self._options.max_body_size)
        inputs, parameters = self._parse(body, *content_type)
        model = self._engine.model
        assert model is not None  # it was open
        parts = model.split(inputs, parameters)
        futures = self._engine.submit(
            [inputs] if parts is None else parts,
            parameters,
            timeout=timeout,
            client=client,
        )
        answers = await _wait(request, futures, many=parts is not None)
        values = [answer.value for answer in answers]
        records = [answer.record for answer in answers]
        return _json(values[0] if parts is None else values, headers=_headers(request, records))

    def _parse(self, body: bytes, kind: str, charset: str) -> tuple[Any, dict[str, Any]]:
        """The inputs and the parameters that a body means."""
        assert self._engine.model is not None
        accepts = self._engine.model.accepts
        if kind == "application/json" or kind.endswith("+json"):
            return _from_json(body)
        if kind in ("", "application/x-www-form-urlencoded") or kind.startswith("text/"):
            if "text" in accepts and charset in ("", "utf-8", "utf8", "us-ascii"):
                return _text(body), {}
        elif "bytes" in accepts and (
            kind.startswith(("image/", "audio/")) or kind == "application/octet-stream"
        ):
            return body, {}
        raise UnsupportedMediaType(
            f"{self._engine.model.task} does not take {kind or 'text'}"
            + (f" in {charset}" if charset else "")
            + f"; send text/plain in UTF-8, or application/json: {FORM}"
        )

    # -- errors -------------------------------------------------------------------------

    async def failed(self, request: Request, error: Exception) -> Response:
        """An error of ours, as JSON."""
        assert isinstance(error, ServeError)
        message = error.message
        request_id = _request_id(request)
        if isinstance(error, ModelFailed):
            # Where the client reads it too, the log need not repeat it in everybody's cell.
            level = logging.INFO if self._options.expose_errors else logging.ERROR
            logger.log(level, "request %s: %s", request_id, message, exc_info=error.__cause__)
            if not self._options.expose_errors:
                message = f"the model failed on this input; the log says why under {request_id}"
        elif isinstance(error, (WorkerDead, NotReady)) and not self._options.expose_errors:
            message = "the server cannot answer now"
        content: dict[str, Any] = {"error": message, "type": type(error).__name__}
        if error.index is not None:
            content["index"] = error.index
        headers = _headers(request, [error.record] if error.record else [])
        if isinstance(error, Unavailable):
            headers["Retry-After"] = str(error.retry_after)
        if error.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return _json(content, error.status, headers)

    async def refused(self, request: Request, error: Exception) -> Response:
        """Starlette's own refusals (no such path, wrong method), in the same form."""
        assert isinstance(error, HTTPException)
        messages = {
            404: f"there is nothing at {request.url.path}; POST / asks the model",
            405: f"{request.method} is not possible at {request.url.path}",
        }
        content = {
            "error": messages.get(error.status_code, error.detail),
            "type": {404: "NotFound", 405: "MethodNotAllowed"}.get(error.status_code, "HTTPError"),
        }
        return _json(content, error.status_code, {**_headers(request), **(error.headers or {})})

    async def left(self, request: Request, error: Exception) -> Response:
        """Nobody is there to read this."""
        return Response(status_code=499)

    async def broken(self, request: Request, error: Exception) -> Response:
        """A fault of this package: say so, and where to find it."""
        request_id = _request_id(request)
        logger.error("request %s failed inside notebook_serve", request_id, exc_info=error)
        content = {
            "error": f"the server failed on this request; its log says why under {request_id}",
            "type": "InternalError",
        }
        return _json(content, 500, _headers(request))


class TokenGate:
    """Lets in who shows the token: in a header, once in a page's address, or in its cookie."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token.encode()
        # The cookie need not hold the token itself.
        self._cookie = hashlib.sha256(b"notebook-serve cookie\0" + self._token).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request and pass it on; ``/health`` is open to all."""
        if scope["type"] != "http" or scope["path"] == "/health":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        shown = request.query_params.get("token")
        if shown is not None and request.method == "GET" and self._is_token(shown):
            response: Response = RedirectResponse(request.url.path, 303)
            response.set_cookie(COOKIE, self._cookie, httponly=True, samesite="strict")
            await response(scope, receive, send)
        elif self._may_enter(request):
            await self._app(scope, receive, send)
        else:
            error = Unauthorized("this server has a token; send Authorization: Bearer TOKEN")
            content = {"error": error.message, "type": "Unauthorized"}
            headers = {**_headers(request), "WWW-Authenticate": "Bearer"}
            await _json(content, 401, headers)(scope, receive, send)

    def _may_enter(self, request: Request) -> bool:
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self._is_token(value.strip())
        cookie = request.cookies.get(COOKIE, "")
        return hmac.compare_digest(cookie.encode(), self._cookie.encode())

    def _is_token(self, value: str) -> bool:
        return hmac.compare_digest(value.encode(), self._token)


async def _wait(request: Request, futures: Sequence[Future[Answer]], *, many: bool) -> list[Answer]:
    """The answers to one request; or the first error, or `ClientDisconnect` if the client goes."""
    loop = asyncio.get_running_loop()
    waiting = [asyncio.wrap_future(future) for future in futures]
    everything: asyncio.Future[Any] = asyncio.gather(*waiting) if many else waiting[0]
    watches: list[asyncio.Task[None]] = []

    def watch() -> None:
        gone = loop.create_task(_gone(request))
        gone.add_done_callback(lambda _: everything.cancel())
        watches.append(gone)

    # Most answers are there before it pays to listen for the client as well.
    timer = loop.call_later(UNWATCHED, watch)
    try:
        answers = await everything
        return list(answers) if many else [answers]
    except asyncio.CancelledError:
        if any(gone.done() for gone in watches):
            raise ClientDisconnect from None
        raise  # this handler itself was cancelled
    except ServeError as error:
        if many:
            failed = (future.done() and future.exception() is error for future in waiting)
            error.index = list(failed).index(True)
        raise
    finally:
        timer.cancel()
        for gone in watches:
            gone.cancel()
        for future in waiting:
            future.cancel()


async def _gone(request: Request) -> None:
    """Return once the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _body(request: Request, limit: int) -> bytes:
    """The body, refused as soon as it is known to be too large."""
    too_large = BodyTooLarge(f"the body has more than {limit} bytes")
    declared = request.headers.get("content-length")
    if declared is not None:
        if not declared.isdecimal():
            raise BadRequest(f"Content-Length {declared!r} is no number of bytes")
        if int(declared) > limit:
            raise too_large
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise too_large
        chunks.append(chunk)
    if declared is not None and size != int(declared):
        raise BadRequest(f"the body has {size} bytes where Content-Length says {declared}")
    return b"".join(chunks)


def _from_json(body: bytes) -> tuple[Any, dict[str, Any]]:
    try:
        value = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from error
    if not isinstance(value, dict) or "inputs" not in value:
        raise InvalidInput(f'the body has no "inputs"; send {FORM}')
    unknown = set(value) - {"inputs", "parameters"}
    if unknown:
        raise InvalidInput(f"the body has an unknown key {min(unknown)!r}; send {FORM}")
    parameters = value.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise InvalidInput(f'"parameters" must be an object; send {FORM}')
    return value["inputs"], parameters


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _text(body: bytes) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRequest(f"the body is not UTF-8: {error}") from error


def _content_type(request: Request) -> tuple[str, str]:
    """The media type and the charset, in lower case; empty strings where not given."""
    kind, _, rest = request.headers.get("content-type", "").lower().partition(";")
    options = dict(option.strip().partition("=")[::2] for option in rest.split(";"))
    return kind.strip(), options.get("charset", "").strip('"')


def _timeout(request: Request) -> float | None:
    given = request.headers.get("x-request-timeout")
    if given is None:
        return None
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise BadRequest(f"X-Request-Timeout {given!r} is no positive number of seconds")
    return seconds


def _client(request: Request) -> str:
    client = request.scope.get("client")
    return f"{client[0]}:{client[1]}" if client else ""


def _request_id(request: Request) -> str:
    """The id that the client gave, if it is a sane one, or one that is ours."""
    known: str | None = request.scope.get("notebook_serve.request_id")
    if known is None:
        given = request.headers.get("x-request-id", "")
        sane = 0 < len(given) <= 128 and given.isascii() and given.isprintable()
        known = given if sane else os.urandom(16).hex()
        request.scope["notebook_serve.request_id"] = known
    return known


def _headers(request: Request, records: Sequence[RequestRecord] = ()) -> dict[str, str]:
    """The headers of every answer; of a list's items, the slowest and the largest batch."""
    queue = inference = 0.0
    largest = 0
    for record in records:
        queue = max(queue, record.queue_time)
        inference = max(inference, record.inference_time)
        largest = max(largest, record.batch_size)
    return {
        "Server-Timing": f"queue;dur={queue * 1e3:.3f}, inference;dur={inference * 1e3:.3f}",
        "X-Batch-Size": str(largest),
        "X-Request-ID": _request_id(request),
    }


def _json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(to_json(content), status, headers, media_type="application/json")
