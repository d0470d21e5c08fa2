from __future__ import annotations

import json
import math
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urljoin

import httpx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from notebook_serve import LoaderFailed, Server, serve, servers
from notebook_serve.engine.circuit_breaker import CircuitBreaker
from notebook_serve.http.request import FORM

from ..helpers import small_models
from ..helpers.blocking_model import Gate, eventually

Make = Callable[..., Server]


def echo(inputs: list[Any]) -> list[Any]:
    return inputs


def error_of(response: httpx.Response) -> tuple[int, str]:
    """The status and the type of an error, whose form is checked on the way."""
    body = response.json()
    assert isinstance(body["error"], str)
    assert body["error"]
    assert set(body) <= {"error", "type", "index"}
    return response.status_code, body["type"]


# -- inputs ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (b"plain", None, "plain"),
        (b"plain", "text/plain", "plain"),
        ("grün".encode(), "text/plain; charset=UTF-8", "grün"),
        (b"a=1&b=%20+", "application/x-www-form-urlencoded", "a=1&b=%20+"),
        (b'{"inputs": "x"}', "application/json", "x"),
        (b'{"inputs": ["x", "y"]}', "application/json; charset=utf-8", ["x", "y"]),
        (b'{"inputs": []}', "application/json", []),
        (b'{"inputs": {"a": 1}, "parameters": {}}', "application/vnd.x+json", {"a": 1}),
        (b'{"inputs": null, "parameters": null}', "application/json", None),
        (b'{"inputs": [[1, 2], [3]]}', "application/json", [[1, 2], [3]]),
    ],
)
def test_forms_of_input(
    make: Make, client: httpx.Client, body: bytes, content_type: str | None, expected: Any
) -> None:
    """Text, forms as curl sends them, and JSON all mean what the interface says."""
    headers = {"content-type": content_type} if content_type else {}
    response = client.post(make(echo).url, content=body, headers=headers)
    assert (response.status_code, response.json()) == (200, expected)
    assert response.headers["content-type"] == "application/json"


def test_bytes_reach_a_function_as_bytes(make: Make, client: httpx.Client) -> None:
    """An octet stream is the input as it is."""

    def lengths(inputs: list[bytes]) -> list[int]:
        return [len(value) for value in inputs if isinstance(value, bytes)]

    kind = {"content-type": "application/octet-stream"}
    assert client.post(make(lengths).url, content=b"\0\xff", headers=kind).json() == 2


def test_a_list_is_as_many_entries_answered_in_order(make: Make, client: httpx.Client) -> None:
    """Each item of a list is a request in the queue, and they may share a batch."""
    server = make(echo)
    assert client.post(server.url, json={"inputs": list(range(40))}).json() == list(range(40))
    assert len(server.records()) == 40


def test_the_tutorials_request(make: Make, client: httpx.Client) -> None:
    """What curl -d sends is answered as pipe(x) answers."""
    pipe = small_models.pipeline("fill-mask")
    response = client.post(
        make(pipe).url,
        content="the [MASK] waits",
        headers={"content-type": "application/x-www-form-urlencoded"},
    )
    answers = response.json()
    assert [set(answer) for answer in answers] == [{"score", "token", "token_str", "sequence"}] * 5
    assert answers[0]["token"] == pipe("the [MASK] waits")[0]["token"]


# -- answers --------------------------------------------------------------------------------


def test_answers_become_json(make: Make, client: httpx.Client) -> None:
    """Arrays and numbers of numpy and torch become lists and numbers, NaN becomes null."""
    values = [
        np.float32(0.5), np.arange(3), torch.ones(2, 2), math.nan, {"x": np.float64("inf")},
        {1: (1, 2)}, torch.tensor(3), "\ud800",
    ]  # fmt: skip
    response = client.post(make(lambda xs: [values]).url, content="x")
    assert response.json() == [
        0.5, [0, 1, 2], [[1.0, 1.0], [1.0, 1.0]], None, {"x": None}, {"1": [1, 2]}, 3, "\ud800",
    ]  # fmt: skip


