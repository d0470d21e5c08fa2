from __future__ import annotations

import asyncio
import gc
import inspect
import os
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from notebook_serve import (
    CostAware,
    Greedy,
    InvalidInput,
    LoaderFailed,
    NoBatching,
    OptionError,
    PortTaken,
    Server,
    Stopping,
    Unavailable,
    Window,
    serve,
    servers,
    stop_all,
)

from .conftest import listening
from .helpers.blocking_model import Gate, eventually

Make = Callable[..., Server]


def echo(inputs: list[Any]) -> list[Any]:
    return inputs


# -- start and stop -------------------------------------------------------------------------


def test_serve_returns_when_it_answers(make: Make) -> None:
    """A request sent right after serve() is answered, over HTTP and without."""
    server = make(echo)
    assert httpx.post(server.url, content="x").json() == "x"
    assert server.predict("x") == "x"
    assert server.policy == CostAware()
    assert server in servers()


def test_running_the_cell_twice_leaves_one_server(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new server takes the name and the port of the old one, which is stopped."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        monkeypatch.setattr(
            "notebook_serve.http.transport.sockets.USUAL_PORT", found.getsockname()[1]
        )
    first = make(echo, port=None, name="cell")
    url = first.url
    second = make(lambda xs: ["second" for _ in xs], port=None, name="cell")
    assert first.state == "stopped"
    assert servers() == [second]
    assert second.url == url
    assert httpx.post(url, content="x").json() == "second"


def test_a_take_over_answers_what_the_old_server_had_accepted(make: Make) -> None:
    """The old server drains before the new one starts."""
    gate = Gate()
    first = make(gate, name="cell")
    with ThreadPoolExecutor() as pool:
        answers = [pool.submit(first.predict, value) for value in range(5)]
        assert gate.begun.wait(30)
        eventually(lambda: len(first.records()) + len(first._engine.requests) == 5, "all accepted")
        taking = pool.submit(make, echo, name="cell")
        eventually(lambda: first.state == "stopping", "the old one stops")
        gate.opened.set()
        second = taking.result(30)
        assert [answer.result(30) for answer in answers] == list(range(5))
    assert second.predict("x") == "x"


def test_two_names_are_two_servers(make: Make) -> None:
    """Servers of different names run side by side, and stop_all stops both."""
    one = make(echo, name="one")
    two = make(lambda xs: [x * 2 for x in xs], name="two")
    assert servers() == [one, two]
    assert (one.predict(2), two.predict(2)) == (2, 4)
    stop_all()
    assert servers() == []
    assert (one.state, two.state) == ("stopped", "stopped")


def test_port_none_takes_8000_or_any_free_one(make: Make) -> None:
    """If 8000 is taken, any free port is used."""
    one = make(echo, port=None, name="one")
    two = make(echo, port=None, name="two")
    assert one.url != two.url
    if 8000 in listening():
        assert "http://127.0.0.1:8000" in (one.url, two.url)


