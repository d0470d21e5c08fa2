"""Load on servers and URLs: real servers, real sockets, real interrupts."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle, islice, pairwise
from typing import Any

import numpy as np
import psutil
import pytest

from notebook_serve import (
    Decision,
    Distribution,
    Greedy,
    Job,
    NoBatching,
    NotReady,
    OptionError,
    Policy,
    Server,
    Stopping,
    Unavailable,
)
from notebook_serve.extras import MissingExtra
from notebook_serve.lab.load_test import aload_test, bottleneck, load_test
from notebook_serve.lab.targets import UrlTarget, outcome_of
from notebook_serve.queueing.scheduler import FALLBACK
from notebook_serve.simulation.report import Report
from notebook_serve.simulation.simulator import RETRY
from notebook_serve.traffic import ClosedLoop, Constant, Poisson

from ..helpers.blocking_model import Gate, eventually
from ..helpers.kernels import Notebook
from ..system.test_kernel import notebook
from ..system.test_kernel import pytestmark as in_a_kernel

__all__ = ["notebook"]

Make = Callable[..., Server]


def echo(inputs: list[Any]) -> list[Any]:
    return inputs


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """For load tests that the test itself must not wait for."""
    with ThreadPoolExecutor() as executor:
        yield executor


def submitted(server: Server) -> int:
    """How many requests a server has taken in that are not answered."""
    return len(server._engine._requests)


def notes_of(report: Report) -> list[str]:
    """A report's notes, but for the one that this machine is slow."""
    return [note for note in report.notes if "load generator itself" not in note]


class Web(ThreadingHTTPServer):
    """Answers each POST as its body asks: a status, ``hang up`` or ``wait``."""

    daemon_threads = False
    request_queue_size = 100

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.release = threading.Event()
        self.clients: set[Any] = set()
        self.posted: list[tuple[str | None, dict[str, str], bytes]] = []


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Web

    def do_GET(self) -> None:
        self.server.clients.add(self.client_address)
        self.answer(404)

    def do_POST(self) -> None:
        self.server.clients.add(self.client_address)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posted.append((self.headers["Content-Type"], dict(self.headers), body))
        if body == b"wait":
            self.server.release.wait(60)
        if body == b"hang up":
            self.close_connection = True
            return
        self.answer(int(body) if body.isdigit() else 200)

    def answer(self, status: int) -> None:
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *message: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[Web]:
    """A web server that is not ours."""
    with Web() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.release.set()
        server.shutdown()
        thread.join()


# -- the open loop --------------------------------------------------------------------------


def test_an_open_loop_through_the_queue(make: Make) -> None:
    """Each request has a record, whose times are the traffic's and whose batch is in the report."""
    server = make(echo, policy=Greedy(4))
    traffic = Constant(200, n=40)

    report = load_test(server, ["a", "b"], traffic=traffic)

    assert report.outcomes["ok"] == 40
    assert report.records.arrived == traffic.times()
    assert report.records.id == list(range(40))
    assert report.duration == traffic.times()[-1]
    assert (report.policy, report.source) == (repr(Greedy(4)), "measured")
    assert notes_of(report) == []
    batches = {batch.id: batch for batch in report.batches}
    assert sum(batch.size for batch in report.batches) == 40
    # The ids of the server's requests are not those of the report's records.
    assert {batch.requests for batch in report.batches} == {()}
    for record in report.records:
        assert record.batch_id is not None
        batch = batches[record.batch_id]
        assert record.started is not None
        assert record.arrived <= record.started <= record.finished
        assert record.started == pytest.approx(batch.started)
        assert record.batch_size == batch.size


