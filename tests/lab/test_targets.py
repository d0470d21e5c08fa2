"""Targets of a load test: the queue of a server, and a URL over real sockets."""

from __future__ import annotations

import asyncio
import math
import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest

from notebook_serve import Greedy, NoBatching, NotReady, Server, Stopping, Unavailable
from notebook_serve.lab.load_test import aload_test, load_test
from notebook_serve.lab.targets import CLIENT, QueueTarget, Reply, UrlTarget, classify_status
from notebook_serve.traffic import Constant

from ..helpers.blocking_model import Gate, eventually
from ..helpers.web_server import WebServer, a_web_server  # noqa: F401 (a fixture)
from .test_load_test import count_open, notes_of

Make = Callable[..., Server]


def echo(inputs: list[Any]) -> list[Any]:
    return inputs


@pytest.fixture(name="pool")
def a_pool() -> Iterator[ThreadPoolExecutor]:
    """Threads for load tests that run beside the test."""
    with ThreadPoolExecutor() as executor:
        yield executor


def send(target: QueueTarget | UrlTarget, count: int, connections: int = 1) -> list[Reply]:
    """Open a target, send requests one after another, and close it."""

    async def run() -> list[Reply]:
        await target.open(connections)
        try:
            return [await target.send(number) for number in range(count)]
        finally:
            await target.close()

    return asyncio.run(run())


# -- the queue of a server ------------------------------------------------------------------


def test_a_reply_of_the_queue_has_the_record_of_its_request(make: Make) -> None:
    """Inputs are sent in turn; the outcome, the times and the batch are those of the record."""

    def fail(inputs: list[Any]) -> list[Any]:
        if "bad" in inputs:
            raise ValueError("a bad input")
        return inputs

    server = make(fail, policy=NoBatching())
    began = time.monotonic()
    replies = send(QueueTarget(server._engine, ["good", "bad"], {}, 30.0), 3)

    assert [reply.outcome for reply in replies] == ["ok", "failed", "ok"]
    assert [reply.error is None for reply in replies] == [True, False, True]
    kind, message = replies[1].error or ("", "")
    assert kind == "ModelFailed"
    assert "a bad input" in message
    for reply, record in zip(replies, server.records(), strict=True):
        assert record.client == CLIENT
        assert (reply.started, reply.finished) == (record.started, record.finished)
        assert (reply.batch_id, reply.batch_size) == (record.batch_id, 1)
        assert began <= reply.finished


def test_a_request_that_the_queue_rejects_has_no_start(make: Make) -> None:
    """A full queue rejects it before it has a record."""
    gate = Gate()
    server = make(gate, policy=NoBatching(), max_queue_size=1)
    with ThreadPoolExecutor(2) as pool:
        pool.submit(server.predict, "runs")
        assert gate.begun.wait(60)
        pool.submit(server.predict, "waits")
        eventually(lambda: count_open(server) == 2, "the queue is full")
        (reply,) = send(QueueTarget(server._engine, ["x"], {}, 30.0), 1)
        gate.opened.set()

    assert (reply.outcome, reply.started, reply.error) == ("rejected", None, None)


def test_a_server_that_accepts_no_requests(make: Make) -> None:
    """`open` raises the server's own error: it was not started, or was stopped."""
    server = make(echo, start=False)
    with pytest.raises(NotReady, match="not been started"):
        load_test(server, ["x"], traffic=[0.0])
    server.start()
    server.stop()
    with pytest.raises(Stopping):
        load_test(server, ["x"], traffic=[0.0])


def test_parameters_reach_the_model(make: Make) -> None:
    """They do through the queue and over HTTP."""
    seen = []

    def model(inputs: list[Any], power: int = 1) -> list[Any]:
        seen.append((inputs, power))
        return inputs

    server = make(model)
    for target in (server, server.url):
        load_test(target, ["x"], traffic=[0.0], parameters={"power": 2})

    assert seen == [(["x"], 2)] * 2