def test_headers_of_every_answer(make: Make, client: httpx.Client) -> None:
    """Timing, batch size and a request id; the client's own id is echoed if it is sane."""
    server = make(echo)
    response = client.post(server.url, json={"inputs": [1, 2, 3]}, headers={"X-Request-ID": "a-1"})
    assert response.headers["x-request-id"] == "a-1"
    assert int(response.headers["x-batch-size"]) == max(r.batch_size for r in server.records())
    queue, inference = response.headers["server-timing"].split(", ")
    assert queue.startswith("queue;dur=")
    assert inference.startswith("inference;dur=")
    longest = max(record.inference_time for record in server.records())
    assert float(inference.partition("=")[2]) == pytest.approx(longest * 1000, abs=0.001)

    for insane in ("", "x" * 200, "tab\there"):
        response = client.post(server.url, content="x", headers={"X-Request-ID": insane})
        assert len(response.headers["x-request-id"]) == 32
    response = client.get(server.url + "/nowhere", headers={"X-Request-ID": "a-2"})
    assert response.headers["x-request-id"] == "a-2"


# -- errors ---------------------------------------------------------------------------------


JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        (b"{", JSON, (400, "BadRequest")),
        (b'{"inputs": NaN}', JSON, (400, "BadRequest")),
        (b"[" * 100_000, JSON, (400, "BadRequest")),
        (b'{"inputs": ' + b"[" * 100 + b"]" * 100 + b"}", JSON, (400, "BadRequest")),
        (b'{"inputs": ' + b'{"a": ' * 900 + b"1" + b"}" * 901, JSON, (400, "BadRequest")),
        (b'{"inputs": 1' + b"0" * 5000 + b"}", JSON, (400, "BadRequest")),
        (b'"\xff"', JSON, (400, "BadRequest")),
        (b"\xff", {}, (400, "BadRequest")),
        (b"x", {"X-Request-Timeout": "soon"}, (400, "BadRequest")),
        (b"x", {"X-Request-Timeout": "-1"}, (400, "BadRequest")),
        (b"x", {"X-Request-Timeout": "nan"}, (400, "BadRequest")),
        (b"x" * 1001, {}, (413, "BodyTooLarge")),
        (b"x", {"content-type": "model/obj"}, (415, "UnsupportedMediaType")),
        (b"x", {"content-type": "text/plain; charset=latin-1"}, (415, "UnsupportedMediaType")),
        (b"[1]", JSON, (422, "InvalidInput")),
        (b'{"input": 1}', JSON, (422, "InvalidInput")),
        (b'{"inputs": 1, "params": {}}', JSON, (422, "InvalidInput")),
        (b'{"inputs": 1, "parameters": [1]}', JSON, (422, "InvalidInput")),
        (b'{"inputs": 1, "parameters": {"a": 1}}', JSON, (422, "InvalidInput")),
        (b'{"inputs": 1, "parameters": []}', JSON, (422, "InvalidInput")),
        (b'{"inputs": 1, "parameters": ""}', JSON, (422, "InvalidInput")),
    ],
)
def test_bad_requests(
    make: Make,
    client: httpx.Client,
    body: bytes,
    headers: dict[str, str],
    expected: tuple[int, str],
) -> None:
    """Each kind of bad request has its status and its type, and the server answers afterwards."""
    server = make(echo, max_body_size=1000 if expected[0] == 413 else 10_000_000)
    response = client.post(server.url, content=body, headers=headers)
    assert error_of(response) == expected
    assert client.post(server.url, content="fine").json() == "fine"


def test_depth_is_not_breadth(make: Make, client: httpx.Client) -> None:
    """Many lists beside each other are fine, and so are a hundred inside each other."""
    deep: Any = []
    for _ in range(97):
        deep = [deep]
    server = make(echo)
    values: list[Any] = [deep, [[]] * 500, "[" * 1000]
    for value in values:
        assert client.post(server.url, json={"inputs": {"a": value}}).json() == {"a": value}


def test_a_missing_inputs_key_shows_the_right_form(make: Make, client: httpx.Client) -> None:
    """The message of a 422 shows what to send."""
    response = client.post(make(echo).url, json={"text": "x"})
    assert FORM in response.json()["error"]