@pytest.mark.parametrize("over_http", [False, True])
def test_inputs_are_asked_in_turn(make: Make, over_http: bool) -> None:
    """Over and over, in their order; whatever sequence they come in."""
    seen = []

    def note(inputs: list[Any]) -> list[Any]:
        seen.extend(inputs)
        return inputs

    server = make(note, policy=NoBatching())

    inputs: Any = np.array(["a", "b", "c"])
    load_test(server.url if over_http else server, inputs, concurrency=1, duration=0.3)

    assert len(seen) > 3
    assert seen == list(islice(cycle("abc"), len(seen)))


def test_latency_counts_from_the_intended_time(make: Make, pool: ThreadPoolExecutor) -> None:
    """A server that stands still is seen in the latency of all who were to be served meanwhile."""
    gate = Gate()
    server = make(gate, policy=NoBatching())
    times = [n * 0.02 for n in range(10)]

    running = pool.submit(load_test, server, ["x"], traffic=times)
    eventually(lambda: submitted(server) == 10, "all are sent")
    gate.opened.set()
    report = running.result(60)

    assert report.records.arrived == times
    for record in report.records:
        assert record.finished >= times[-1]
        assert record.latency >= times[-1] - record.arrived


def test_a_generator_that_stands_still_is_no_excuse(make: Make) -> None:
    """What should have been sent meanwhile counts from when it was meant, and a note says so."""
    server = make(echo)
    times = [n * 0.01 for n in range(40)]

    async def stall() -> Report:
        running = asyncio.create_task(aload_test(server, ["x"], traffic=times))
        while not server.records():
            await asyncio.sleep(0)
        time.sleep(0.3)  # nothing of this loop runs
        return await running

    report = asyncio.run(stall())

    assert report.records.arrived == times
    assert report.lateness is not None
    assert report.lateness.p99 > 0.1
    assert report.records[-1].arrived == times[-1]
    assert max(record.latency for record in report.records) > 0.1
    (note,) = report.notes
    assert "the load generator itself was late" in note.lower()


def test_an_open_loop_has_no_limit_to_what_is_in_flight(
    make: Make, pool: ThreadPoolExecutor
) -> None:
    """Over HTTP too, every request goes out although none has been answered."""
    gate = Gate()
    server = make(gate)

    running = pool.submit(load_test, server.url, ["x"], traffic=[0.0] * 100)
    eventually(lambda: submitted(server) == 100, "all are sent")
    gate.opened.set()

    assert running.result(60).outcomes["ok"] == 100


def test_traffic_without_end_ends_after_its_duration(make: Make) -> None:
    """And what has an end may be cut; the report is of the seconds that were asked for."""
    server = make(echo)

    endless = load_test(server, ["x"], traffic=Poisson(200, seed=3), duration=0.2)
    cut = load_test(server, ["x"], traffic=[0.0, 0.1, 50.0], duration=0.2)
    nothing = load_test(server, ["x"], traffic=[])

    assert endless.records.arrived == Poisson(200, seed=3).times(0.2)
    assert endless.duration == 0.2
    assert (cut.records.arrived, cut.duration) == ([0.0, 0.1], 0.2)
    assert (len(nothing.records), nothing.duration) == (0, 0.0)


def test_batches_that_the_server_no_longer_has_are_missed(make: Make) -> None:
    """A note says that the newest are not all."""
    server = make(echo, policy=NoBatching(), max_queue_size=6000, refuse_late=False)

    report = load_test(server, ["x"], traffic=[0.0] * 5100)

    assert report.outcomes["ok"] == 5100
    assert len(report.batches) == 5000
    assert any("newest 5000 batches" in note for note in report.notes)


def test_one_after_the_other(make: Make) -> None:
    """The second knows nothing of the first: its times begin at 0, its batches are its own."""
    server = make(echo)

    for _ in range(2):
        report = load_test(server, ["x"], traffic=Constant(100, n=10))
        assert len(report.records) == 10
        assert sum(batch.size for batch in report.batches) == 10
        assert min(batch.started for batch in report.batches) < 1


# -- the closed loop ------------------------------------------------------------------------