def test_a_taken_port_raises_in_the_cell() -> None:
    """If the requested port is in use, `PortTaken` is raised and nothing is left running."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=f"port {port} on 127.0.0.1 is in use"):
            serve(echo, port=port)
    assert servers() == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give a model, or a loader"),
        ({"model": echo, "loader": lambda: echo}, "not both"),
        ({"loader": 3}, "loader must be a callable"),
        ({"model": 3}, "neither a transformers pipeline nor a callable"),
        ({"model": echo, "policy": object}, "a policy must be an object with decide"),
        ({"model": echo, "policy": 3}, "a policy must be an object with decide"),
        ({"model": echo, "max_queue_size": 0}, "max_queue_size must be a whole number"),
        ({"model": echo, "max_queue_size": True}, "max_queue_size must be a whole number"),
        ({"model": echo, "max_body_size": 0.5}, "max_body_size must be a whole number"),
        ({"model": echo, "timeout": 0}, "timeout must be a positive number"),
        ({"model": echo, "timeout": "long"}, "timeout must be a positive number"),
        ({"model": echo, "port": 70000}, "port must be a whole number"),
        ({"model": echo, "token": ""}, "token must be a string"),
        ({"model": echo, "host": "0.0.0.0"}, "other machines can reach"),
        ({"model": echo, "host": "no such host"}, "cannot be resolved"),
    ],
)
def test_invalid_options_raise_in_the_cell(options: dict[str, Any], message: str) -> None:
    """The error names the option, is a ValueError too, and nothing starts."""
    with pytest.raises(OptionError, match=message) as caught:
        serve(**options)
    assert isinstance(caught.value, ValueError)
    assert servers() == []


def test_a_host_that_others_reach_needs_a_token_and_hides_errors(make: Make) -> None:
    """With a token it may listen on all addresses; messages of exceptions are hidden by default."""
    server = make(lambda xs: [1 // 0], host="0.0.0.0", token="t")
    response = httpx.post(server.url, content="x", headers={"authorization": "Bearer t"})
    assert response.status_code == 500
    assert "division" not in response.text
    assert server.url.startswith("http://127.0.0.1:")


def test_start_and_stop_do_nothing_the_second_time_and_work_again(make: Make) -> None:
    """start() after stop() serves again; both are idempotent."""
    server = make(echo, start=False)
    assert server.state == "new"
    with pytest.raises(OptionError, match="call start"):
        server.url
    with pytest.raises(Unavailable, match="call start"):
        server.predict(1)
    server.stop()
    for _ in range(2):
        assert server.start() is server
        assert server.start() is server
        assert httpx.post(server.url, content="x").json() == "x"
        server.stop()
        server.stop()
        with pytest.raises(Stopping):
            server.predict("x")


def test_context_managers(make: Make) -> None:
    """with and async with start on entry, and stop at the end."""
    with make(echo, start=False) as server:
        assert server.predict(1) == 1
    assert server.state == "stopped"

    async def main() -> None:
        async with server:
            assert await server.apredict(2) == 2
        assert server.state == "stopped"

    asyncio.run(main())


def test_twenty_rounds_some_under_load_leave_nothing_behind() -> None:
    """Twenty starts and stops: no thread, socket, task or warning left, every request answered."""
    server = serve(lambda xs: xs, port=0, start=False, name="rounds")
    process = psutil.Process()
    answered = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for round_ in range(20):
            before = threading.active_count(), process.num_fds()
            server.start()
            if round_ % 2:
                answered += asyncio.run(stopped_under_load(server))
            server.stop()
            assert threading.active_count() == before[0]
            gc.collect()
            # The first load opens what a process keeps, such as a resolver's socket.
            if round_ > 1:
                assert process.num_fds() <= before[1]
    assert answered == 10 * 40


async def stopped_under_load(server: Server) -> int:
    """Send 40 requests, stop in between, and return the number of answers and rejections."""
    async with httpx.AsyncClient(timeout=60) as client:
        asking = [asyncio.ensure_future(post(client, server.url, n)) for n in range(40)]
        done, _ = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        assert done
        await asyncio.to_thread(server.stop)
        return sum(await asyncio.gather(*asking))


async def post(client: httpx.AsyncClient, url: str, n: int) -> bool:
    try:
        response = await client.post(url, content=str(n))
    except httpx.ConnectError:
        return True  # it came after the port was closed
    return (response.status_code, response.json()) == (200, str(n)) or response.status_code == 503


def test_stop_under_load_answers_all_that_was_accepted(make: Make) -> None:
    """With drain, accepted requests are answered, and a later one is rejected with 503."""
    gate = Gate()
    server = make(gate, policy=NoBatching())
    with ThreadPoolExecutor(31) as pool:
        asking = [
            pool.submit(httpx.post, server.url, content=str(n), timeout=60) for n in range(30)
        ]
        eventually(lambda: server.stats().queue_depth == 29, "one runs and 29 wait")
        stopping = pool.submit(server.stop)
        eventually(lambda: server.state == "stopping", "it stops")
        late = httpx.post(server.url, content="late")
        assert (late.status_code, late.json()["type"]) == (503, "Stopping")
        gate.opened.set()
        stopping.result(30)
        answers = [future.result(30) for future in asking]
    assert [(a.status_code, a.json()) for a in answers] == [(200, str(n)) for n in range(30)]


# -- asking ---------------------------------------------------------------------------------


def test_predict_and_apredict_go_through_the_same_queue(make: Make) -> None:
    """A list makes many requests, records name the client `predict`, errors are typed."""

    def times(inputs: list[int], *, factor: int = 2) -> list[int]:
        return [value * factor for value in inputs]

    server = make(times)
    assert server.predict(4) == 8
    assert server.predict([1, 2, 3], factor=3) == [3, 6, 9]
    assert server.predict([]) == []
    with pytest.raises(InvalidInput, match="power"):
        server.predict(1, power=2)
    with pytest.raises(OptionError, match="timeout"):
        server.predict(1, timeout=0)

    async def main() -> list[Any]:
        return list(await asyncio.gather(*(server.apredict(value) for value in range(100))))

    assert asyncio.run(main()) == list(range(0, 200, 2))
    assert {record.client for record in server.records()} == {"predict"}


def test_a_cancelled_apredict_leaves_the_queue(make: Make) -> None:
    """Cancelling the task removes its request from the queue, so it is never computed."""
    gate = Gate()
    server = make(gate)

    async def main() -> None:
        running = asyncio.ensure_future(server.apredict("first"))
        await asyncio.to_thread(gate.begun.wait, 30)
        waiting = asyncio.ensure_future(server.apredict("second"))
        await asyncio.to_thread(eventually, lambda: len(server.queue()) == 1, "it waits")
        waiting.cancel()
        await asyncio.to_thread(eventually, lambda: len(server.queue()) == 0, "it has left")
        gate.opened.set()
        assert await running == "first"

    asyncio.run(main())
    assert gate.calls == [["first"]]


def test_a_model_that_calls_its_own_server_raises(make: Make) -> None:
    """predict() on the worker's thread would deadlock; it raises instead."""
    made: list[Server] = []
    server = make(lambda xs: [made[0].predict(x) for x in xs])
    made.append(server)
    with pytest.raises(Exception, match="inside the model; this would deadlock"):
        server.predict(1)


