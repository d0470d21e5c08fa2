"""Spans of requests and batches, and their links, with the real SDK."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler
from opentelemetry.trace import SpanKind, StatusCode

from notebook_serve import DeadlineExceeded, Greedy, NoBatching, Server
from notebook_serve.extras import MissingExtra

from ...helpers.blocking_model import Gate, eventually

Make = Callable[..., Server]
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def echo(inputs: list[Any]) -> list[Any]:
    return inputs


class Spans:
    """A tracer provider and its finished spans."""

    def __init__(self, sampler: Sampler = ALWAYS_ON) -> None:
        self.provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self._exporter = InMemorySpanExporter()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def all(self) -> Sequence[ReadableSpan]:
        """Return the spans that have ended, in that order."""
        return self._exporter.get_finished_spans()

    def named(self, start: str) -> list[ReadableSpan]:
        """Return the spans with this start of their name."""
        return [span for span in self.all() if span.name.startswith(start)]


def linked(span: ReadableSpan) -> set[int]:
    """Return the ids of the spans that a span is linked to."""
    return {link.context.span_id for link in span.links}


def id_of(span: ReadableSpan) -> int:
    context = span.get_span_context()
    assert context is not None
    return context.span_id


def about(span: ReadableSpan) -> dict[str, Any]:
    """Return the attributes of a span."""
    return dict(span.attributes or {})


def test_each_request_is_linked_to_its_batch_and_back(make: Make) -> None:
    """Each HTTP request has a span, linked with that of their common batch."""
    spans, server = Spans(), make(echo, policy=Greedy(8))
    other = server.add("other", echo, policy=Greedy(8))
    server.trace(spans.provider)
    other.pause()
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(httpx.post, other.url, content=str(n)) for n in range(3)]
        eventually(lambda: len(other.queue()) == 3, "all wait")
        other.resume()
        assert [future.result(30).status_code for future in asked] == [200] * 3
    eventually(lambda: len(spans.all()) == 4, "all spans have ended")
    (batch,) = spans.named("batch other")
    requests = spans.named("POST /models/{name}")
    (record,) = other.batches()

    assert linked(batch) == {id_of(request) for request in requests}
    assert batch.parent is None
    assert about(batch)["notebook_serve.batch.size"] == 3
    assert about(batch)["notebook_serve.batch.reason"] == record.reason
    assert batch.end_time is not None
    assert batch.start_time is not None
    assert batch.end_time - batch.start_time == pytest.approx(record.seconds * 1e9, abs=1e6)
    for request in requests:
        assert request.kind is SpanKind.SERVER
        assert linked(request) == {id_of(batch)}
        assert about(request)["http.response.status_code"] == 200
        assert about(request)["notebook_serve.model"] == "other"
        assert about(request)["notebook_serve.queue.seconds"] > 0
        (event,) = request.events
        assert event.timestamp == batch.start_time
        assert request.start_time is not None
        assert request.end_time is not None
        assert request.start_time <= event.timestamp <= request.end_time


def test_a_trace_is_continued(make: Make) -> None:
    """The span in the client's ``traceparent`` is the parent, and decides the sampling."""
    spans, server = Spans(ParentBased(ALWAYS_ON)), make(echo)
    server.trace(spans.provider)
    for flags in ("01", "00"):
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-{flags}"}
        assert httpx.post(server.url, content="x", headers=headers).status_code == 200
    httpx.post(server.url, content="x", headers={"traceparent": "nonsense"})
    eventually(lambda: len(spans.named("POST /")) == 2, "two are sampled")
    first, third = spans.named("POST /")

    assert first.parent is not None
    assert (f"{first.parent.trace_id:032x}", f"{first.parent.span_id:016x}") == (TRACE, PARENT)
    assert first.parent.is_remote
    assert third.parent is None
    assert [len(batch.links) for batch in spans.named("batch")] == [1, 1]


def test_a_list_is_one_request_of_many_batches(make: Make) -> None:
    """A list has one span, linked once with each batch of its inputs."""
    spans, server = Spans(), make(echo, policy=Greedy(2))
    server.trace(spans.provider)
    httpx.post(server.url, json={"inputs": list(range(6))})
    eventually(lambda: len(spans.named("POST")) == 1, "it has ended")
    (request,), batches = spans.named("POST"), spans.named("batch")

    assert len(batches) == len(server.batches()) >= 3
    assert linked(request) == {id_of(batch) for batch in batches}
    assert all(linked(batch) == {id_of(request)} for batch in batches)
    assert len(request.events) == len(batches)


