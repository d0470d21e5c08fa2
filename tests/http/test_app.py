"""The application: its routes, errors as JSON, health and readiness, and its lifespan."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from notebook_serve import LoaderFailed, Server, serve, servers
from notebook_serve.engine.circuit_breaker import CircuitBreaker

from ..helpers import small_models
from ..helpers.blocking_model import Gate
from ..helpers.http_errors import error_of
from ..helpers.raw_clients import exchange

Make = Callable[..., Server]


def echo(inputs: list[Any]) -> list[Any]:
    return inputs


# -- inputs ---------------------------------------------------------------------------------


def test_the_tutorials_request(make: Make, client: httpx.Client) -> None:
    """A body of ``curl -d`` is answered like ``pipe(x)``."""
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
    """Arrays and numbers of numpy and torch become lists and numbers; NaN becomes null."""
    values = [
        np.float32(0.5), np.arange(3), torch.ones(2, 2), math.nan, {"x": np.float64("inf")},
        {1: (1, 2)}, torch.tensor(3), "\ud800",
    ]  # fmt: skip
    response = client.post(make(lambda xs: [values]).url, content="x")
    assert response.json() == [
        0.5, [0, 1, 2], [[1.0, 1.0], [1.0, 1.0]], None, {"x": None}, {"1": [1, 2]}, 3, "\ud800",
    ]  # fmt: skip


# -- errors ---------------------------------------------------------------------------------


@pytest.mark.parametrize("exposed", [True, False])
def test_a_failing_model_is_500(make: Make, client: httpx.Client, exposed: bool) -> None:
    """`expose_errors` decides if the client reads the message; the id finds it in the log."""

    def model(inputs: list[Any]) -> list[Any]:
        raise RuntimeError("secret of the model")

    response = client.post(make(model, expose_errors=exposed).url, content="x")
    assert error_of(response) == (500, "ModelFailed")
    assert ("secret" in response.text) is exposed
    if not exposed:
        assert response.headers["x-request-id"] in response.json()["error"]
    assert response.headers["x-batch-size"] == "1"


@pytest.mark.parametrize("exposed", [True, False])
def test_a_librarys_message_about_an_input_can_be_hidden(
    make: Make, client: httpx.Client, caplog: pytest.LogCaptureFixture, exposed: bool
) -> None:
    """Hidden errors include a library's message in a 422; the id finds it in the log."""

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


def test_our_own_message_about_an_input_is_never_hidden(make: Make, client: httpx.Client) -> None:
    """Messages of this package about parameters and inputs are always shown."""
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


def test_no_folder_of_this_machine_is_shown(make: Make, client: httpx.Client) -> None:
    """Every route shows a path in an error by its file name only."""

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


def test_loading_is_503_until_ready(make: Make, client: httpx.Client) -> None:
    """While the model loads, requests and /ready get 503, and /health gets 200."""
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
    """/ready stays 200, so that a request can end the state; the message may be hidden."""

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
    assert error["message"] == ("'secret'" if exposed else "see the server's log for details")
    assert "An answer ends this" in error["next"]
    assert (health.status_code, health.json()) == (200, {"state": "failing"})
    for path in ("/stats", "/stats?model=default", "/live", "/ready", "/models"):
        answer = client.get(server.url + path)
        assert answer.status_code == 200
        assert exposed or "secret" not in answer.text, path
    assert client.get(server.url + "/stats").json()["failing"]["model"] == "test 0"
    assert client.get(server.url + "/live").json()["failing"]["type"] == "KeyError"


def test_an_open_breaker_is_503_and_says_what_failed(make: Make, client: httpx.Client) -> None:
    """While the circuit breaker is open, /ready is 503."""

    def broken(inputs: list[Any]) -> list[Any]:
        raise KeyError("secret")

    server = make(broken)
    server._engine.admission.breaker = CircuitBreaker(threshold=3, cool_off=60.0)
    for _ in range(3):
        assert client.post(server.url, content="x").status_code == 500
    ready = client.get(server.url + "/ready")

    assert (ready.status_code, ready.json()["type"]) == (503, "CircuitOpen")
    assert ready.headers["retry-after"] == "60"
    assert ready.json()["failing"]["test 0"]["times"] == 3
    assert "tried again in 60 s" in ready.json()["failing"]["test 0"]["next"]


def test_a_dead_worker_is_503_and_unhealthy(make: Make, client: httpx.Client) -> None:
    """After the worker's death every response is 503, /health included, until `start`."""
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


def test_no_such_path_or_method(make: Make, client: httpx.Client) -> None:
    """404 and 405 have the same form as other errors."""
    server = make(echo)
    assert error_of(client.get(server.url + "/nowhere")) == (404, "NotFound")
    assert error_of(client.delete(server.url)) == (405, "MethodNotAllowed")
    assert error_of(client.post(server.url + "/stats")) == (405, "MethodNotAllowed")


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
    """No bytes lead to a 500, and the server goes on."""
    server = fuzzed()
    answer = exchange(server, b"".join(parts))
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
    """Any JSON is answered, or rejected as the client's error."""
    server = fuzzed()
    body = json.dumps(value).encode()
    headers = {"content-type": "application/json"}
    response = httpx.post(server.url, content=body, headers=headers)
    assert response.status_code in (200, 400, 422)


def fuzzed() -> Server:
    """Return one server for all examples of a test; the leak check at its end stops it."""
    running = [server for server in servers() if server.name == "fuzzed"]
    return running[0] if running else serve(echo, port=0, name="fuzzed", timeout=5.0)


# -- statistics and the page ------------------------------------------------------------------


def test_pages_about_the_server(make: Make, client: httpx.Client) -> None:
    """/stats is JSON, and the page is HTML with the user's text escaped."""
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


# -- under another server ---------------------------------------------------------------------


def test_the_app_under_another_servers_lifespan() -> None:
    """Under any ASGI server the application starts the engine, and stops it at the end."""
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
