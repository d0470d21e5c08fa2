"""Several models behind one server: each by its name, all started, stopped and seen together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from notebook_serve import (
    CostAware,
    Endpoint,
    Greedy,
    LoaderFailed,
    ModelFailed,
    NoBatching,
    NoSuchModel,
    NotReady,
    OptionError,
    Server,
    Stopping,
    Window,
    compare,
    load_test,
)
from notebook_serve.testing import Faulty

from ..helpers import small_models
from ..helpers.blocking_model import Gate, eventually

Make = Callable[..., Server]


def echo(inputs: list[Any]) -> list[Any]:
    return inputs


def shout(inputs: list[str]) -> list[str]:
    return [text.upper() for text in inputs]


# -- by name ------------------------------------------------------------------------------------


def test_each_model_answers_under_its_name(make: Make, client: httpx.Client) -> None:
    """Over HTTP and without; the first one at / as well, and always as ``default``."""
    server = make(echo, name="mine")
    loud = server.add("loud", shout)

    assert client.post(server.url, content="x").json() == "x"
    for name, answer in (("mine", "x"), ("default", "x"), ("loud", "X")):
        assert client.post(f"{server.url}/models/{name}", content="x").json() == answer
        assert server[name].predict("x") == answer
        assert asyncio.run(server[name].apredict("x")) == answer
    assert client.post(loud.url, json={"inputs": ["a", "b"]}).json() == ["A", "B"]
    assert server.predict("x") == "x"
    assert [len(endpoint.records()) for endpoint in server.models.values()] == [8, 5]


def test_a_server_may_be_called_what_does_not_fit_into_a_path(
    make: Make, client: httpx.Client
) -> None:
    """Its model answers all the same, at ``/models/default``."""
    server = make(echo, name="a & b ..+c")

    assert client.post(server["a & b ..+c"].url, content="x").json() == "x"


def test_a_models_url_takes_all_that_the_server_takes(make: Make, client: httpx.Client) -> None:
    """Text, JSON with parameters, bytes; and refuses what that refuses, in the same way."""

    def times(inputs: list[Any], *, factor: int = 1) -> list[Any]:
        return [value * factor for value in inputs]

    server = make(times)
    other = server.add("other", times)
    kind = {"content-type": "application/json"}
    sent: list[tuple[bytes, dict[str, str]]] = [
        (b"text", {}),
        (b"a=1", {"content-type": "application/x-www-form-urlencoded"}),
        (b'{"inputs": ["x", "y"], "parameters": {"factor": 2}}', kind),
        (b'{"inputs": 1, "parameters": {"power": 2}}', kind),
        (b"{", kind),
        (b"[1]", kind),
        (b"x", {"content-type": "model/gltf"}),
        (b"x", {"X-Request-Timeout": "soon"}),
    ]
    for body, headers in sent:
        first = client.post(server.url, content=body, headers=headers)
        second = client.post(other.url, content=body, headers=headers)
        assert (first.status_code, first.json()) == (second.status_code, second.json())
        assert set(first.headers) == set(second.headers)
    assert len(server["default"].records()) == len(other.records()) == 5


def test_a_name_that_there_is_not(make: Make, client: httpx.Client) -> None:
    """404, or a LookupError, that says which there are."""
    server = make(echo, name="mine")
    server.add("loud", shout)
    for method in ("GET", "POST"):
        response = client.request(method, server.url + "/models/none")
        assert (response.status_code, response.json()["type"]) == (404, "NoSuchModel")
        assert response.json()["error"] == "this server has no model 'none'; it has mine, loud"
    for path in ("/live", "/stats", "/"):
        assert client.get(server.url + path, params={"model": "none"}).status_code == 404
    with pytest.raises(NoSuchModel, match="it has mine, loud"):
        server["none"]
    with pytest.raises(LookupError):
        server.remove("none")
    with pytest.raises(TypeError):
        list(server)  # type: ignore[call-overload]


@pytest.mark.parametrize("name", ["", "a/b", "a b", "../x", "ä", "-x", 3, None, "x" * 101])
def test_a_name_stands_in_a_path(make: Make, name: Any) -> None:
    """One that cannot is refused before anything is made of it."""
    server = make(echo)
    with pytest.raises(OptionError, match="a model's name must be letters"):
        server.add(name, shout)

    assert list(server.models) == ["test 0"]


def test_options_that_make_no_sense_raise_in_the_cell(make: Make) -> None:
    """As those of `serve` do; the first model's names are taken."""
    server = make(echo, name="mine")
    wrong: list[tuple[str, dict[str, Any], str]] = [
        ("mine", {"model": echo}, "the model that the server was made with"),
        ("default", {"model": echo}, "the model that the server was made with"),
        ("other", {}, "give a model"),
        ("other", {"model": echo, "policy": echo}, "a policy must be an object"),
        ("other", {"model": echo, "max_queue_size": 0}, "max_queue_size must be a whole number"),
        ("other", {"model": echo, "timeout": -1}, "timeout must be a positive number"),
    ]
    for name, options, message in wrong:
        with pytest.raises(OptionError, match=message):
            server.add(name, **options)
    for name in ("mine", "default"):
        with pytest.raises(OptionError, match="see stop"):
            server.remove(name)
    assert list(server.models) == ["mine"]