def test_wait_ready_raises_what_the_loader_raised(make: Make) -> None:
    """The cell shows the loader's own error; start() after a fix loads again."""
    broken = [True]

    def loader() -> Any:
        if broken[0]:
            raise FileNotFoundError("weights.bin")
        return echo

    server = make(loader=loader)
    with pytest.raises(LoaderFailed, match=r"weights\.bin"):
        server.wait_ready(30)
    assert "weights.bin" in httpx.post(server.url, content="x").json()["error"]
    broken[0] = False
    server.start()
    server.wait_ready(30)
    assert httpx.post(server.url, content="x").json() == "x"


def test_many_clients_at_once_over_http(make: Make) -> None:
    """Over 64 connections at once, each request receives its own answer."""
    server = make(lambda xs: [x[::-1] for x in xs], policy=Window(8, 0.001))

    async def main() -> list[str]:
        limits = httpx.Limits(max_connections=64)
        async with httpx.AsyncClient(limits=limits, timeout=60) as client:
            asking = (client.post(server.url, content=f"<{n}>") for n in range(200))
            return [answer.json() for answer in await asyncio.gather(*asking)]

    assert asyncio.run(main()) == [f"<{n}>"[::-1] for n in range(200)]
    assert max(server.stats().batch_sizes) <= 8


# -- looking --------------------------------------------------------------------------------


def test_displays_read_well_and_escape(make: Make) -> None:
    """The card and the repr have state, address and policy; names are escaped in HTML."""
    server = make(echo, name="<i>x<i>", policy=Greedy(3))
    assert repr(server) == f"<Server '<i>x<i>': ready at {server.url}, Greedy(max_batch_size=3)>"
    card = server._repr_html_()
    assert "&lt;i&gt;x" in card
    assert "<i>x" not in card
    assert server.url in card
    for shown in (server.stats(), server.queue()):
        assert "object at 0x" not in repr(shown) + shown._repr_html_()
    server.stop()
    assert server.url not in server._repr_html_()


def test_the_policy_can_be_replaced_by_another_policy_only(make: Make) -> None:
    """An invalid policy raises where it is set, and the old one stays."""
    server = make(echo)
    server.policy = Greedy(2)
    with pytest.raises(OptionError):
        server.policy = "Grady"
    assert server.policy == Greedy(2)
    assert server.stats().policy == "Greedy(max_batch_size=2)"


def test_the_interpreter_ends_quietly_with_a_server_running() -> None:
    """A script that never stops its server exits at once, without output."""
    code = (
        "import notebook_serve as ns\n"
        "server = ns.serve(lambda xs: xs, port=0); print(server.predict(1))\n"
    )
    assert run_python(code).strip() == "1"


def run_python(code: str) -> str:
    """Return the output of a fresh interpreter; fail if it writes to its error stream."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=100
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_five_lines_under_uvicorn(tmp_path: Path) -> None:
    """`uvicorn server:app` with a five-line server.py serves, and exits on SIGTERM."""
    (tmp_path / "server.py").write_text(
        "from notebook_serve import serve\n\n"
        "def shout(texts):\n    return [text.upper() for text in texts]\n\n"
        "app = serve(shout, start=False).app\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "server:app", "--port", str(port)]
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            assert any("Uvicorn running" in line for line in process.stderr)
            assert httpx.post(f"http://127.0.0.1:{port}", content="x").json() == "X"
        finally:
            process.terminate()
            rest = process.stderr.read() if process.stderr else ""
    assert "Application shutdown complete" in rest
    assert "Traceback" not in rest


def test_a_server_shows_its_options() -> None:
    """Shift-Tab on `Server` lists the options of `serve`, with their defaults."""
    shown = inspect.signature(Server).parameters
    expected = inspect.signature(serve).parameters
    assert next(iter(shown)) == "model"
    assert set(shown) == set(expected) - {"served", "start"}
    assert all(shown[name].default == expected[name].default for name in shown)