def test_a_text_task_takes_no_bytes(make: Make, client: httpx.Client) -> None:
    """415 where the task cannot take the content type, naming the task."""
    server = make(small_models.pipeline("fill-mask"))
    response = client.post(server.url, content=b"x", headers={"content-type": "image/png"})
    assert error_of(response) == (415, "UnsupportedMediaType")
    assert "fill-mask does not take image/png" in response.json()["error"]


def test_what_the_task_rejects_is_422_with_the_items_position(
    make: Make, client: httpx.Client
) -> None:
    """In a list the error names the position of the item at fault."""
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
    """Once one item has failed nobody wants the others, and they are not computed."""

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


@pytest.mark.parametrize("exposed", [True, False])
def test_a_failing_model_is_500(make: Make, client: httpx.Client, exposed: bool) -> None:
    """Whether the client reads the exception's message is an option; the id finds it in the log."""

    def model(inputs: list[Any]) -> list[Any]:
        raise RuntimeError("secret of the model")

    response = client.post(make(model, expose_errors=exposed).url, content="x")
    assert error_of(response) == (500, "ModelFailed")
    assert ("secret" in response.text) is exposed
    if not exposed:
        assert response.headers["x-request-id"] in response.json()["error"]
    assert response.headers["x-batch-size"] == "1"


@pytest.mark.parametrize("path", ["", "/models/default"])
def test_an_answer_that_cannot_be_sent_is_among_the_errors(
    make: Make, client: httpx.Client, path: str
) -> None:
    """What went wrong is there to be found, with the id of the request."""
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
    """From its first answer on, until one can be sent; `predict` sends nothing, and works."""
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


@pytest.mark.parametrize("exposed", [True, False])
def test_what_a_library_says_of_an_input_is_hidden_too(
    make: Make, client: httpx.Client, caplog: pytest.LogCaptureFixture, exposed: bool
) -> None:
    """Where errors are hidden, so are a library's words in a 422; the id finds them in the log."""

    def model(inputs: list[Any]) -> list[Any]:
        return inputs

    def length(value: Any) -> int:
        raise ValueError("secret of a library")

    model.length = length  # type: ignore[attr-defined]
    server = make(model, expose_errors=exposed)
    response = client.post(server.url, json={"inputs": [1, 2]})
    assert error_of(response) == (422, "InvalidInput")
    assert response.json()["index"] == 0
    assert ("secret" in response.text) is exposed
    known_as = response.headers["x-request-id"]
    assert (known_as in response.json()["error"]) is not exposed
    logged = [line for line in caplog.messages if known_as in line and "secret" in line]
    assert len(logged) == (not exposed)


def test_what_is_said_by_us_of_an_input_is_never_hidden(make: Make, client: httpx.Client) -> None:
    """A parameter that is not allowed, or an input of the wrong form, is told in any case."""
    server = make(small_models.pipeline("fill-mask"), expose_errors=False, max_queue_size=2)
    said = {
        "does not take the parameter 'temper'": {"inputs": "x", "parameters": {"temper": 1}},
        "'top_k' must be a whole number": {"inputs": "x", "parameters": {"top_k": 0}},
        "takes a string, not dict": {"inputs": {"a": 1}},
        "can never fit": {"inputs": ["x"] * 3},
        "has no": {"input": "x"},
    }
    for sentence, body in said.items():
        response = client.post(server.url, json=body)
        assert error_of(response) == (422, "InvalidInput")
        assert sentence in response.json()["error"]
    response = client.post(server.url, content="no mask")
    assert error_of(response) == (422, "InvalidInput")
    assert "mask" not in response.json()["error"].replace("fill-mask", "")


def test_no_folder_of_this_machine_is_told(make: Make, client: httpx.Client) -> None:
    """What failed is told on loopback with the file's name only, wherever it is told."""

    def loader() -> Any:
        raise FileNotFoundError(2, "No such file", "/home/alice/models/config.json")

    failed = make(loader=loader)
    with pytest.raises(LoaderFailed, match="/home/alice"):
        failed.wait_ready(30)

    def model(inputs: list[Any]) -> list[Any]:
        raise RuntimeError("cannot read /home/alice/models/weights.bin and/or C:\\alice\\x.bin")

    answers = [client.get(failed.url + path) for path in ("/ready", "/stats", "/live")]
    answers += [client.post(failed.url, content="x"), client.post(make(model).url, content="x")]
    for answer in answers:
        assert "alice" not in answer.text
        assert "and/or …/x.bin" in answer.text or "…/config.json" in answer.text