def test_each_has_options_of_its_own(make: Make) -> None:
    """Or those of the server, where none are given."""
    server = make(echo, policy=Greedy(3), max_queue_size=7, timeout=5.0, refuse_late=False)
    other = server.add("other", shout)
    own = server.add(
        "own", shout, policy=Window(2), max_queue_size=1, timeout=1.0, refuse_late=True
    )

    assert other.limits == server.limits
    assert isinstance(other.policy, CostAware)
    assert own.limits == {**server.limits, "max_queue_size": 1, "timeout": 1.0, "refuse_late": True}
    other.policy = NoBatching()
    assert (server.policy, other.policy, own.policy) == (Greedy(3), NoBatching(), Window(2))
    with pytest.raises(OptionError):
        other.policy = "Gredy"


def test_two_pipelines(make: Make, client: httpx.Client) -> None:
    """Different tasks side by side answer as each does alone."""
    mask, classify = (small_models.pipeline(task) for task in ("fill-mask", "text-classification"))
    server = make(mask)
    server.add("classify", classify)
    answer = client.post(server.url + "/models/classify", content="a text").json()

    assert answer[0][0]["label"] == classify("a text")[0]["label"]
    assert (
        client.post(server.url, content="a [MASK]").json()[0]["token"]
        == (mask("a [MASK]")[0]["token"])
    )
    assert server["classify"].model.task == "text-classification"
    assert server.model == server["default"].model
    listed = client.get(server.url + "/models").json()["models"]
    assert [(each["name"], each["task"]) for each in listed] == [
        ("test 0", "fill-mask"),
        ("classify", "text-classification"),
    ]
    assert client.get(server.url + "/models/classify").json() == listed[1]


# -- a worker each ------------------------------------------------------------------------------


def test_one_that_is_busy_or_paused_keeps_no_other_waiting(
    make: Make, client: httpx.Client
) -> None:
    """Each has a worker and a queue, so a full queue is one model's too."""
    gate = Gate()
    server = make(echo)
    slow = server.add("slow", gate, max_queue_size=1, policy=NoBatching())
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(slow.predict, "runs")
        assert gate.begun.wait(30)
        waiting = pool.submit(slow.predict, "waits")
        eventually(lambda: len(slow.queue()) == 1, "it waits")
        assert client.post(slow.url, content="x").status_code == 503
        assert client.post(server.url, content="x").json() == "x"
        assert server.stats().queue_depth == 1
        gate.opened.set()
        assert (running.result(30), waiting.result(30)) == ("runs", "waits")
    slow.pause()
    assert (slow.state, server["default"].state, server.state) == ("paused", "ready", "paused")
    assert server.predict("x") == "x"
    slow.resume()


