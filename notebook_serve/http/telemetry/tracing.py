"""OpenTelemetry spans: one for each request, one for each batch, and links between them.

Needs the extra ``tracing``, so only `Server.trace` imports this module.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, TracerProvider

from ...records import BatchRecord
from .request_context import RequestContext, Scope

logger = logging.getLogger("notebook_serve")

#: prefix of attributes outside OpenTelemetry's conventions
OWN = "notebook_serve."


class Tracing:
    """The spans of a server; that of a batch is made just before its requests are answered."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("notebook_serve", tracer_provider=provider)

    # -- requests -----------------------------------------------------------------------

    @contextmanager
    def request(self, scope: Scope) -> Iterator[Span]:
        """Start the span of an HTTP request, current within the context; see `end_request`.

        Its parent is the client's span, as read by the configured propagators (by default W3C's
        ``traceparent``).
        """
        parent = propagate.extract({_text(name): _text(value) for name, value in scope["headers"]})
        span = self._tracer.start_span(
            scope["method"], parent, SpanKind.SERVER, attributes=_request_attributes(scope)
        )
        with trace.use_span(span, end_on_exit=True):
            yield span

    def end_request(self, span: Span, scope: Scope, status: int) -> None:
        """Set the route, the status and the times of a request on its `span`."""
        if not span.is_recording():
            return
        request = RequestContext.of(scope, status)
        route = getattr(scope.get("route"), "path", "")
        if route:
            span.update_name(f"{request.method} {route}")
            span.set_attribute("http.route", route)
        span.set_attribute("http.response.status_code", status)
        _set(span, "request.id", request.request_id or None)
        _set(span, "model", request.model or None)
        _set(span, "queue.seconds", request.queue_time)
        _set(span, "inference.seconds", request.inference_time)
        if status >= 500:
            span.set_attribute("error.type", str(status))
            span.set_status(Status(StatusCode.ERROR))

    @contextmanager
    def call(self, name: str, model: str) -> Iterator[None]:
        """Start the span of a call without HTTP, as a child of the caller's current span."""
        with self._tracer.start_as_current_span(name, attributes={OWN + "model": model}):
            yield

    @contextmanager
    def lasting(self, name: str, model: str) -> Iterator[AbstractContextManager[Span]]:
        """Start the span of a call that lasts over several steps of its caller.

        The span is current only within the context manager that this one yields. So the caller's
        own work between the steps does not become a part of it.
        """
        span = self._tracer.start_span(name, attributes={OWN + "model": model})
        try:
            yield trace.use_span(span)
        finally:
            span.end()

    def current(self) -> Span:
        """Return the current span, which becomes that of a submitted request."""
        return trace.get_current_span()

    # -- batches ------------------------------------------------------------------------

    def batch(self, model: str, record: BatchRecord, requests: Sequence[Any]) -> None:
        """Make the span of a batch and link it with the spans of its `requests`.

        Each request gets a link to the batch, and an event at the batch's start. If no request is
        sampled, there is no span. Never raises, because the answers wait for it.
        """
        try:
            # The inputs of a list belong to one request, so they share a span.
            spans = {id(span): span for span in requests if span is not None}.values()
            recorded = [span for span in spans if span.is_recording()]
            if recorded:
                self._make_batch_span(model, record, recorded)
        except Exception:
            logger.exception("%s: cannot make the span of batch %d", model, record.id)

    def _make_batch_span(self, model: str, record: BatchRecord, requests: Sequence[Span]) -> None:
        attributes: dict[str, str | int | float] = {
            OWN + "model": model,
            OWN + "batch.id": record.id,
            OWN + "batch.size": record.size,
            OWN + "batch.reason": record.reason,
            OWN + "batch.padding": record.padding,
            OWN + "batch.waiting": record.waiting,
            OWN + "batch.retries": record.retries,
        }
        start = _unix_nanoseconds(record.started)
        span = self._tracer.start_span(
            f"batch {model}",
            Context(),  # no parent, because a batch has many requests
            attributes=attributes,
            links=[Link(request.get_span_context()) for request in requests],
            start_time=start,
        )
        span.end(_unix_nanoseconds(record.started + record.seconds))
        batch = {OWN + "batch.id": record.id, OWN + "batch.size": record.size}
        for request in requests:
            request.add_link(span.get_span_context(), batch)
            request.add_event("batch started", batch, start)


def _request_attributes(scope: Scope) -> dict[str, str]:
    attributes = {
        "http.request.method": scope["method"],
        "url.scheme": scope["scheme"],
        "url.path": scope["path"],
        "network.protocol.version": scope["http_version"],
    }
    if scope.get("client"):
        attributes["client.address"] = scope["client"][0]
    if scope.get("server"):
        attributes["server.address"] = scope["server"][0]
    return attributes


def _set(span: Span, name: str, value: str | float | None) -> None:
    if value is not None:
        span.set_attribute(OWN + name, value)


def _text(value: bytes) -> str:
    return value.decode("latin-1")


def _unix_nanoseconds(moment: float) -> int:
    """Convert a time of the monotonic clock to nanoseconds since 1970."""
    return time.time_ns() - int((time.monotonic() - moment) * 1e9)