def test_a_full_queue_is_503_with_retry_after(make: Make, client: httpx.Client) -> None:
    """Refused at the door, before anything is prepared; answered again once there is room."""
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


def test_loading_is_503_until_ready(make: Make, client: httpx.Client) -> None:
    """While the loader runs the server answers, with 503; /health is fine, /ready is not yet."""
    gate = Gate()
    server = make(loader=lambda: (gate([]), echo)[1])
    response = client.post(server.url, content="x")
    assert error_of(response) == (503, "NotReady")
    assert int(response.headers["retry-after"]) >= 1
    assert client.get(server.url + "/health").status_code == 200
    assert error_of(client.get(server.url + "/ready")) == (503, "NotReady")
    gate.opened.set()
    server.wait_ready(30)
    assert client.get(server.url + "/ready").json() == {"state": "ready"}
    assert client.post(server.url, content="x").json() == "x"


@pytest.mark.parametrize("exposed", [True, False])
def test_a_failing_model_is_ready_and_says_what_fails(
    make: Make, client: httpx.Client, exposed: bool
) -> None:
    """/ready stays 200, or no request could end it; the message is for those who may read it."""

    def broken(inputs: list[Any]) -> list[Any]:
        raise KeyError("secret")

    server = make(broken, expose_errors=exposed)
    server.add("well", echo)
    assert client.post(server.url, content="x").status_code == 500
    ready, health = client.get(server.url + "/ready"), client.get(server.url + "/health")
    (error,) = ready.json()["failing"].values()

    assert (ready.status_code, ready.json()["state"]) == (200, "failing")
    assert list(ready.json()["failing"]) == ["test 0"]
    assert (error["type"], error["times"], error["request"]) == ("KeyError", 1, "1")
    assert error["message"] == ("'secret'" if exposed else "the server's log says what is wrong")
    assert "An answer ends this" in error["next"]
    assert (health.status_code, health.json()) == (200, {"state": "failing"})
    for path in ("/stats", "/stats?model=default", "/live", "/ready", "/models"):
        answer = client.get(server.url + path)
        assert answer.status_code == 200
        assert exposed or "secret" not in answer.text, path
    assert client.get(server.url + "/stats").json()["failing"]["model"] == "test 0"
    assert client.get(server.url + "/live").json()["failing"]["type"] == "KeyError"


def test_an_open_breaker_is_503_and_says_what_failed(make: Make, client: httpx.Client) -> None:
    """While requests are rejected the server is not ready."""

    def broken(inputs: list[Any]) -> list[Any]:
        raise KeyError("secret")

    server = make(broken)
    server._engine._admission.breaker = CircuitBreaker(threshold=3, cool_off=60.0)
    for _ in range(3):
        assert client.post(server.url, content="x").status_code == 500
    ready = client.get(server.url + "/ready")

    assert (ready.status_code, ready.json()["type"]) == (503, "CircuitOpen")
    assert ready.headers["retry-after"] == "60"
    assert ready.json()["failing"]["test 0"]["times"] == 3
    assert "tried again in 60 s" in ready.json()["failing"]["test 0"]["next"]


def test_a_dead_worker_is_503_and_unhealthy(make: Make, client: httpx.Client) -> None:
    """Once the worker is dead, every answer is 503, /health included; start() recovers."""
    deadly = [True]

    def model(inputs: list[Any]) -> list[Any]:
        if deadly[0]:
            raise SystemExit
        return inputs

    server = make(model)
    assert error_of(client.post(server.url, content="x")) == (503, "WorkerDead")
    for path in ("/health", "/ready"):
        assert error_of(client.get(server.url + path)) == (503, "WorkerDead")
    deadly[0] = False
    server.start()
    assert client.get(server.url + "/health").status_code == 200
    assert client.post(server.url, content="x").json() == "x"


def test_time_runs_out_with_504(make: Make, client: httpx.Client) -> None:
    """The client's own shorter timeout holds, while the model still runs."""
    gate = Gate()
    server = make(gate)
    response = client.post(server.url, content="x", headers={"X-Request-Timeout": "0.05"})
    assert error_of(response) == (504, "DeadlineExceeded")
    assert "0.05 s" in response.json()["error"]
    gate.opened.set()