# -- answers over HTTP ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, "ok"),
        (204, "ok"),
        (302, "failed"),
        (400, "invalid"),
        (401, "invalid"),
        (413, "invalid"),
        (422, "invalid"),
        (429, "rejected"),
        (500, "failed"),
        (502, "failed"),
        (503, "rejected"),
        (504, "expired"),
    ],
)
def test_outcome_of_a_status(status: int, outcome: str) -> None:
    """It is that of the server's own table, and similar for other servers."""
    assert classify_status(status) == outcome


def test_every_status_and_none(web: WebServer) -> None:
    """A redirect is not followed; a connection that closes without an answer is a failure."""
    inputs = ["200", "302", "401", "429", "500", "503", "504", "hang up"]

    report = load_test(web.url, inputs, traffic=Constant(100, n=8))

    assert report.records.outcome == [
        "ok", "failed", "invalid", "rejected", "failed", "rejected", "expired", "failed",
    ]  # fmt: skip
    assert len(web.posted) == 8
    notes = " ".join(notes_of(report))
    for name in ("status 302", "status 401", "status 500", "RemoteProtocolError"):
        assert f"1 of 8 requests ended in {name}: " in notes
    assert "no headers Server-Timing and X-Batch-Size" in notes


def test_a_missing_answer_has_expired(web: WebServer) -> None:
    """The client's timeout applies if the server has a longer one."""
    report = load_test(web.url, ["wait"], traffic=[0.0], timeout=0.2)

    (record,) = report.records
    assert record.outcome == "expired"
    assert record.latency >= 0.2


def test_times_over_http_are_the_servers(make: Make, pool: ThreadPoolExecutor) -> None:
    """The answer's headers give the inference time and the size of the batch."""
    gate = Gate()
    server = make(gate, policy=Greedy(4))

    running = pool.submit(load_test, server.url, ["x"], traffic=[0.0] * 5)
    eventually(lambda: count_open(server) == 5, "all are sent")
    gate.opened.set()
    report = running.result(60)

    known = sorted(server.records(), key=lambda record: record.inference_time)
    seen = sorted(report.records, key=lambda record: record.inference_time)
    assert [record.batch_size for record in seen] == [record.batch_size for record in known]
    for ours, theirs in zip(seen, known, strict=True):
        assert ours.inference_time <= theirs.inference_time + 0.001
        assert ours.batch_id is None
    assert seen[-1].inference_time == pytest.approx(known[-1].inference_time, abs=0.001)
    assert (len(report.batches), report.policy) == (0, "")


@pytest.mark.parametrize(
    ("timing", "size", "found"),
    [
        ("queue;dur=1.5, inference;dur=0", "4", 4),
        ("inference;dur=0.25", "1", 1),
        ("queue;dur=1.5", "4", 0),
        ("inference;dur=soon", "4", 0),
        ("inference;dur=0", "0", 0),
        ("inference;dur=0", "many", 0),
        ("inference;dur=0", "", 0),
    ],
)
def test_headers_of_a_batch(web: WebServer, timing: str, size: str, found: int) -> None:
    """A start is known only if both headers are valid; it is never before the request was sent."""
    given = f'{{"Server-Timing": "{timing}", "X-Batch-Size": "{size}"}}'
    began = time.monotonic()
    (reply,) = send(UrlTarget(web.url, [given], {}, 30.0, {}), 1)

    assert (reply.outcome, reply.batch_size) == ("ok", found)
    assert (reply.started is not None) == (found > 0)
    if reply.started is not None:
        assert began <= reply.started <= reply.finished