def test_one_that_dies_is_told_and_comes_back(make: Make, client: httpx.Client) -> None:
    """The others go on, /health says so, and start() makes it a new worker."""
    server = make(echo)
    other = server.add("other", Faulty(echo, die_on="die"))
    assert client.post(other.url, content="die").status_code == 503
    eventually(lambda: server.state == "dead", "its worker is dead")

    assert client.get(server.url + "/health").status_code == 503
    assert client.get(server.url + "/ready").status_code == 503
    assert client.post(server.url, content="x").json() == "x"
    server.start()
    assert client.post(other.url, content="x").json() == "x"
    assert client.get(server.url + "/health").json() == {"state": "ready"}


def test_loading_ends_for_all(make: Make, client: httpx.Client) -> None:
    """A loader of one model keeps only that one waiting; wait_ready waits for every one."""
    gate = Gate()

    def loader() -> Any:
        gate(["loading"])
        return shout

    server = make(echo)
    other = server.add("other", loader=loader)
    assert gate.begun.wait(30)
    assert server.predict("x") == "x"
    assert client.post(other.url, content="x").json()["type"] == "NotReady"
    assert client.get(server.url + "/ready").status_code == 503
    with pytest.raises(NotReady):
        server.wait_ready(0.01)
    server["default"].wait_ready(0.01)
    gate.opened.set()
    server.wait_ready(30)
    assert other.predict("x") == "X"

    def breaks() -> Any:
        raise OSError("no weights")

    broken = server.add("broken", loader=breaks)
    with pytest.raises(LoaderFailed, match="no weights"):
        broken.wait_ready(30)
    with pytest.raises(LoaderFailed, match="no weights"):
        server.wait_ready(30)
    assert "broken: " in server.stats().error


# -- together -----------------------------------------------------------------------------------


def test_all_start_and_stop_with_the_server(make: Make) -> None:
    """Before the start, while it runs, and after a stop and a start."""
    server = make(echo, start=False)
    early = server.add("early", shout)
    assert early.state == "new"
    with server:
        late = server.add("late", shout)
        assert (early.predict("x"), late.predict("x")) == ("X", "X")
    assert {endpoint.state for endpoint in server.models.values()} == {"stopped"}
    with pytest.raises(Stopping):
        early.predict("x")
    after = server.add("after", shout)
    assert after.state == "new"
    with server:
        assert [endpoint.predict("x") for endpoint in (early, late, after)] == ["X"] * 3


def test_stop_answers_what_every_model_had_accepted(make: Make) -> None:
    """All drain at the same time, and refuse what is new from the beginning."""
    gates = [Gate(), Gate()]
    server = make(gates[0], policy=NoBatching())
    server.add("other", gates[1], policy=NoBatching())
    with ThreadPoolExecutor(9) as pool:
        asking = [
            pool.submit(httpx.post, endpoint.url, content=str(n), timeout=60)
            for endpoint in server.models.values()
            for n in range(4)
        ]
        eventually(lambda: server.stats().queue_depth == 6, "two run and six wait")
        stopping = pool.submit(server.stop)
        eventually(
            lambda: all(each.state == "stopping" for each in server.models.values()), "all stop"
        )
        for gate in gates:
            gate.opened.set()
        stopping.result(30)
        answers = [future.result(30) for future in asking]
    assert [answer.status_code for answer in answers] == [200] * 8