def test_no_such_path_or_method(make: Make, client: httpx.Client) -> None:
    """404 and 405 have the same form as other errors."""
    server = make(echo)
    assert error_of(client.get(server.url + "/nowhere")) == (404, "NotFound")
    assert error_of(client.delete(server.url)) == (405, "MethodNotAllowed")
    assert error_of(client.post(server.url + "/stats")) == (405, "MethodNotAllowed")


def raw(server: Server, text: bytes) -> bytes:
    """What the server says to some bytes, until it closes the connection."""
    host, port = server._address or ("", 0)
    with socket.create_connection((host, port), timeout=30) as connection:
        connection.sendall(text)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_wrong_length_headers(make: Make, client: httpx.Client) -> None:
    """A length that is no number is 400; a body cut short leaves nothing behind."""
    server = make(echo)
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: "
    assert raw(server, head + b"many\r\n\r\nx").startswith(b"HTTP/1.1 400")
    assert raw(server, head + b"-1\r\n\r\nx").startswith(b"HTTP/1.1 400")
    raw(server, head + b"10\r\n\r\nshort")
    assert client.post(server.url, content="fine").json() == "fine"
    assert server.stats().outcomes["ok"] == 1


def test_a_large_body_is_refused_while_it_is_read(make: Make) -> None:
    """A body without a declared length is refused as soon as it is too large."""
    server = make(echo, max_body_size=10)
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = raw(server, head + b"b\r\n" + b"x" * 11 + b"\r\n")  # and no end
    assert answer.startswith(b"HTTP/1.1 413")


def test_a_body_that_does_not_come_is_refused(make: Make, client: httpx.Client) -> None:
    """A client that sends its body a byte at a time has as long as a request may take."""
    server = make(echo, timeout=0.2)
    host, port = server._address or ("", 0)
    with socket.create_connection((host, port), timeout=30) as connection:
        head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n"
        connection.sendall(head + b"a")
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"BodyTooSlow" in answer
    assert client.post(server.url, content="fine").json() == "fine"


def test_a_connection_that_never_asks_is_closed(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a request's head does not keep a connection open for ever."""
    monkeypatch.setattr("notebook_serve.http.transport.uvicorn_thread.KEEP_ALIVE", 0.0)
    server = make(echo)
    host, port = server._address or ("", 0)
    with socket.create_connection((host, port), timeout=30) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: loc")
        assert connection.recv(65536) == b""


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=200),
            st.sampled_from(
                [
                    b"POST / HTTP/1.1\r\n", b"GET /stats HTTP/1.1\r\n", b"Host: localhost\r\n",
                    b"Content-Length: 5\r\n", b"Content-Length: 99999999999\r\n",
                    b"Transfer-Encoding: chunked\r\n", b"Content-Type: application/json\r\n",
                    b"X-Request-Timeout: 1e999\r\n", b"Connection: close\r\n", b"\r\n",
                    b"5\r\nhello\r\n0\r\n\r\n", b'{"inputs": [[[[', b'{"inputs": "\\ud800"}',
                ]
            ),
        ),
        max_size=12,
    )
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_no_bytes_break_the_server(parts: list[bytes]) -> None:
    """Whatever comes over a connection, nothing is answered with 500 and the server lives on."""
    server = fuzzed()
    answer = raw(server, b"".join(parts))
    assert b"HTTP/1.1 500" not in answer
    assert server.predict("alive") == "alive"


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON_VALUES | st.fixed_dictionaries({"inputs": JSON_VALUES, "parameters": JSON_VALUES}))
@settings(max_examples=150, deadline=None)
def test_no_json_breaks_the_server(value: Any) -> None:
    """Any JSON is answered with what it holds, or refused as the client's fault."""
    server = fuzzed()
    body = json.dumps(value).encode()
    headers = {"content-type": "application/json"}
    response = httpx.post(server.url, content=body, headers=headers)
    assert response.status_code in (200, 400, 422)


def fuzzed() -> Server:
    """One server for all examples of a test; the leak check at its end stops it."""
    running = [server for server in servers() if server.name == "fuzzed"]
    return running[0] if running else serve(echo, port=0, name="fuzzed", timeout=5.0)