# -- requests over HTTP ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "parameters", "kind", "body"),
    [
        ("ünï", {}, "text/plain", "ünï".encode()),
        (b"\x00\xff", {}, "application/octet-stream", b"\x00\xff"),
        ({"a": [1]}, {}, "application/json", b'{"inputs": {"a": [1]}}'),
        (3, {}, "application/json", b'{"inputs": 3}'),
        ("x", {"k": 1}, "application/json", b'{"inputs": "x", "parameters": {"k": 1}}'),
        (b"\x00", {"k": 1}, "application/json", b'{"inputs": "AA==", "parameters": {"k": 1}}'),
    ],
)
def test_body_and_headers_of_a_request(
    web: WebServer, given: Any, parameters: Any, kind: str, body: bytes
) -> None:
    """Text and bytes are sent unchanged, other inputs as JSON, with timeout and given headers."""
    load_test(
        web.url,
        [given],
        traffic=[0.0],
        parameters=parameters,
        timeout=7,
        headers={"Authorization": "Bearer secret"},
    )

    ((sent_kind, headers, sent),) = web.posted
    assert (sent_kind, sent) == (kind, body)
    assert headers["Authorization"] == "Bearer secret"
    assert headers["X-Request-Timeout"] == "7.0"


def test_given_headers_replace_the_defaults(web: WebServer) -> None:
    """Their case does not matter; an infinite timeout is not sent."""
    headers = {"content-type": "text/html", "x-request-timeout": "3"}
    load_test(web.url, ["x"], traffic=[0.0], headers=headers)
    load_test(web.url, ["x"], traffic=[0.0], timeout=math.inf)

    (kind, sent, _), (_, endless, _) = web.posted
    assert (kind, sent["x-request-timeout"]) == ("text/html", "3")
    assert "x-request-timeout" not in {name.lower() for name in endless}


def test_a_token_in_a_header(make: Make) -> None:
    """Without it every request is invalid, and a note has the status."""
    server = make(echo, token="secret")

    without = load_test(server.url, ["x"], traffic=[0.0, 0.0])
    headers = {"Authorization": "Bearer secret"}
    within = load_test(server.url, ["x"], traffic=[0.0], headers=headers)

    assert without.outcomes["invalid"] == 2
    assert "status 401" in notes_of(without)[0]
    assert within.outcomes["ok"] == 1


# -- connections ----------------------------------------------------------------------------


def test_connections_are_opened_before_and_reused(web: WebServer) -> None:
    """There is one for each user, for all of its requests."""
    report = load_test(web.url, ["x"], concurrency=4, duration=0.3)

    assert len(web.clients) == 4
    assert len(web.posted) == len(report.records) > 4


def test_the_connection_used_last_is_reused(web: WebServer) -> None:
    """Requests one after another use one of several open connections."""
    send(UrlTarget(web.url, ["x"], {}, 30.0, {}), 5, connections=3)

    assert len(web.clients) == 3
    assert len(web.addresses) == 5
    assert len(set(web.addresses)) == 1


def test_a_closed_connection_is_replaced(web: WebServer) -> None:
    """A request after one that the server hung up on is answered."""
    replies = send(UrlTarget(web.url, ["hang up", "x"], {}, 30.0, {}), 2)

    assert [reply.outcome for reply in replies] == ["failed", "ok"]
    assert replies[0].error is not None
    assert replies[0].error[0] == "RemoteProtocolError"


def test_nothing_is_left_open(make: Make) -> None:
    """Sockets are closed, tasks have ended, and the hidden module can be found again."""
    server = make(echo)
    before = psutil.Process().num_fds()
    hidden = "sniffio" in sys.modules

    async def test() -> set[asyncio.Task[Any]]:
        await aload_test(server.url, ["x"], concurrency=20, duration=0.2)
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert not asyncio.run(test())
    eventually(lambda: psutil.Process().num_fds() <= before, "all are closed")
    assert ("sniffio" in sys.modules) == hidden


def test_a_url_without_a_server() -> None:
    """One error is raised at once, instead of a report full of failures."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(Unavailable, match=f"no server answers at http://127.0.0.1:{port}"):
        load_test(f"http://127.0.0.1:{port}", ["x"], concurrency=5)
