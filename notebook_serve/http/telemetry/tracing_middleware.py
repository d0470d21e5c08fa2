"""A span for each request that comes over HTTP; nothing unless tracing was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from starlette.types import ASGIApp, Receive, Scope, Send

from ...engine.registry import EngineRegistry
from .access_log import watched

if TYPE_CHECKING:
    from .tracing import Tracing


class Traced:
    """Has the server's tracing make a span of every POST; without, passes on at once.

    What is only looked at, as by a dashboard every second, has none.
    """

    def __init__(self, app: ASGIApp, *, engines: EngineRegistry) -> None:
        self._app = app
        self._engines = engines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request within its span."""
        tracing = cast("Tracing | None", self._engines.tracing)
        if tracing is None or scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        status, noticing = watched(send)
        with tracing.request(scope) as span:
            try:
                await self._app(scope, receive, noticing)
            finally:
                tracing.answered(span, scope, status())