def most_in_flight(report: Report) -> int:
    """The most requests that were in flight at one time, by a report's records."""
    steps = sorted(
        [(record.arrived, 1) for record in report.records]
        + [(record.finished, -1) for record in report.records]
    )
    depth = most = 0
    for _, step in steps:
        depth += step
        most = max(most, depth)
    return most


@pytest.mark.parametrize("over_http", [False, True])
def test_a_closed_loop_keeps_so_many_in_flight(
    make: Make, pool: ThreadPoolExecutor, over_http: bool
) -> None:
    """Never more, and as many again when they were answered."""
    gate = Gate()
    server = make(gate)

    running = pool.submit(
        load_test, server.url if over_http else server, ["x"], concurrency=3, duration=1.0
    )
    eventually(lambda: submitted(server) == 3, "three are sent")
    gate.opened.set()
    report = running.result(60)

    assert most_in_flight(report) == 3
    assert report.outcomes["ok"] == len(report.records) > 3
    assert report.duration == 1.0
    assert report.records.arrived == sorted(report.records.arrived)
    assert report.lateness is None


def test_users_think(make: Make) -> None:
    """Each waits so long before it asks again; a `ClosedLoop` says the same."""
    server = make(echo)
    asked = load_test(server, ["x"], concurrency=1, think=0.05, duration=0.4)
    said = load_test(server, ["x"], traffic=ClosedLoop(1, think=0.05), duration=0.4)

    for report in (asked, said):
        records = report.records
        assert 1 < len(records) <= 8
        for before, after in pairwise(records):
            assert after.arrived - before.finished >= 0.05


def test_users_who_are_refused_wait(make: Make, pool: ThreadPoolExecutor) -> None:
    """Else refusals would be all that the machine does."""
    gate = Gate()
    server = make(gate, max_queue_size=1, refuse_late=False)
    held = pool.submit(server.predict, "runs")
    assert gate.begun.wait(30)
    waits = pool.submit(server.predict, "waits")
    eventually(lambda: submitted(server) == 2, "the queue is full")

    report = load_test(server, ["x"], concurrency=4, duration=0.35)
    gate.opened.set()

    assert (held.result(30), waits.result(30)) == ("runs", "waits")
    assert report.outcomes["rejected"] == len(report.records)
    assert 4 <= len(report.records) <= 4 * math.ceil(0.35 / RETRY)


# -- what becomes of requests ---------------------------------------------------------------


def picky(inputs: list[Any]) -> list[Any]:
    if "poison" in inputs:
        raise RuntimeError("cannot digest this")
    return inputs


def measured(given: Any) -> int:
    return len(given)


picky.length = measured  # type: ignore[attr-defined]


@pytest.mark.parametrize("over_http", [False, True])
def test_failures_are_counted_and_named(make: Make, over_http: bool) -> None:
    """What the task rejects and what the model fails on, each with a note of what was said."""
    server = make(picky, policy=NoBatching())
    inputs = ["good", "poison", 3]

    report = load_test(server.url if over_http else server, inputs, traffic=Constant(100, n=9))

    assert report.records.outcome == ["ok", "failed", "invalid"] * 3
    assert report.records.started[2] is None
    assert report.records.started[1] is not None
    failed, invalid = sorted(notes_of(report))
    names = ("status 422", "status 500") if over_http else ("InvalidInput", "ModelFailed")
    said = {".length failed for this input", "cannot digest this"}
    for name, note in zip(sorted(names), sorted([failed, invalid]), strict=True):
        assert note.startswith(f"3 of 9 requests ended in {name}: ")
        assert any(words in note for words in said)