# -- leaving --------------------------------------------------------------------------------


def test_a_client_that_leaves_is_not_computed(make: Make, client: httpx.Client) -> None:
    """Those who hang up while waiting leave the queue, and the model never sees their inputs."""
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


# -- looking --------------------------------------------------------------------------------


def test_pages_about_the_server(make: Make, client: httpx.Client) -> None:
    """/stats is JSON, and the page is HTML, with what is user's text escaped."""
    server = make(echo, name="<b>bold<b>")
    client.post(server.url, content="x")
    stats = client.get(server.url + "/stats").json()
    assert stats["outcomes"]["ok"] == 1
    assert set(stats) == set(server.stats().to_dict())
    page = client.get(server.url)
    assert page.headers["content-type"].startswith("text/html")
    assert "&lt;b&gt;bold" in page.text
    assert "<b>bold" not in page.text
    assert client.head(server.url).status_code == 200


# -- token ----------------------------------------------------------------------------------


def test_a_token_is_asked_on_every_route_but_health(make: Make, client: httpx.Client) -> None:
    """Without the token nothing but /health answers; with it everything does."""
    server = make(echo, token="s3cret")
    looking = ["/", "/stats", "/ready", "/live", "/static/dashboard.js", "/info", "/v1/models"]
    looking += ["/models/default/info", "/models/default/health", "/v1/models/default"]
    looking += ["/metrics", "/models", "/models/default", "/openapi.json"]
    for method, path in [("POST", "/"), *(("GET", path) for path in looking)]:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic s3cret"}):
            response = client.request(method, server.url + path, headers=headers)
            assert response.status_code == 401
            if not path.startswith("/v1/"):
                assert error_of(response) == (401, "Unauthorized")
            assert response.headers["www-authenticate"] == "Bearer"
        good = {"authorization": "Bearer s3cret"}
        body = b"x" if method == "POST" else None
        response = client.request(method, server.url + path, headers=good, content=body)
        assert response.status_code == 200
    assert client.get(server.url + "/health").status_code == 200
    assert client.get(server.url + "/nowhere").status_code == 401


def test_a_token_may_be_any_text(make: Make, client: httpx.Client) -> None:
    """One that is not ASCII is compared as the bytes that clients send."""
    server = make(echo, token="schlüssel")

    def status(token: bytes) -> int:
        headers = {b"authorization": b"Bearer " + token}
        return client.post(server.url, content="x", headers=headers).status_code

    assert status("schlüssel".encode()) == 200
    with server.httpx() as own:
        assert own.post("/", content="x").status_code == 200
    assert status(b"schl\xfcssel") == status(b"\xff") == 401
    assert client.get(server.url, params={"token": "schlüss"}).status_code == 401
    assert client.get(server.url, params={"token": "schlüssel"}).status_code == 303


def test_a_browser_shows_the_token_once(make: Make, client: httpx.Client) -> None:
    """?token= on the page sets a strict cookie that does not hold the token, and cleans the URL."""
    server = make(echo, token="s3cret")
    assert client.get(server.url + "/?token=wrong").status_code == 401
    response = client.get(server.url + "/?token=s3cret")
    assert response.status_code == 303
    assert response.headers["location"] == "./"
    cookie = response.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "s3cret" not in cookie
    assert client.get(server.url + "/").status_code == 200  # the client keeps cookies
    with httpx.Client() as other:
        assert other.post(server.url + "/?token=s3cret", content="x").status_code == 401


def test_a_redirect_stays_where_it_was_asked(make: Make, client: httpx.Client) -> None:
    """Its address is relative, so a proxy's prefix stays, and no path leads to another host."""
    url = make(echo, token="s3cret").url.rstrip("/")
    for path in ("/", "/stats", "/models/default", "//evil.test/stats"):
        response = client.get(f"{url}{path}?token=s3cret")
        assert response.status_code == 303
        location = response.headers["location"]
        assert location.startswith("./")
        # Python joins "//" to "/", which a browser does not.
        assert urljoin(f"{url}{path}?token=s3cret", location) == url + path.replace("//", "/")


BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


