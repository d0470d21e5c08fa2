"""Middleware for the access log and for traces, without a server around it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest
from starlette.types import Message, Receive, Scope, Send

from notebook_serve import serve
from notebook_serve.http.telemetry.access_log import logger
from notebook_serve.http.telemetry.telemetry_middleware import (
    AccessLogMiddleware,
    TracingMiddleware,
    watch_status,
)

from .test_tracing import Spans

SCOPE: Scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
START: Message = {"type": "http.response.start", "status": 418, "headers": []}
BODY: Message = {"type": "http.response.body", "body": b""}


class Application:
    """An application that notes the `send` of each call, and answers with `START`."""

    def __init__(self, error: Exception | None = None) -> None:
        self.sends: list[Send] = []
        self._error = error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Note `send`, then raise or answer."""
        self.sends.append(send)
        if self._error is not None:
            raise self._error
        await send(START)


async def receive() -> Message:
    return {"type": "http.disconnect"}


async def send(message: Message) -> None:
    pass


@pytest.fixture
def level() -> Iterator[None]:
    """Restore the level of the access log at the end."""
    before = logger.level
    yield
    logger.setLevel(before)


def test_the_status_is_500_until_a_response_starts() -> None:
    """Every message is passed on; the status is that of the response's start."""
    sent: list[Message] = []

    async def keep(message: Message) -> None:
        sent.append(message)

    async def main() -> None:
        status, watching_send = watch_status(keep)
        assert status() == 500
        await watching_send(START)
        await watching_send(BODY)
        assert status() == 418

    asyncio.run(main())
    assert sent == [START, BODY]


@pytest.mark.parametrize(
    ("threshold", "scope"),
    [(logging.WARNING, SCOPE), (logging.INFO, {"type": "lifespan"})],
    ids=["level", "lifespan"],
)
def test_an_access_log_that_is_off_costs_nothing(
    level: None, caplog: pytest.LogCaptureFixture, threshold: int, scope: Scope
) -> None:
    """Below the level, and for scopes other than HTTP, `send` is passed on as it is."""
    logger.setLevel(threshold)
    application = Application()
    asyncio.run(AccessLogMiddleware(application)(scope, receive, send))

    assert application.sends == [send]
    assert caplog.records == []


def test_an_exception_is_logged_as_500_and_passes_on(
    level: None, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault of the application is in the access log, and reaches the server."""
    application = Application(RuntimeError("a fault"))
    with (
        caplog.at_level(logging.INFO, logger.name),
        pytest.raises(RuntimeError, match="a fault"),
    ):
        asyncio.run(AccessLogMiddleware(application)(dict(SCOPE), receive, send))

    assert [getattr(line, "status", None) for line in caplog.records] == [500]


@pytest.mark.parametrize(("method", "traced"), [("POST", True), ("GET", False)])
def test_only_posts_have_a_span(method: str, traced: bool) -> None:
    """A GET, such as a dashboard sends every second, is passed on with its own `send`."""
    server, spans, application = serve(list, start=False), Spans(), Application()
    server.trace(spans.provider)
    middleware = TracingMiddleware(application, engines=server._engines)
    scope = {**SCOPE, "method": method, "scheme": "http", "http_version": "1.1"}
    asyncio.run(middleware(scope, receive, send))

    assert (application.sends != [send]) is traced
    statuses = [(span.attributes or {}).get("http.response.status_code") for span in spans.all()]
    assert statuses == [418] * traced


def test_without_tracing_a_post_is_passed_on() -> None:
    """A server without `trace` makes no span, and `send` is passed on as it is."""
    server, application = serve(list, start=False), Application()
    asyncio.run(TracingMiddleware(application, engines=server._engines)(SCOPE, receive, send))

    assert application.sends == [send]