def test_stop_without_drain_refuses_what_waits_for_any(make: Make) -> None:
    """At once, whichever model it waits for."""
    gate = Gate()
    server = make(echo)
    other = server.add("other", gate, policy=NoBatching())
    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(other.predict, n) for n in range(2)]
        assert gate.begun.wait(30)
        eventually(lambda: len(other.queue()) == 1, "one waits")
        stopping = pool.submit(server.stop, drain=False)
        for future in asking:
            with pytest.raises(Stopping):
                future.result(30)
        gate.opened.set()
        stopping.result(30)


def test_pause_and_resume_are_of_all(make: Make) -> None:
    """So that every queue can be looked at."""
    server = make(echo)
    other = server.add("other", shout)
    server.pause()
    assert {endpoint.state for endpoint in server.models.values()} == {"paused"}
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(other.predict, "x")
        eventually(lambda: len(other.queue()) == 1, "it waits")
        assert len(server.queue()) == 0
        server.resume()
        assert asked.result(30) == "X"


def test_a_cell_that_adds_may_be_run_twice(make: Make) -> None:
    """A new model takes the name over; the old one answers what it had accepted, and ends."""
    gate = Gate()
    server = make(echo)
    first = server.add("other", gate)
    with ThreadPoolExecutor(2) as pool:
        asked = pool.submit(first.predict, "old")
        assert gate.begun.wait(30)
        adding = pool.submit(server.add, "other", shout)
        eventually(lambda: server["other"].stats().model == "shout", "the name is taken over")
        assert httpx.post(server["other"].url, content="new").json() == "NEW"
        gate.opened.set()
        assert asked.result(30) == "old"
        second = adding.result(30)
    assert (first.state, second.state) == ("stopped", "ready")
    assert list(server.models) == ["test 0", "other"]


def test_remove_answers_what_was_accepted(make: Make, client: httpx.Client) -> None:
    """Then there is no such model, and the server is as before it was added."""
    gate = Gate()
    server = make(echo)
    before = set(server.stats().to_dict()), repr(server)
    other = server.add("other", gate)
    with ThreadPoolExecutor(2) as pool:
        asked = pool.submit(other.predict, "x")
        assert gate.begun.wait(30)
        removing = pool.submit(server.remove, "other")
        eventually(lambda: other.state == "stopping", "it ends")
        assert client.post(server.url + "/models/other", content="x").status_code == 404
        gate.opened.set()
        removing.result(30)
        assert asked.result(30) == "x"
    assert list(server.models) == ["test 0"]
    assert (set(server.stats().to_dict()), repr(server)) == before
    assert server.stats().models == {}


def test_statistics_are_of_the_whole_and_of_each(make: Make, client: httpx.Client) -> None:
    """As an object, as a table and over HTTP; the whole is the sum."""
    server = make(Faulty(echo, fail_on="bad"), policy=Greedy(2))
    other = server.add("other", shout)
    client.post(server.url, json={"inputs": ["a", "b", "c"]})
    client.post(server.url, content="bad")
    client.post(other.url, json={"inputs": ["a", "b"]})
    stats = server.stats()
    own, others = stats.models["test 0"], stats.models["other"]

    assert list(stats.models) == ["test 0", "other"]
    assert (stats.outcomes["ok"], stats.outcomes["failed"]) == (5, 1)
    assert (own.outcomes["ok"], others.outcomes["ok"]) == (3, 2)
    assert sum(stats.batch_sizes.values()) == sum(own.batch_sizes.values()) + sum(
        others.batch_sizes.values()
    )
    assert stats.throughput == pytest.approx(own.throughput + others.throughput)
    assert stats.latency.p50 >= min(own.latency.p50, others.latency.p50)
    assert "test 0" in repr(stats)
    assert "all models" in stats._repr_html_()
    over_http = client.get(server.url + "/stats").json()
    assert over_http["outcomes"]["ok"] == 5
    assert over_http["models"]["other"]["outcomes"]["ok"] == 2
    of_one = client.get(server.url + "/stats", params={"model": "other"}).json()
    assert of_one["outcomes"]["ok"] == 2