def test_a_browser_without_the_token_is_asked_for_it(make: Make, client: httpx.Client) -> None:
    """The page is a form without a script, and tells neither the token nor what was sent."""
    url = make(echo, token="s3cret").url
    pages = [
        client.get(url, headers={"accept": accept, **more}, params=asked)
        for accept in (BROWSER, "text/html")
        for more in (
            {},
            {"authorization": "Bearer wrong<b>"},
            {"cookie": "notebook_serve=wrong<b>"},
        )
        for asked in ({}, {"token": "wrong<b>"}, {"model": "other"})
    ]

    assert len({page.text for page in pages}) == 1
    page = pages[0]
    assert {one.status_code for one in pages} == {401}
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["www-authenticate"] == "Bearer"
    assert page.headers["cache-control"] == "no-store"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "<script" not in page.text
    for text in ("wrong", "s3cret"):
        assert text not in page.text


def test_other_clients_and_paths_are_told_as_json(make: Make, client: httpx.Client) -> None:
    """Only the page is asked for by a browser; the sentence names what a browser may open."""
    url = make(echo, token="s3cret").url.rstrip("/")
    html = {"accept": BROWSER}
    for method, path, headers in [
        ("GET", "/", {"accept": "*/*"}),
        ("GET", "/", {"accept": "application/json"}),
        ("POST", "/", html),
        ("GET", "/stats", html),
        ("GET", "/static/page.css", html),
    ]:
        response = client.request(method, url + path, headers=headers)
        assert error_of(response) == (401, "Unauthorized")
        said = response.json()["error"]
        assert "Authorization: Bearer TOKEN" in said
        assert "/?token=TOKEN" in said


# -- pages and names -------------------------------------------------------------------------


def test_a_page_from_elsewhere_may_not_ask(make: Make, client: httpx.Client) -> None:
    """A browser that was sent here by another page is refused, unless that page is allowed."""
    server = make(echo, allow_origins=["https://good.example"])
    for origin in ("https://evil.example", "null", "http://localhost:1"):
        response = client.post(server.url, content="x", headers={"Origin": origin})
        assert error_of(response) == (403, "Forbidden")
    for origin in (server.url, "https://good.example"):
        response = client.post(server.url, content="x", headers={"Origin": origin})
        assert response.json() == "x"
    assert response.headers["access-control-allow-origin"] == "https://good.example"
    assert server.stats().outcomes["ok"] == 2


def test_a_browser_asks_before_it_sends(make: Make, client: httpx.Client) -> None:
    """The preflight of an allowed page is answered, even where a token is set."""
    server = make(echo, token="t", allow_origins=["https://good.example"])
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-a"}
    good = client.options(server.url, headers={"Origin": "https://good.example", **asked})
    assert good.status_code == 200
    assert good.headers["access-control-allow-origin"] == "https://good.example"
    bad = client.options(server.url, headers={"Origin": "https://evil.example", **asked})
    assert "access-control-allow-origin" not in bad.headers


def test_a_name_that_is_not_this_servers_is_refused(make: Make, client: httpx.Client) -> None:
    """A name of somebody else's that points here (DNS rebinding) reads and asks nothing."""
    server = make(echo, allow_hosts=["mine.example"])
    for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "[::2]:80"):
        for method in ("GET", "POST"):
            response = client.request(method, server.url, headers={"Host": host})
            assert error_of(response) == (403, "Forbidden")
    for host in ("localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]", "[::1]:80", "mine.example"):
        response = client.post(server.url, content="x", headers={"Host": host})
        assert response.json() == "x"


# -- under another server ---------------------------------------------------------------------


def test_the_app_under_another_servers_lifespan() -> None:
    """Run by any ASGI server, the app starts the engine and stops it at the end."""
    import asyncio

    server = serve(echo, start=False)

    async def run() -> None:
        transport = httpx.ASGITransport(server.app)
        async with (
            server.app.router.lifespan_context(server.app),
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
        ):
            answers = await asyncio.gather(*(client.post("/", content=str(n)) for n in range(20)))
            assert [answer.json() for answer in answers] == [str(n) for n in range(20)]
            assert json.loads((await client.get("/ready")).text) == {"state": "ready"}
        assert server.state == "stopped"

    asyncio.run(run())