@pytest.mark.parametrize("over_http", [False, True])
def test_requests_are_refused_and_expire(
    make: Make, pool: ThreadPoolExecutor, over_http: bool
) -> None:
    """What finds no room is rejected at once; what is not answered in its time has expired."""
    gate = Gate()
    server = make(gate, policy=NoBatching(), max_queue_size=2)
    held = pool.submit(server.predict, "runs")
    assert gate.begun.wait(30)

    report = load_test(server.url if over_http else server, ["x"], traffic=[0.0] * 5, timeout=1.0)
    gate.opened.set()

    assert held.result(30) == "runs"
    assert (report.outcomes["expired"], report.outcomes["rejected"]) == (2, 3)
    for record in report.records:
        assert record.started is None
        if record.outcome == "expired":
            assert record.latency >= 1.0
        assert record.batch_size == 0


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
def test_what_a_status_means(status: int, outcome: str) -> None:
    """As the server's own table has it, and the like of other servers."""
    assert outcome_of(status) == outcome


def test_every_status_and_none(web: Web) -> None:
    """A redirect is not followed; a connection that ends without an answer has failed."""
    inputs = ["200", "302", "401", "429", "500", "503", "504", "hang up"]

    report = load_test(web.url, inputs, traffic=Constant(100, n=8))

    assert report.records.outcome == [
        "ok", "failed", "invalid", "rejected", "failed", "rejected", "expired", "failed",
    ]  # fmt: skip
    assert len(web.posted) == 8
    notes = " ".join(notes_of(report))
    for name in ("status 302", "status 401", "status 500", "RemoteProtocolError"):
        assert f"1 of 8 requests ended in {name}: " in notes
    assert "it is not known when they ran" in notes


def test_an_answer_that_does_not_come_has_expired(web: Web) -> None:
    """The client's own patience ends where the server's does not."""
    report = load_test(web.url, ["wait"], traffic=[0.0], timeout=0.2)

    (record,) = report.records
    assert record.outcome == "expired"
    assert record.latency >= 0.2


# -- a policy that changes meanwhile --------------------------------------------------------


class Changing:
    """A model that changes its server's policy, or breaks it, when it gets to certain inputs."""

    def __init__(self) -> None:
        self.server: Server | None = None

    def __call__(self, inputs: list[Any]) -> list[Any]:
        """Answer, and change the policy."""
        for given in inputs:
            if isinstance(given, Policy) and self.server is not None:
                self.server.policy = given
        return [repr(given) for given in inputs]


class Broken:
    """A policy that raises."""

    def decide(self, waiting: Sequence[Job], now: float) -> Decision:
        """Fail."""
        raise ZeroDivisionError("broken")

    def __repr__(self) -> str:
        return "Broken()"


def changing(make: Make, policy: Policy) -> Server:
    """A server of such a model."""
    model = Changing()
    model.server = make(model, policy=policy)
    return model.server


def test_policies_that_took_effect_meanwhile_are_in_the_report(make: Make) -> None:
    """The first is that at the start; each change has its time from the start of the traffic."""
    server = changing(make, Greedy(7))
    server.policy = NoBatching()
    inputs = ["a", Greedy(2), "b", Greedy(2), "c", Greedy(3), "d"]

    report = load_test(server, inputs, traffic=Constant(100, n=7))
    server.policy = Greedy(9)

    assert report.policy == "NoBatching()"
    assert [(change.policy, change.reason) for change in report.changes] == [
        (repr(Greedy(2)), "set"),
        (repr(Greedy(3)), "set"),
    ]
    starts = {number: record.started for number, record in enumerate(report.records)}
    ends = {number: record.finished for number, record in enumerate(report.records)}
    for number, change in zip((1, 5), report.changes, strict=True):
        started = starts[number]
        assert started is not None
        assert started <= change.at <= ends[number]
    assert repr(report).startswith("policy           NoBatching() until ")
    assert Report.from_json(report.to_json()).changes == report.changes


