"""ASGI middleware for the access log and for traces; both pass a request on if they are off."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, cast

from ...engine.registry import EngineRegistry
from .access_log import log_request, logger
from .request_context import RequestContext

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from .tracing import Tracing


class AccessLogMiddleware:
    """Middleware that logs every HTTP request, if the logger's level allows it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, then log it."""
        if scope["type"] != "http" or not logger.isEnabledFor(logging.INFO):
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        status, watching_send = watch_status(send)
        try:
            await self._app(scope, receive, watching_send)
        finally:
            log_request(RequestContext.of(scope, status()), time.monotonic() - began)


class TracingMiddleware:
    """Middleware that makes a span of every authorized POST, if the server has tracing.

    Other methods have no span: a dashboard sends them every second.
    """

    def __init__(self, app: ASGIApp, *, engines: EngineRegistry) -> None:
        self._app = app
        self._engines = engines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request within its span."""
        if scope["type"] != "http" or scope["method"] != "POST" or self._engines.tracing is None:
            await self._app(scope, receive, send)
            return
        tracing = cast("Tracing", self._engines.tracing)
        status, watching_send = watch_status(send)
        with tracing.request(scope) as span:
            try:
                await self._app(scope, receive, watching_send)
            finally:
                tracing.end_request(span, scope, status())


def watch_status(send: Send) -> tuple[Callable[[], int], Callable[[Message], Awaitable[None]]]:
    """Return a function that gives the status sent so far, and the `send` to send with."""
    status = 500  # the status if an exception passes before a response starts

    async def watching_send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        await send(message)

    return lambda: status, watching_send
