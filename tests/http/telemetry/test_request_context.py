"""The facts about a request that the access log and traces report."""

from __future__ import annotations

from typing import Any

from notebook_serve import RequestRecord
from notebook_serve.http.telemetry.request_context import (
    MODEL,
    RECORDS,
    REQUEST_ID,
    RequestContext,
)

SCOPE: dict[str, Any] = {"type": "http", "method": "GET", "path": "/stats", "headers": []}


def record(number: int, started: float | None, finished: float, **more: Any) -> RequestRecord:
    """Return the record of a request that arrived at time 1."""
    return RequestRecord(number, 1.0, started, finished, "ok", **more)


def test_a_request_to_no_model_has_no_times() -> None:
    """Without notes in the scope, text is empty and numbers are None."""
    context = RequestContext.of(SCOPE, 404)

    assert (context.request_id, context.client, context.model) == ("", "", "")
    assert (context.method, context.path, context.status) == ("GET", "/stats", 404)
    assert (context.queue_time, context.inference_time, context.batch_size) == (None, None, None)
    assert context.batches == []


def test_the_notes_in_the_scope_are_read() -> None:
    """The id, the model and the client's address come from the ASGI scope."""
    notes = {REQUEST_ID: "mine", MODEL: "default", "client": ("::1", 5000)}
    context = RequestContext.of({**SCOPE, **notes}, 200)

    assert (context.request_id, context.model) == ("mine", "default")
    assert context.client == "::1:5000"


def test_a_path_is_escaped_and_has_no_query() -> None:
    """A newline in a path cannot forge a line, and a token in the query is not reported."""
    scope = {**SCOPE, "path": "/a\nb ü", "query_string": b"token=s3cret"}

    assert RequestContext.of(scope, 404).path == "/a%0Ab%20%C3%BC"


def test_a_list_has_the_times_of_its_slowest_input() -> None:
    """Each time is a maximum over the inputs; every batch is named once, in order."""
    records = [
        record(1, 1.5, 3.0, batch_id=8, batch_size=2),
        record(2, 1.25, 3.0, batch_id=7, batch_size=4),
        record(3, 1.5, 3.0, batch_id=8, batch_size=2),
    ]
    context = RequestContext.of({**SCOPE, RECORDS: records}, 200)

    assert (context.queue_time, context.inference_time) == (0.5, 1.75)
    assert (context.batches, context.batch_size) == ([7, 8], 4)


def test_a_request_that_never_ran_has_waited_only() -> None:
    """A request that timed out in the queue has a queue time, but no batch."""
    context = RequestContext.of({**SCOPE, RECORDS: [record(1, None, 4.0)]}, 504)

    assert (context.queue_time, context.inference_time) == (3.0, 0.0)
    assert (context.batches, context.batch_size) == ([], None)