def test_a_policy_that_fails_meanwhile_is_a_change(make: Make) -> None:
    """The fallback took its place, and the report says why."""
    server = changing(make, NoBatching())

    report = load_test(server, ["a", Broken(), "b", "c"], traffic=Constant(100, n=4))

    assert [change.reason for change in report.changes][-1] == "fault"
    assert report.changes[-1].policy == repr(FALLBACK)
    assert report.outcomes["ok"] == 4
    assert "(the previous policy failed)" in repr(report)


def test_a_policy_that_failed_before_is_not_the_one_that_is_shown(make: Make) -> None:
    """The run began under the fallback."""
    server = make(echo, policy=Broken())
    server.predict("x")

    report = load_test(server, ["a"], traffic=Constant(100, n=3))

    assert (report.policy, report.changes) == (repr(FALLBACK), ())


def test_a_run_under_one_policy_has_no_changes(make: Make) -> None:
    """Nor one on a URL, of which no policy is known."""
    server = make(echo, policy=Greedy(2))

    assert load_test(server, ["a"], traffic=Constant(100, n=3)).changes == ()
    assert load_test(server.url, ["a"], traffic=Constant(100, n=3)).changes == ()


# -- over HTTP ------------------------------------------------------------------------------


def test_times_over_http_are_the_servers(make: Make, pool: ThreadPoolExecutor) -> None:
    """How long a batch ran, and how large it was, comes from the answer's headers."""
    gate = Gate()
    server = make(gate, policy=Greedy(4))

    running = pool.submit(load_test, server.url, ["x"], traffic=[0.0] * 5)
    eventually(lambda: submitted(server) == 5, "all are sent")
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
def test_what_is_sent(web: Web, given: Any, parameters: Any, kind: str, body: bytes) -> None:
    """Text and bytes as they are, the rest as JSON; the patience, and the headers given."""
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


def test_headers_given_come_first(web: Web) -> None:
    """Whatever case they are written in; and endless patience is not written down."""
    headers = {"content-type": "text/html", "x-request-timeout": "3"}
    load_test(web.url, ["x"], traffic=[0.0], headers=headers)
    load_test(web.url, ["x"], traffic=[0.0], timeout=math.inf)

    (kind, sent, _), (_, endless, _) = web.posted
    assert (kind, sent["x-request-timeout"]) == ("text/html", "3")
    assert "x-request-timeout" not in {name.lower() for name in endless}


def test_a_token_lets_in(make: Make) -> None:
    """As a header; without it every request is invalid, and a note has the status."""
    server = make(echo, token="secret")

    without = load_test(server.url, ["x"], traffic=[0.0, 0.0])
    headers = {"Authorization": "Bearer secret"}
    within = load_test(server.url, ["x"], traffic=[0.0], headers=headers)

    assert without.outcomes["invalid"] == 2
    assert "status 401" in notes_of(without)[0]
    assert within.outcomes["ok"] == 1


def test_parameters_reach_the_model(make: Make) -> None:
    """By both ways."""
    seen = []

    def model(inputs: list[Any], power: int = 1) -> list[Any]:
        seen.append((inputs, power))
        return inputs

    server = make(model)
    for target in (server, server.url):
        load_test(target, ["x"], traffic=[0.0], parameters={"power": 2})

    assert seen == [(["x"], 2)] * 2


def test_connections_stand_before_and_are_used_again(web: Web) -> None:
    """As many as users, each for all that its turn brings."""
    report = load_test(web.url, ["x"], concurrency=4, duration=0.3)

    assert len(web.clients) == 4
    assert len(web.posted) == len(report.records) > 4


def test_nothing_is_left_open(make: Make) -> None:
    """Neither sockets of ours nor tasks, and a module that was hidden for speed is found again."""
    server = make(echo)
    before = psutil.Process().num_fds()
    hidden = "sniffio" in sys.modules

    async def test() -> set[asyncio.Task[Any]]:
        await aload_test(server.url, ["x"], concurrency=20, duration=0.2)
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert not asyncio.run(test())
    eventually(lambda: psutil.Process().num_fds() <= before, "all are closed")
    assert ("sniffio" in sys.modules) == hidden


