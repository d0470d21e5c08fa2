"""Calls of models by HTTP requests: the queue, errors of inputs, time-outs and disconnects."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp, Message, Receive

from notebook_serve import Server

from ..helpers import small_models
from ..helpers.blocking_model import Gate, eventually
from ..helpers.http_errors import error_of

Make = Callable[..., Server]


def echo(inputs: list[Any]) -> list[Any]:
    return inputs


def test_a_list_is_as_many_entries_answered_in_order(make: Make, client: httpx.Client) -> None:
    """Each input of a list is an entry of the queue, and they may share a batch."""
    server = make(echo)
    assert client.post(server.url, json={"inputs": list(range(40))}).json() == list(range(40))
    assert len(server.records()) == 40


def test_what_the_task_rejects_is_422_with_the_items_position(
    make: Make, client: httpx.Client
) -> None:
    """The error of a list has the index of the invalid input."""
    server = make(small_models.pipeline("fill-mask"))
    assert error_of(client.post(server.url, content="no mask")) == (422, "InvalidInput")
    response = client.post(server.url, json={"inputs": ["a [MASK]", "b [MASK]", "none"]})
    assert error_of(response) == (422, "InvalidInput")
    assert response.json()["index"] == 2
    wrong = {"inputs": "a [MASK]", "parameters": {"temperature": 1}}
    assert "temperature" in client.post(server.url, json=wrong).json()["error"]


def test_a_list_with_a_bad_item_leaves_nothing_in_the_queue(
    make: Make, client: httpx.Client
) -> None:
    """When one input has failed, the others leave the queue and do not run."""

    def model(inputs: list[str]) -> list[str]:
        return inputs

    model.length = len  # type: ignore[attr-defined]
    server = make(model)
    server.pause()
    response = client.post(server.url, json={"inputs": ["a", "b", None, "d"]})
    assert error_of(response) == (422, "InvalidInput")
    assert response.json()["index"] == 2
    eventually(lambda: server.stats().queue_depth == 0, "the others have left")
    assert server.stats().outcomes["cancelled"] == 3
    server.resume()


@pytest.mark.parametrize("path", ["", "/models/default"])
def test_an_answer_that_cannot_be_sent_is_among_the_errors(
    make: Make, client: httpx.Client, path: str
) -> None:
    """The error is in `errors`, with the id of the request."""
    server = make(lambda inputs: [object() for _ in inputs])
    response = client.post(server.url + path, content="x", headers={"X-Request-ID": "mine"})
    assert error_of(response) == (500, "ModelFailed")
    (error,) = server.errors()
    assert (error.type, error.request) == ("TypeError", "mine")
    assert "object" in error.message
    assert server.stats().last_error is not None


@pytest.mark.parametrize("path", ["", "/models/default"])
def test_a_model_whose_answers_cannot_be_sent_is_failing(
    make: Make, client: httpx.Client, path: str
) -> None:
    """The state changes with the first such answer, until one can be sent; `predict` works."""
    server = make(lambda inputs: [object() if given == "bad" else given for given in inputs])
    url = server.url + path
    assert client.post(url, content="bad").status_code == 500
    failing = server.stats().failing
    assert server.state == server.stats().state == "failing"
    assert failing is not None
    assert (failing.type, failing.times) == ("TypeError", 1)
    assert client.get(server.url + "/health").json()["state"] == "failing"
    assert client.post(url, content="good").status_code == 200
    assert server.state == "ready"
    for expected in ("ready", "ready", "failing"):
        assert client.post(url, content="bad").status_code == 500
        assert server.state == expected
    assert type(server.predict("bad")) is object
    assert server.state == "ready"


def test_a_full_queue_is_503_with_retry_after(make: Make, client: httpx.Client) -> None:
    """A request is rejected before it is prepared, and accepted again when there is room."""
    gate = Gate()
    server = make(gate, max_queue_size=1)
    futures = server._engine.submit(["running"], {})
    assert gate.begun.wait(30)
    futures += server._engine.submit(["waiting"], {})
    response = client.post(server.url, content="x")
    assert error_of(response) == (503, "QueueFull")
    assert int(response.headers["retry-after"]) >= 1
    gate.opened.set()
    for future in futures:
        future.result(30)
    assert client.post(server.url, content="x").status_code == 200


def test_time_runs_out_with_504(make: Make, client: httpx.Client) -> None:
    """The client's own shorter timeout applies, also while the model runs."""
    gate = Gate()
    server = make(gate)
    response = client.post(server.url, content="x", headers={"X-Request-Timeout": "0.05"})
    assert error_of(response) == (504, "DeadlineExceeded")
    assert "0.05 s" in response.json()["error"]
    gate.opened.set()


def test_a_client_that_leaves_is_not_computed(make: Make, client: httpx.Client) -> None:
    """Requests of disconnected clients leave the queue and never reach the model."""
    gate = Gate()
    server = make(gate)
    running = server._engine.submit(["first"], {})
    assert gate.begun.wait(30)
    host, port = server._address or ("", 0)
    request = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nleft"
    connections = [socket.create_connection((host, port)) for _ in range(20)]
    for connection in connections:
        connection.sendall(request)
    eventually(lambda: len(server.queue()) == 20, "all wait")
    for connection in connections:
        connection.close()
    eventually(lambda: len(server.queue()) == 0, "nobody waits")
    gate.opened.set()
    running[0].result(30)
    assert client.post(server.url, content="last").json() == "last"
    assert gate.calls == [["first"], ["last"]]
    assert server.stats().outcomes["cancelled"] == 20


# -- without a socket -------------------------------------------------------------------------


async def post(app: ASGIApp, receive: Receive, **headers: str) -> int:
    """Post to an application, and return the status."""
    statuses: list[int] = []

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    named = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/",
        "query_string": b"",
        "headers": [(b"host", b"localhost"), *named],
    }
    await app(scope, receive, send)
    return statuses[0]


def test_a_rejected_call_leaves_its_body_unread(make: Make) -> None:
    """A full queue, or a bad header, is answered before anything is received."""

    async def receive() -> Message:
        raise AssertionError("the body was read")

    gate = Gate()
    server = make(gate, max_queue_size=1)
    assert asyncio.run(post(server.app, receive, x_request_timeout="soon")) == 400
    futures = server._engine.submit(["running"], {})
    assert gate.begun.wait(30)
    futures += server._engine.submit(["waiting"], {})
    assert asyncio.run(post(server.app, receive)) == 503
    gate.opened.set()
    assert [future.result(30).value for future in futures] == ["running", "waiting"]


def test_calls_work_on_one_event_loop_after_another(make: Make) -> None:
    """A server that is started again has a new loop; answers reach the loop of their request."""

    async def receive() -> Message:
        return {"type": "http.request", "body": b"x", "more_body": False}

    server = make(echo)
    assert [asyncio.run(post(server.app, receive)) for _ in range(2)] == [200, 200]
    assert server.stats().outcomes["ok"] == 2


def test_a_disconnect_cancels_the_request_under_any_server(make: Make) -> None:
    """A server that only sends ``http.disconnect`` ends the call; its input leaves the queue."""
    messages: list[Message] = [{"type": "http.request", "body": b"x", "more_body": False}]

    async def receive() -> Message:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    server = make(echo)
    server.pause()
    assert asyncio.run(post(server.app, receive)) == 499
    assert server.stats().outcomes["cancelled"] == 1
    assert len(server.queue()) == 0
    server.resume()