def test_the_handle_and_the_table_read_well(make: Make) -> None:
    """What a cell shows of the models names each, with its state and policy."""
    server = make(echo, policy=Greedy(2))
    server.add("other", shout, policy=NoBatching())

    assert isinstance(server.models["other"], Endpoint)
    assert repr(server["other"]) == "<Endpoint 'other': ready, NoBatching()>"
    table = repr(server.models)
    assert "shout" in table
    assert "Greedy(max_batch_size=2)" in table
    assert repr(server) == f"<Server 'test 0': ready at {server.url}, 2 models>"
    assert "other: NoBatching()" in server._repr_html_()


def test_the_laboratory_takes_one_of_them(make: Make) -> None:
    """Load, cost, what-if and comparison, as of a server."""
    server = make(echo)
    other = server.add("other", shout, policy=Greedy(4))
    report = load_test(other, ["a", "b"], concurrency=2, duration=0.2, progress=False)

    assert report.policy == repr(Greedy(4))
    assert len(report.records) > 0
    assert len(server.records()) == 0
    assert other.fit_cost()([1]) > 0
    assert other.what_if(NoBatching()).policy == "NoBatching()"
    assert compare([NoBatching()], server=other, rates=[10], duration=5)


def test_one_model_may_ask_another(make: Make) -> None:
    """A worker that waits for another's answer is no deadlock: a chain of two models."""
    made: list[Server] = []

    def chain(inputs: list[str]) -> list[str]:
        return [f"<{text}>" for text in made[0]["loud"].predict(inputs)]

    server = make(chain)
    made.append(server)
    server.add("loud", shout)

    assert server.predict("x") == "<X>"


def test_the_token_is_asked_for_every_model(make: Make, client: httpx.Client) -> None:
    """One server, one door."""
    server = make(echo, token="s3cret")
    other = server.add("other", shout)
    good = {"authorization": "Bearer s3cret"}
    for url in (other.url, server.url + "/models"):
        assert client.get(url).status_code == 401
        assert client.get(url, headers=good).status_code == 200
    assert client.post(other.url, content="x").status_code == 401
    assert client.post(other.url, content="x", headers=good).json() == "X"


def test_models_come_and_go_under_load(make: Make) -> None:
    """Whoever asks one meanwhile is answered rightly, or told that there is no such model."""
    server = make(echo)
    done = False

    def ask(name: str) -> set[int]:
        seen = set()
        with httpx.Client(timeout=60) as client:
            while not done:
                response = client.post(f"{server.url}/models/{name}", content="x")
                seen.add(response.status_code)
                expected = {"default": "x", "other": "X"}[name]
                assert response.status_code != 200 or response.json() == expected
        return seen

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, name) for name in ("default", "other", "other")]
        for _ in range(15):
            server.add("other", shout)
            server.add("other", shout)
            assert server["other"].predict("x") == "X"
            server.remove("other")
        done = True
        seen = [future.result(60) for future in asking]
    assert seen[0] == {200}
    assert seen[1] | seen[2] <= {200, 404, 503}


def test_a_server_has_the_errors_of_all_its_models(make: Make) -> None:
    """Each names its model, the newest first; a model has its own only."""

    def broken(inputs: list[Any]) -> list[Any]:
        raise KeyError(inputs[0])

    server = make(broken)
    server.add("other", broken)
    server.add("well", echo).predict("x")
    for name, text in (("default", "a"), ("other", "b"), ("default", "c")):
        with pytest.raises(ModelFailed):
            server[name].predict(text)

    found = [(error.model, error.message) for error in server.errors()]
    assert found == [("test 0", "'c'"), ("other", "'b'"), ("test 0", "'a'")]
    assert [error.message for error in server["other"].errors()] == ["'b'"]
    assert server["well"].errors() == []
    assert (server.state, server["well"].state) == ("failing", "ready")
    assert {error.model for error in server.stats().all_failing} == {"test 0", "other"}