def test_nobody_at_the_url() -> None:
    """One sentence at once, not a report full of failures."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(Unavailable, match=f"nobody answers at http://127.0.0.1:{port}"):
        load_test(f"http://127.0.0.1:{port}", ["x"], concurrency=5)


def test_a_server_that_takes_nothing(make: Make) -> None:
    """Its own words at once: it was not started, or has stopped."""
    server = make(echo, start=False)
    with pytest.raises(NotReady, match="not been started"):
        load_test(server, ["x"], traffic=[0.0])
    server.start()
    server.stop()
    with pytest.raises(Stopping):
        load_test(server, ["x"], traffic=[0.0])


# -- interrupts -----------------------------------------------------------------------------

INTERRUPTED = """
import threading
import httpx
from notebook_serve import NoBatching, serve
from notebook_serve.lab.load_test import load_test

let = threading.Event()
ran = []

def model(inputs):
    if len(ran) == 3:
        print("begun", flush=True)
        let.wait(60)
    ran.extend(inputs)
    return inputs

with serve(model, port=0, policy=NoBatching()) as server:
    target = server.url if {over_http} else server
    report = load_test(target, ["x"], {load}, duration=50)
    httpx.get(server.url + "/health")  # what was sent before has been read now
    while server.stats().queue_depth:
        pass
    let.set()
    server.predict("last")
    ended = report.outcomes
    print(ended["ok"] <= 3, ended["cancelled"] > 0, report.duration < 50)
    print(len(report.records) == ended["ok"] + ended["cancelled"])
    print(*report.notes)
    print(ran)
