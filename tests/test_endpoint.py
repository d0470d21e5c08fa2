"""One model of a server: its own queue and policy, also as the first model of the server."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from notebook_serve import Endpoint, Endpoints, Greedy, NoBatching, OptionError, Server
from notebook_serve.errors import UnknownAttribute

from .helpers.blocking_model import Gate, eventually

Make = Callable[..., Server]

#: what a server inherits: it means its first model
OF_THE_FIRST = {
    *("apredict", "astream", "batches", "dashboard", "fit_cost", "limits", "model", "name"),
    *("policy", "policy_changes", "predict", "queue", "records", "stream", "what_if"),
}


def echo(inputs: list[Any]) -> list[Any]:
    """Return the inputs."""
    return inputs


def public(kind: type) -> set[str]:
    """Return the names that a class adds to its bases, without private ones."""
    return {name for name in vars(kind) if not name.startswith("_")}


# -- a server is the endpoint of its first model ----------------------------------------------


def test_a_server_overrides_what_covers_all_models() -> None:
    """All other names of an endpoint are inherited, with their help."""
    assert public(Endpoint) - public(Server) == OF_THE_FIRST
    assert public(Endpoint) & public(Server) == {
        *("errors", "pause", "resume", "state", "stats", "url", "wait_ready"),
    }
    for name in public(Endpoint) | public(Server):
        assert inspect.getdoc(getattr(Server, name)), name


def test_a_server_means_its_first_model(make: Make) -> None:
    """Its policy, records and limits are those of ``default``, with other models beside it."""
    server = make(echo, max_queue_size=7, policy=NoBatching())
    other = server.add("other", echo, max_queue_size=9)
    server.policy = Greedy(3)
    server.predict("a")

    first = server["default"]
    assert first.policy == server.policy == Greedy(3)
    assert list(first.records()) == list(server.records())
    assert len(server.records()) == 1
    assert len(other.records()) == 0
    assert (server.limits["max_queue_size"], other.limits["max_queue_size"]) == (7, 9)
    assert server.name == first.name
    assert first.url == f"{server.url}/models/default"


def test_pausing_the_server_pauses_all_and_an_endpoint_only_itself(make: Make) -> None:
    """The state of the server is that of the model which needs most attention."""
    server = make(echo)
    other = server.add("other", echo)
    other.wait_ready(30)
    other.pause()
    assert (server["default"].state, other.state, server.state) == ("ready", "paused", "paused")
    server.pause()
    assert server["default"].state == "paused"
    server.resume()
    assert (server["default"].state, other.state, server.state) == ("ready", "ready", "ready")


def test_statistics_of_the_server_are_the_aggregate(make: Make) -> None:
    """Those of an endpoint are its own."""
    server = make(echo)
    other = server.add("other", echo)
    server.predict(["a", "b"])
    other.predict("c")
    assert server.stats().outcomes["ok"] == 3
    assert other.stats().outcomes["ok"] == 1


# -- options and attributes -------------------------------------------------------------------


def test_a_new_model_has_the_limits_of_the_server_unless_set(make: Make) -> None:
    """Only these three options are inherited."""
    server = make(echo, max_queue_size=7, refuse_late=False, timeout=3, policy=Greedy(2), workers=1)
    inherited = server.add("inherited", echo)
    own = server.add("own", echo, max_queue_size=8, refuse_late=True, timeout=4)
    names = ("max_queue_size", "refuse_late", "timeout")
    assert [inherited.limits[name] for name in names] == [7, False, 3.0]
    assert [own.limits[name] for name in names] == [8, True, 4.0]
    assert inherited.policy != Greedy(2)


@pytest.mark.parametrize(
    ("name", "value", "call"),
    [
        ("timeout", 5, r"pass it when it is made: server.add\(..., timeout=5\)"),
        ("queue_size", 5, r"server.add\(..., max_queue_size=5\)"),
        ("port", 80, r"serve\(..., port=80\)"),
        ("api_key", "secret", r"serve\(..., token='...'\)"),
    ],
)
def test_an_option_that_is_set_later_has_a_hint_with_its_call(
    make: Make, name: str, value: Any, call: str
) -> None:
    """`add` has the options of a model, and only `serve` has those of HTTP."""
    endpoint = make(echo, start=False).add("more", echo)
    with pytest.raises(UnknownAttribute, match=call):
        setattr(endpoint, name, value)


# -- calls ------------------------------------------------------------------------------------


def test_an_interrupted_predict_cancels_its_requests(make: Make) -> None:
    """If one item fails, the others leave the queue and are never computed."""
    gate = Gate()

    def model(inputs: list[Any]) -> list[Any]:
        return [1 / value for value in gate(inputs)]

    server = make(model, policy=NoBatching())
    with ThreadPoolExecutor() as pool:
        asking = pool.submit(server.predict, [0, 1, 2])
        assert gate.begun.wait(30)
        eventually(lambda: len(server.queue()) == 2, "the others are in the queue")
        server.pause()
        gate.opened.set()
        with pytest.raises(Exception, match="division by zero"):
            asking.result(30)
    eventually(lambda: len(server.queue()) == 0, "the others have left")
    assert gate.calls == [[0]]


def test_stream_and_predict_inside_of_the_model_raise(make: Make) -> None:
    """They would wait for their own worker; the error names the call."""
    made: list[Server] = []

    def model(inputs: list[str]) -> list[str]:
        for call in (made[0].predict, made[0].stream):
            with pytest.raises(OptionError, match=rf"^{call.__name__}\(\) was called from inside"):
                call("x")
        return inputs

    made.append(make(model))
    assert made[0].predict("x") == "x"


# -- display ----------------------------------------------------------------------------------


def test_models_are_a_mapping_and_a_table(make: Make) -> None:
    """In order, the first model first; the table has the state and the answers of each."""
    server = make(echo, name="mine", policy=Greedy(2))
    server.add("other", echo, policy=NoBatching())
    server.predict(["a", "b"])
    models = server.models
    assert isinstance(models, Endpoints)
    assert list(models) == ["mine", "other"]
    assert len(models) == 2
    lines = repr(models).splitlines()
    assert [line.split()[:2] for line in lines if line.startswith(("mine", "other"))] == [
        ["mine", "ready"],
        ["other", "ready"],
    ]
    bundle = server["other"]._repr_mimebundle_()
    assert "NoBatching()" in bundle["text/plain"]
    assert "mine" not in bundle["text/plain"]
