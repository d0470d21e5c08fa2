"""OpenTelemetry spans: one for each request, one for each batch, and links between them.

Needs the extra ``tracing``; so nothing imports this file but `Server.trace`.
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

#: what the attributes begin with that are not of OpenTelemetry's conventions
OWN = "notebook_serve."


class Tracing:
    """Makes the spans of a server; those of a batch are made just before it is answered."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("notebook_serve", tracer_provider=provider)

    # -- requests -----------------------------------------------------------------------

    @contextmanager
    def request(self, scope: Scope) -> Iterator[Span]:
        """The span of an HTTP request, current while it is answered; `answered` tells the rest.

        Its parent is the span that the client names, by the propagators that are set (W3C's
        ``traceparent``, unless others are).
        """
        parent = propagate.extract({_text(name): _text(value) for name, value in scope["headers"]})
        span = self._tracer.start_span(
            scope["method"], parent, SpanKind.SERVER, attributes=_about(scope)
        )
        with trace.use_span(span, end_on_exit=True):
            yield span

    def answered(self, span: Span, scope: Scope, status: int) -> None:
        """Say on a request's `span` what became of it."""
        if not span.is_recording():
            return
        exchange = RequestContext.of(scope, status)
        route = getattr(scope.get("route"), "path", "")
        if route:
            span.update_name(f"{exchange.method} {route}")
            span.set_attribute("http.route", route)
        span.set_attribute("http.response.status_code", status)
        _set(span, "request.id", exchange.request_id or None)
        _set(span, "model", exchange.model or None)
        _set(span, "queue.seconds", exchange.queue_time)
        _set(span, "inference.seconds", exchange.inference_time)
        if status >= 500:
            span.set_attribute("error.type", str(status))
            span.set_status(Status(StatusCode.ERROR))

    @contextmanager
    def call(self, name: str, model: str) -> Iterator[None]:
        """The span of a call that comes without HTTP, within the caller's own if it has one."""
        with self._tracer.start_as_current_span(name, attributes={OWN + "model": model}):
            yield

    @contextmanager
    def lasting(self, name: str, model: str) -> Iterator[AbstractContextManager[Span]]:
        """The span of a call that goes on between two steps of its caller.

        It is current only where the context manager that this one gives is entered, so that what
        the caller does between the steps is not taken for a part of it.
        """
        span = self._tracer.start_span(name, attributes={OWN + "model": model})
        try:
            yield trace.use_span(span)
        finally:
            span.end()

    def current(self) -> Span:
        """The span that a request has on its way into the queue."""
        return trace.get_current_span()

    # -- batches ------------------------------------------------------------------------

    def batch(self, model: str, record: BatchRecord, requests: Sequence[Any]) -> None:
        """Make the span of a batch that ran, and link it with those of its `requests`.

        Each is linked to the batch and has an event at the time that the batch began. Where none
        is sampled there is no span. Never raises: answers wait for it.
        """
        try:
            # The items of a list are of one request, and have one span.
            spans = {id(span): span for span in requests if span is not None}.values()
            recorded = [span for span in spans if span.is_recording()]
            if recorded:
                self._batch(model, record, recorded)
        except Exception:
            logger.exception("%s: no span could be made of batch %d", model, record.id)

    def _batch(self, model: str, record: BatchRecord, requests: Sequence[Span]) -> None:
        about: dict[str, str | int | float] = {
            OWN + "model": model,
            OWN + "batch.id": record.id,
            OWN + "batch.size": record.size,
            OWN + "batch.reason": record.reason,
            OWN + "batch.padding": record.padding,
            OWN + "batch.waiting": record.waiting,
            OWN + "batch.retries": record.retries,
        }
        began = _since_1970(record.started)
        span = self._tracer.start_span(
            f"batch {model}",
            Context(),  # of many requests, so the child of none
            attributes=about,
            links=[Link(request.get_span_context()) for request in requests],
            start_time=began,
        )
        span.end(_since_1970(record.started + record.seconds))
        of_this = {OWN + "batch.id": record.id, OWN + "batch.size": record.size}
        for request in requests:
            request.add_link(span.get_span_context(), of_this)
            request.add_event("batch started", of_this, began)


def _about(scope: Scope) -> dict[str, str]:
    about = {
        "http.request.method": scope["method"],
        "url.scheme": scope["scheme"],
        "url.path": scope["path"],
        "network.protocol.version": scope["http_version"],
    }
    if scope.get("client"):
        about["client.address"] = scope["client"][0]
    if scope.get("server"):
        about["server.address"] = scope["server"][0]
    return about


def _set(span: Span, name: str, value: str | float | None) -> None:
    if value is not None:
        span.set_attribute(OWN + name, value)


def _text(value: bytes) -> str:
    return value.decode("latin-1")


def _since_1970(moment: float) -> int:
    """A time of the monotonic clock as OpenTelemetry wants it, in nanoseconds."""
    return time.time_ns() - int((time.monotonic() - moment) * 1e9)