"""


@pytest.mark.parametrize("over_http", [False, True])
@pytest.mark.parametrize("load", ["traffic=[n * 0.01 for n in range(5000)]", "concurrency=4"])
def test_an_interrupt_returns_what_there_is(load: str, over_http: bool) -> None:
    """What was answered, and what was in flight as cancelled; the server does not compute that."""
    code = INTERRUPTED.format(load=load, over_http=over_http)
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as script:
        assert script.stdout is not None
        assert script.stdout.readline() == "begun\n"
        script.send_signal(signal.SIGINT)
        printed, errors = script.communicate(timeout=60)

    assert errors == ""
    figures, whole, note, ran = printed.splitlines()
    assert figures == "True True True"
    assert whole == "True"
    assert "Interrupted after" in note
    # The fourth was running; of those that waited none has run.
    assert ran == "['x', 'x', 'x', 'x', 'last']"


@pytest.mark.parametrize("over_http", [False, True])
@pytest.mark.parametrize("load", [{"traffic": [0.0] * 10}, {"concurrency": 10}])
def test_a_cancelled_one_withdraws_its_requests(
    make: Make, load: dict[str, Any], over_http: bool
) -> None:
    """`aload_test` raises that it was cancelled, and what waited waits no more."""
    gate = Gate()
    server = make(gate, policy=NoBatching())

    async def cancel() -> None:
        running = asyncio.create_task(
            aload_test(server.url if over_http else server, ["x"], **load)
        )
        while submitted(server) < 10 or not gate.begun.is_set():
            await asyncio.sleep(0.001)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(cancel())
    eventually(lambda: submitted(server) == 0, "all have left")
    gate.opened.set()
    assert server.predict("next") == "next"
    assert len(gate.calls) == 2


def test_an_interrupt_while_it_connects(web: Web) -> None:
    """Nothing was sent, and the report says so."""

    async def open_and_interrupt(self: UrlTarget, connections: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(UrlTarget, "open", open_and_interrupt)
        report = load_test(web.url, ["x"], traffic=[0.0])

    assert (len(report.records), report.duration) == (0, 0.0)
    assert "Interrupted" in report.notes[0]


@in_a_kernel[0]
@in_a_kernel[1]
@in_a_kernel[2]
def test_in_cells(notebook: Notebook) -> None:
    """Open and closed, by the queue and over HTTP, again and again, awaited, and interrupted."""
    notebook.run(
        "import threading\n"
        "from notebook_serve import NoBatching, serve\n"
        "from notebook_serve.lab.load_test import aload_test, load_test\n"
        "let, begun = threading.Event(), threading.Event()\n"
        "def model(xs):\n"
        "    if xs[0] == 'slow':\n"
        "        begun.set(); assert let.wait(60)\n"
        "    return xs\n"
        "def tell():\n"
        "    assert begun.wait(60)\n"
        "    print('begun', flush=True)\n"
        "server = serve(model, port=0, policy=NoBatching())"
    )
    printed, _ = notebook.run(
        "for target in (server, server.url):\n"
        "    print(load_test(target, ['x'], traffic=[0.0] * 20).outcomes['ok'])\n"
        "    print(load_test(target, ['x'], concurrency=2, duration=0.3).outcomes['ok'] > 2)"
    )
    assert printed.split() == ["20", "True"] * 2
    printed, _ = notebook.run(
        "print((await aload_test(server.url, ['x'], traffic=[0.0] * 5)).outcomes['ok'])"
    )
    assert printed.split() == ["5"]
    printed, shown = notebook.run(
        "report = load_test(server, ['x'], traffic=[0.0], duration=0.1, progress=True)"
    )
    assert "application/vnd.jupyter.widget-view+json" in shown
    assert "load test" in shown["text/plain"]
    assert printed == ""
    # A bar of the notebook's moves by messages of its own; the kernel knows what it says.
    printed, _ = notebook.run(
        "from ipywidgets.widgets.widget import _instances\n"
        "print([getattr(widget, 'value', '') for widget in _instances.values()])"
    )
    assert "0.1/0.1 s, 1 ended, 0 in flight" in printed.replace("\\u2007", " ")
    printed, _ = notebook.run(
        # A thread's words appear in the cell that started it, and the worker's in the first.
        "threading.Thread(target=tell).start()\n"
        "report = load_test(server, ['x', 'slow'], traffic=[0.0] * 50)",
        interrupt_at="begun",
    )
    assert printed.split() == ["begun"]
    printed, _ = notebook.run(
        "let.set()\nprint(report.outcomes['ok'], report.outcomes['cancelled'], report.notes[0])"
    )
    assert printed.startswith("1 49 Interrupted after")


# -- options --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give traffic .* or concurrency"),
        ({"traffic": [0.0], "concurrency": 1}, "and not both"),
        ({"inputs": "text", "traffic": [0.0]}, "inputs are a list of what to ask"),
        ({"inputs": b"text", "traffic": [0.0]}, "inputs are a list"),
        ({"inputs": {"a": 1}, "traffic": [0.0]}, "inputs are a list"),
        ({"inputs": 3, "traffic": [0.0]}, "inputs are a list"),
        ({"inputs": [], "traffic": [0.0]}, "inputs are empty"),
        ({"traffic": 50}, "write Poisson"),
        ({"concurrency": 0}, "concurrency is a whole number from 1 up, not 0"),
        ({"concurrency": 1.5}, "whole number from 1 up, not 1.5"),
        ({"concurrency": 1, "think": -1}, "think must be a number of seconds"),
        ({"traffic": [0.0], "think": 1}, "think is for users"),
        ({"traffic": [0.0], "duration": 0}, "duration is a positive number"),
        ({"traffic": [0.0], "duration": math.inf}, "duration is a positive number"),
        ({"traffic": [0.0], "timeout": 0}, "timeout is a positive number"),
        ({"traffic": [0.0], "timeout": "1"}, "timeout is a positive number"),
        ({"traffic": [0.0], "deadline": math.nan}, "deadline is a positive number"),
        ({"traffic": [0.0], "warmup": 1}, "warmup is a share"),
        ({"target": 3, "traffic": [0.0]}, "takes a server or a URL, not 3"),
        ({"traffic": [0.0], "headers": {"a": "b"}}, "headers are for a URL"),
        ({"target": "localhost:8000", "traffic": [0.0]}, "a URL begins with http"),
        ({"target": "http://", "traffic": [0.0]}, "a URL begins with http"),
        ({"target": "http://x:port", "traffic": [0.0]}, "is no URL"),
        ({"target": "http://x", "traffic": [0.0], "inputs": [math.nan]}, "cannot be sent"),
        ({"target": "http://x", "traffic": [0.0], "inputs": [object()]}, "cannot be sent"),
        ({"target": "http://x", "traffic": [0.0], "inputs": ["\ud800"]}, "cannot be sent"),
        ({"target": "http://x", "traffic": [0.0], "headers": {"a": 1}}, "headers are strings"),
    ],
)
def test_options_that_make_no_sense(make: Make, options: dict[str, Any], message: str) -> None:
    """Each is refused before anything is sent."""
    server = make(echo)
    given = {"target": server, "inputs": ["x"], **options}
    with pytest.raises(OptionError, match=message):
        load_test(**given)
    assert server.records() == []


def test_the_deadline_and_the_warm_up_reach_the_report(make: Make) -> None:
    """They are the report's, not the server's."""
    report = load_test(make(echo), ["x"], traffic=[0.0, 0.1], deadline=0.5, warmup=0.25)
    assert (report.deadline, report.warmup) == (0.5, 0.25)


@pytest.mark.parametrize(
    ("lateness", "latency", "busy", "said"),
    [
        (0.009, 0.001, 1.0, False),  # less than 10 ms is nobody's concern
        (0.011, 0.050, 0.0, True),
        (0.011, 0.200, 0.0, False),  # less than a tenth of what is measured
        (0.030, 0.200, 0.0, True),
        (0.011, math.nan, 0.0, True),  # nothing was answered
        (math.nan, 0.001, 1.0, False),  # nothing was sent
        (None, 0.001, 0.81, True),
        (None, 0.001, 0.79, False),
    ],
)
def test_when_the_generator_is_the_bottleneck(
    lateness: float | None, latency: float, busy: float, said: bool
) -> None:
    """By its lateness in an open loop, by what it computes in a closed one."""
    late = None if lateness is None else Distribution(p99=lateness)
    assert bool(bottleneck(late, latency, busy)) == said


# -- the progress bar -----------------------------------------------------------------------


def test_a_progress_bar(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    """It ends full, with all that ended, and is taken away; its thread is gone with it."""
    load_test(make(echo), ["x"], traffic=Constant(100), duration=0.2, progress=True)

    drawn = capsys.readouterr().err
    assert "load test" in drawn
    assert "0.2/0.2 s, 20 ended, 0 in flight" in drawn


def test_no_progress_bar_where_nobody_sees_it(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not on an error output that is no terminal, and never if it is not wanted."""
    server = make(echo)
    for progress in (None, False):
        load_test(server, ["x"], traffic=[0.0], progress=progress)
        load_test(server, ["x"], traffic=[0.0], duration=3.0, progress=progress)

    assert capsys.readouterr().err == ""


def test_a_progress_bar_without_tqdm(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that installs it if it is wanted; nothing if it is not asked for."""

    class Absent:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "tqdm":
                raise ModuleNotFoundError("No module named 'tqdm'", name="tqdm")

    for name in [name for name in sys.modules if name.partition(".")[0] == "tqdm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("sys.meta_path", [Absent(), *sys.meta_path])
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    server = make(echo)

    with pytest.raises(MissingExtra, match=r"pip install 'notebook-serve\[notebook\]'"):
        load_test(server, ["x"], traffic=[0.0], progress=True)
    assert load_test(server, ["x"], traffic=[0.0], duration=3.0).outcomes["ok"] == 1