def test_a_call_in_a_cell_has_a_span_within_the_callers(make: Make) -> None:
    """`predict` and `apredict` have a span, a child of the caller's current span."""
    spans, server = Spans(), make(echo)
    server.trace(spans.provider)
    with spans.provider.get_tracer("mine").start_as_current_span("my cell") as mine:
        server.predict("x")
        asyncio.run(server.apredict("x"))
    calls, batches = spans.named("predict test 0"), spans.named("batch")

    assert [call.parent and call.parent.span_id for call in calls] == [
        mine.get_span_context().span_id
    ] * 2
    assert [linked(batch) for batch in batches] == [{id_of(call)} for call in calls]


def test_what_goes_wrong_is_seen(make: Make) -> None:
    """The span of an error has its status; a request that never ran has no batch."""
    spans, gate = Spans(), Gate()
    server = make(gate, policy=NoBatching(), max_queue_size=2)
    server.trace(spans.provider)
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(httpx.post, server.url, content="x", timeout=60)
        assert gate.begun.wait(30)
        late = {"X-Request-Timeout": "0.05"}
        assert httpx.post(server.url, content="x", headers=late).status_code == 504
        assert httpx.post(server.url, json=3).status_code == 422
        with pytest.raises(DeadlineExceeded):
            server.predict("x", timeout=0.05)
        gate.opened.set()
        assert running.result(30).status_code == 200
    eventually(lambda: len(spans.named("POST")) == 3, "all have ended")
    by_status = {about(span)["http.response.status_code"]: span for span in spans.named("POST")}
    (call,) = spans.named("predict")

    assert by_status[504].status.status_code is StatusCode.ERROR
    assert about(by_status[504])["error.type"] == "504"
    assert by_status[422].status.status_code is StatusCode.UNSET
    assert call.status.status_code is StatusCode.ERROR
    assert [len(by_status[status].links) for status in (200, 422, 504)] == [1, 0, 0]
    assert len(spans.named("batch")) == 1


def test_gets_and_rejected_requests_have_no_span(make: Make) -> None:
    """GET requests and those without the token have no span, so they cannot fill a trace."""
    spans, server = Spans(), make(echo, token="s3cret")
    server.trace(spans.provider)
    headers = {"Authorization": "Bearer s3cret"}
    for path in ("/", "/live", "/stats", "/health"):
        assert httpx.get(server.url + path, headers=headers).status_code == 200
    assert httpx.post(server.url, content="x").status_code == 401

    assert spans.all() == ()


def test_where_none_is_sampled_there_is_no_batch(make: Make) -> None:
    """If no request is sampled, the batch has no span."""
    spans, server = Spans(ALWAYS_OFF), make(echo)
    server.trace(spans.provider)
    assert httpx.post(server.url, content="x").status_code == 200
    assert server.predict("x") == "x"

    assert spans.all() == ()


def test_an_exporter_that_fails_costs_no_answer(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """An error of tracing is logged, and all requests are answered."""
    spans, server = Spans(), make(echo)
    server.trace(spans.provider)

    def breaks(*arguments: Any) -> None:
        raise RuntimeError("no room")

    tracing: Any = server._engines.tracing
    tracing._make_batch_span = breaks
    with caplog.at_level(logging.ERROR, "notebook_serve"):
        assert [server.predict(n) for n in range(3)] == [0, 1, 2]

    assert "cannot make the span of batch" in caplog.text
    assert server.state == "ready"


def test_models_that_are_added_later_are_traced_too(make: Make) -> None:
    """`trace` applies to the whole server, and may be called twice."""
    spans, server = Spans(), make(echo)
    server.trace(spans.provider)
    server.trace(spans.provider)
    server.add("other", echo).predict("x")

    assert [span.name for span in spans.all()] == ["batch other", "predict other"]


def test_without_the_extra_the_command_is_named(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`trace` raises with the command to install, and the server runs on."""
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", None)
    server = make(echo)
    with pytest.raises(MissingExtra, match=r"notebook-serve\[tracing\]"):
        server.trace()

    assert server.predict("x") == "x"
