"""The access log: off by default, and a correct line for each HTTP request when it is on."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from notebook_serve import Greedy, JsonLines, Server, access_log
from notebook_serve.http.telemetry.access_log import FIELDS, logger

from ...helpers import small_models
from ...helpers.blocking_model import Gate, eventually

Make = Callable[..., Server]


def echo(inputs: list[Any]) -> list[Any]:
    return inputs


class Kept(logging.Handler):
    """A handler that keeps all records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self.records.append(record)


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Give a test an unconfigured logger, and restore it at the end."""
    handlers, level, propagate = list(logger.handlers), logger.level, logger.propagate
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)
    logger.propagate = True
    yield
    logger.handlers[:], logger.propagate = handlers, propagate
    logger.setLevel(level)


@pytest.fixture
def kept() -> Kept:
    """Return a handler that is set on the logger, with its level, in the standard way."""
    handler = Kept()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    return handler


def test_it_is_off_by_default(make: Make) -> None:
    """With a handler but without the level, nothing is logged."""
    handler = Kept()
    logger.addHandler(handler)
    httpx.post(make(echo).url, content="x")

    assert handler.records == []


def test_a_line_has_the_fields_of_a_request(make: Make, kept: Kept) -> None:
    """The line has the id, the request, the status, and the record's times and batch."""
    server = make(echo, policy=Greedy(8))
    server.add("other", echo)
    headers = {"X-Request-ID": "mine-1"}
    answer = httpx.post(server.url + "/models/other", json={"inputs": [1, 2, 3]}, headers=headers)
    eventually(lambda: len(kept.records) == 1, "it is logged")
    told: Any = kept.records[0]
    records = server["other"].records()

    assert told.levelname == "INFO"
    assert (told.method, told.path, told.status) == ("POST", "/models/other", 200)
    assert (told.request_id, told.model) == ("mine-1", "other")
    assert told.client == records[0].client
    assert told.queue_ms == round(1e3 * max(each.queue_time for each in records), 3)
    assert told.inference_ms == round(1e3 * max(each.inference_time for each in records), 3)
    assert told.total_ms >= told.inference_ms
    assert told.batch_ids == sorted({each.batch_id or 0 for each in records})
    assert told.batch_size == int(answer.headers["x-batch-size"])
    for field in ("POST /models/other 200", "id=mine-1", f"queue_ms={told.queue_ms}"):
        assert field in told.getMessage()


def test_a_stream_is_logged_at_its_end(make: Make, kept: Kept) -> None:
    """Only at the end its times and its batch are known."""
    server = make(small_models.pipeline("text-generation"))
    asked = {"inputs": "the", "parameters": {"max_new_tokens": 3}, "stream": True}
    answer = httpx.post(server.url + "/models/default", json=asked, timeout=60)
    assert answer.headers["content-type"].startswith("text/event-stream")
    eventually(lambda: len(kept.records) == 1, "it is logged")
    told: Any = kept.records[0]
    (record,) = server.records()

    assert (told.status, told.batch_ids) == (200, [record.batch_id])
    assert told.inference_ms == round(1e3 * record.inference_time, 3)


def test_rejected_requests_are_logged(make: Make, kept: Kept) -> None:
    """Authorization, input and queue errors are logged as well, but never a token."""
    gate = Gate()
    server = make(gate, token="s3cret", max_queue_size=1)
    url, good = server.url, {"Authorization": "Bearer s3cret"}
    statuses = [
        httpx.post(url, content="x").status_code,
        httpx.get(url, params={"token": "s3cret"}).status_code,
        httpx.get(url + "/nowhere", headers=good).status_code,
        httpx.post(url + "/models/none", content="x", headers=good).status_code,
        httpx.post(url, json=3, headers=good).status_code,
    ]
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(httpx.post, url, content="x", headers=good)
        assert gate.begun.wait(30)
        waiting = pool.submit(httpx.post, url, content="x", headers=good)
        eventually(lambda: len(server.queue()) == 1, "one waits")
        statuses.append(httpx.post(url, content="x", headers=good).status_code)
        gate.opened.set()
        statuses += [running.result(30).status_code, waiting.result(30).status_code]
    eventually(lambda: len(kept.records) == len(statuses), "all are logged")
    told: list[Any] = kept.records

    assert statuses == [401, 303, 404, 404, 422, 503, 200, 200]
    assert sorted(each.status for each in told) == sorted(statuses)
    assert [each.batch_ids for each in told[:6]] == [[]] * 6
    assert not any("s3cret" in each.getMessage() for each in told)


def test_a_path_cannot_forge_a_line(make: Make, kept: Kept) -> None:
    """Newlines and spaces in a path are escaped."""
    httpx.get(make(echo).url + "/a%0A127.0.0.1 POST / 200")
    eventually(lambda: len(kept.records) == 1, "it is logged")

    assert "\n" not in kept.records[0].getMessage()
    assert "/a%0A127.0.0.1%20POST%20/%20200 404" in kept.records[0].getMessage()


def test_a_fault_of_ours_is_a_500(make: Make, kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that passes through all handlers is logged as status 500."""

    def broken(*arguments: Any) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr("notebook_serve.http.app.parse_inputs", broken)
    server = make(echo)
    assert httpx.post(server.url, content="x").status_code == 500
    eventually(lambda: len(kept.records) == 1, "it is logged")

    assert getattr(kept.records[0], "status", None) == 500


def test_one_line_enables_it(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    """Lines are text or JSON, as the last call says, and none is written twice."""
    server = make(echo)
    access_log(json=True)
    access_log()
    assert httpx.post(server.url, content="x").status_code == 200
    eventually(lambda: server.stats().outcomes["ok"] == 1, "it is answered")
    server.stop()
    (line,) = capsys.readouterr().err.splitlines()
    assert "POST / 200 model=test 0 queue_ms=" in line

    access_log(json=True)
    server.start()
    assert httpx.post(server.url, content="x").status_code == 200
    server.stop()
    (line,) = capsys.readouterr().err.splitlines()
    told = json.loads(line)
    assert set(told) == {"time", *FIELDS}
    assert (told["status"], told["batch_size"], told["batch_ids"]) == (200, 1, [1])
    logger.setLevel(logging.WARNING)
    server.start()
    httpx.post(server.url, content="x")
    server.stop()
    assert capsys.readouterr().err == ""


def test_a_formatter_for_a_handler_of_ones_own() -> None:
    """A record without a request's fields is still a line of JSON."""
    record = logging.LogRecord("x", logging.INFO, "", 0, "said", (), None)
    told = json.loads(JsonLines().format(record))

    assert told["status"] is None
    assert told["time"] == pytest.approx(record.created, abs=1e-5)
