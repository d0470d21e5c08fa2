"""Load on servers and URLs: real servers, real sockets, real interrupts."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice, pairwise
from typing import Any

import numpy as np
import pytest

from notebook_serve import (
    Decision,
    Distribution,
    Greedy,
    Job,
    NoBatching,
    OptionError,
    Policy,
    Server,
)
from notebook_serve.extras import MissingExtra
from notebook_serve.lab.load_test import aload_test, describe_bottleneck, load_test
from notebook_serve.lab.targets import UrlTarget
from notebook_serve.queueing.scheduler import FALLBACK
from notebook_serve.simulation.report import Report
from notebook_serve.simulation.simulator import RETRY
from notebook_serve.traffic import ClosedLoop, Constant, Poisson

from ..helpers.blocking_model import Gate, eventually
from ..helpers.kernels import Notebook
from ..helpers.web_server import WebServer, a_web_server  # noqa: F401 (a fixture)
from ..system.test_kernel import notebook
from ..system.test_kernel import pytestmark as in_a_kernel

__all__ = ["notebook"]

Make = Callable[..., Server]


def echo(inputs: list[Any]) -> list[Any]:
    return inputs


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads for load tests that run beside the test."""
    with ThreadPoolExecutor() as executor:
        yield executor


def count_open(server: Server) -> int:
    """Return the number of requests of a server without an answer."""
    return len(server._engine.requests)


def notes_of(report: Report) -> list[str]:
    """Return a report's notes except for that on a slow generator."""
    return [note for note in report.notes if "load generator itself" not in note]


# -- the open loop --------------------------------------------------------------------------


def test_an_open_loop_through_the_queue(make: Make) -> None:
    """Each request has a record with its scheduled arrival, and its batch is in the report."""
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
    # Request ids of the server are not those of the report.
    assert {batch.requests for batch in report.batches} == {()}
    for record in report.records:
        assert record.batch_id is not None
        batch = batches[record.batch_id]
        assert record.started is not None
        assert record.arrived <= record.started <= record.finished
        assert record.started == pytest.approx(batch.started)
        assert record.batch_size == batch.size


@pytest.mark.parametrize("over_http", [False, True])
def test_inputs_are_sent_in_turn(make: Make, over_http: bool) -> None:
    """They are repeated in order; any sequence will do."""
    seen = []

    def note(inputs: list[Any]) -> list[Any]:
        seen.extend(inputs)
        return inputs

    server = make(note, policy=NoBatching())

    inputs: Any = np.array(["a", "b", "c"])
    load_test(server.url if over_http else server, inputs, concurrency=1, duration=0.3)

    assert len(seen) > 3
    assert seen == list(islice(cycle("abc"), len(seen)))


def test_latency_counts_from_the_scheduled_time(make: Make, pool: ThreadPoolExecutor) -> None:
    """A blocked server adds to the latency of all requests scheduled while it was blocked."""
    gate = Gate()
    server = make(gate, policy=NoBatching())
    times = [n * 0.02 for n in range(10)]

    running = pool.submit(load_test, server, ["x"], traffic=times)
    eventually(lambda: count_open(server) == 10, "all are sent")
    gate.opened.set()
    report = running.result(60)

    assert report.records.arrived == times
    for record in report.records:
        assert record.finished >= times[-1]
        assert record.latency >= times[-1] - record.arrived


def test_a_blocked_generator(make: Make) -> None:
    """Late requests count from their scheduled time, and a note names the generator."""
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


def test_an_open_loop_has_no_limit_in_flight(make: Make, pool: ThreadPoolExecutor) -> None:
    """Over HTTP, every request is sent although none has been answered."""
    gate = Gate()
    server = make(gate)

    running = pool.submit(load_test, server.url, ["x"], traffic=[0.0] * 100)
    eventually(lambda: count_open(server) == 100, "all are sent")
    gate.opened.set()

    assert running.result(60).outcomes["ok"] == 100


def test_endless_traffic_ends_after_its_duration(make: Make) -> None:
    """Finite traffic may be cut too; the report covers the given duration."""
    server = make(echo)

    endless = load_test(server, ["x"], traffic=Poisson(200, seed=3), duration=0.2)
    cut = load_test(server, ["x"], traffic=[0.0, 0.1, 50.0], duration=0.2)
    nothing = load_test(server, ["x"], traffic=[])

    assert endless.records.arrived == Poisson(200, seed=3).times(0.2)
    assert endless.duration == 0.2
    assert (cut.records.arrived, cut.duration) == ([0.0, 0.1], 0.2)
    assert (len(nothing.records), nothing.duration) == (0, 0.0)


def test_batches_that_the_server_dropped(make: Make) -> None:
    """A note says that older ones are missing."""
    server = make(echo, policy=NoBatching(), max_queue_size=6000, refuse_late=False)

    report = load_test(server, ["x"], traffic=[0.0] * 5100)

    assert report.outcomes["ok"] == 5100
    assert len(report.batches) == 5000
    assert any("newest 5000 batches" in note for note in report.notes)


def test_two_load_tests_in_turn(make: Make) -> None:
    """The second report has its own times and batches."""
    server = make(echo)

    for _ in range(2):
        report = load_test(server, ["x"], traffic=Constant(100, n=10))
        assert len(report.records) == 10
        assert sum(batch.size for batch in report.batches) == 10
        assert min(batch.started for batch in report.batches) < 1


# -- the closed loop ------------------------------------------------------------------------


def most_in_flight(report: Report) -> int:
    """Return the maximum number of requests in flight, by a report's records."""
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
def test_a_closed_loop_keeps_a_number_in_flight(
    make: Make, pool: ThreadPoolExecutor, over_http: bool
) -> None:
    """There are never more, and each answer is followed by the next request."""
    gate = Gate()
    server = make(gate)

    running = pool.submit(
        load_test, server.url if over_http else server, ["x"], concurrency=3, duration=1.0
    )
    eventually(lambda: count_open(server) == 3, "three are sent")
    gate.opened.set()
    report = running.result(60)

    assert most_in_flight(report) == 3
    assert report.outcomes["ok"] == len(report.records) > 3
    assert report.duration == 1.0
    assert report.records.arrived == sorted(report.records.arrived)
    assert report.lateness is None


def test_users_think(make: Make) -> None:
    """Each waits before its next request; a `ClosedLoop` does the same."""
    server = make(echo)
    asked = load_test(server, ["x"], concurrency=1, think=0.05, duration=0.4)
    same = load_test(server, ["x"], traffic=ClosedLoop(1, think=0.05), duration=0.4)

    for report in (asked, same):
        records = report.records
        assert 1 < len(records) <= 8
        for before, after in pairwise(records):
            assert after.arrived - before.finished >= 0.05


def test_rejected_users_wait(make: Make, pool: ThreadPoolExecutor) -> None:
    """Without the pause, rejections would use the whole CPU."""
    gate = Gate()
    server = make(gate, max_queue_size=1, refuse_late=False)
    held = pool.submit(server.predict, "runs")
    assert gate.begun.wait(30)
    waits = pool.submit(server.predict, "waits")
    eventually(lambda: count_open(server) == 2, "the queue is full")

    report = load_test(server, ["x"], concurrency=4, duration=0.35)
    gate.opened.set()

    assert (held.result(30), waits.result(30)) == ("runs", "waits")
    assert report.outcomes["rejected"] == len(report.records)
    assert 4 <= len(report.records) <= 4 * math.ceil(0.35 / RETRY)


# -- outcomes -------------------------------------------------------------------------------


def picky(inputs: list[Any]) -> list[Any]:
    if "poison" in inputs:
        raise RuntimeError("cannot digest this")
    return inputs


def measured(given: Any) -> int:
    return len(given)


picky.length = measured  # type: ignore[attr-defined]


@pytest.mark.parametrize("over_http", [False, True])
def test_failures_are_counted_and_named(make: Make, over_http: bool) -> None:
    """Invalid and failed requests have a note with their first message."""
    server = make(picky, policy=NoBatching())
    inputs = ["good", "poison", 3]

    report = load_test(server.url if over_http else server, inputs, traffic=Constant(100, n=9))

    assert report.records.outcome == ["ok", "failed", "invalid"] * 3
    assert report.records.started[2] is None
    assert report.records.started[1] is not None
    failed, invalid = sorted(notes_of(report))
    names = ("status 422", "status 500") if over_http else ("InvalidInput", "ModelFailed")
    messages = {".length failed for this input", "cannot digest this"}
    for name, note in zip(sorted(names), sorted([failed, invalid]), strict=True):
        assert note.startswith(f"3 of 9 requests ended in {name}: ")
        assert any(words in note for words in messages)


@pytest.mark.parametrize("over_http", [False, True])
def test_rejected_and_expired_requests(
    make: Make, pool: ThreadPoolExecutor, over_http: bool
) -> None:
    """A full queue rejects at once; a request without an answer in time has expired."""
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


# -- changes of the policy ------------------------------------------------------------------


class Changing:
    """Model that sets its server's policy to an input that is a policy."""

    def __init__(self) -> None:
        self.server: Server | None = None

    def __call__(self, inputs: list[Any]) -> list[Any]:
        """Answer, and change the policy."""
        for given in inputs:
            if isinstance(given, Policy) and self.server is not None:
                self.server.policy = given
        return [repr(given) for given in inputs]


class Broken:
    """Policy that raises."""

    def decide(self, waiting: Sequence[Job], now: float) -> Decision:
        """Fail."""
        raise ZeroDivisionError("broken")

    def __repr__(self) -> str:
        return "Broken()"


def changing(make: Make, policy: Policy) -> Server:
    """Return a server of such a model."""
    model = Changing()
    model.server = make(model, policy=policy)
    return model.server


def test_the_report_has_changes_of_the_policy(make: Make) -> None:
    """It has the policy at the start; changes have their time from the start of the traffic."""
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


def test_a_failing_policy_is_a_change(make: Make) -> None:
    """The fallback replaces it, and the report says why."""
    server = changing(make, NoBatching())

    report = load_test(server, ["a", Broken(), "b", "c"], traffic=Constant(100, n=4))

    assert [change.reason for change in report.changes][-1] == "fault"
    assert report.changes[-1].policy == repr(FALLBACK)
    assert report.outcomes["ok"] == 4
    assert "(the previous policy failed)" in repr(report)


def test_a_policy_that_failed_before(make: Make) -> None:
    """The report has the fallback."""
    server = make(echo, policy=Broken())
    server.predict("x")

    report = load_test(server, ["a"], traffic=Constant(100, n=3))

    assert (report.policy, report.changes) == (repr(FALLBACK), ())


def test_a_run_under_one_policy_has_no_changes(make: Make) -> None:
    """Neither has one on a URL, where the policy is unknown."""
    server = make(echo, policy=Greedy(2))

    assert load_test(server, ["a"], traffic=Constant(100, n=3)).changes == ()
    assert load_test(server.url, ["a"], traffic=Constant(100, n=3)).changes == ()


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
def test_an_interrupt_returns_the_report_so_far(load: str, over_http: bool) -> None:
    """It has the answers, and cancelled requests, which the server does not run."""
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
    # The fourth one was running; no waiting one has run.
    assert ran == "['x', 'x', 'x', 'x', 'last']"


@pytest.mark.parametrize("over_http", [False, True])
@pytest.mark.parametrize("load", [{"traffic": [0.0] * 10}, {"concurrency": 10}])
def test_cancelling_cancels_the_requests(make: Make, load: dict[str, Any], over_http: bool) -> None:
    """`aload_test` raises `CancelledError`, and its waiting requests leave the queue."""
    gate = Gate()
    server = make(gate, policy=NoBatching())

    async def cancel() -> None:
        running = asyncio.create_task(
            aload_test(server.url if over_http else server, ["x"], **load)
        )
        while count_open(server) < 10 or not gate.begun.is_set():
            await asyncio.sleep(0.001)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(cancel())
    eventually(lambda: count_open(server) == 0, "all have left")
    gate.opened.set()
    assert server.predict("next") == "next"
    assert len(gate.calls) == 2


def test_an_interrupt_while_connecting(web: WebServer) -> None:
    """No request was sent, and the report says so."""

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
    """Open and closed loops work by queue and HTTP, repeated, awaited and interrupted."""
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
    # The bar of a notebook is a widget; the kernel has its text.
    printed, _ = notebook.run(
        "from ipywidgets.widgets.widget import _instances\n"
        "print([getattr(widget, 'value', '') for widget in _instances.values()])"
    )
    assert "0.1/0.1 s, 1 ended, 0 in flight" in printed.replace("\\u2007", " ")
    printed, _ = notebook.run(
        # A thread's output appears in the cell that started it, the worker's in the first cell.
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
        ({}, "pass either traffic .* or concurrency"),
        ({"traffic": [0.0], "concurrency": 1}, "pass either traffic"),
        (
            {"inputs": "text", "traffic": [0.0]},
            "inputs must be a list, even for one input, got 'text'",
        ),
        ({"inputs": b"text", "traffic": [0.0]}, "inputs must be a list"),
        ({"inputs": {"a": 1}, "traffic": [0.0]}, "inputs must be a list"),
        ({"inputs": 3, "traffic": [0.0]}, "inputs must be a list"),
        ({"inputs": [], "traffic": [0.0]}, "inputs must not be empty"),
        ({"traffic": 50}, "write Poisson"),
        ({"concurrency": 0}, "concurrency must be a whole number >= 1, got 0"),
        ({"concurrency": 1.5}, "whole number >= 1, got 1.5"),
        ({"concurrency": 1, "think": -1}, "think must be a number of seconds"),
        ({"traffic": [0.0], "think": 1}, "think needs concurrency"),
        ({"traffic": [0.0], "duration": 0}, "duration must be a positive number"),
        ({"traffic": [0.0], "duration": math.inf}, "duration must be a positive number"),
        ({"traffic": [0.0], "timeout": 0}, "timeout must be a positive number"),
        ({"traffic": [0.0], "timeout": "1"}, "timeout must be a positive number"),
        ({"traffic": [0.0], "deadline": math.nan}, "deadline must be a positive number"),
        ({"traffic": [0.0], "warmup": 1}, "warmup must be a share"),
        ({"target": 3, "traffic": [0.0]}, "must be a server or a URL, got 3"),
        ({"traffic": [0.0], "headers": {"a": "b"}}, "headers need a URL"),
        ({"target": "localhost:8000", "traffic": [0.0]}, "a URL must begin with http"),
        ({"target": "http://", "traffic": [0.0]}, "a URL must begin with http"),
        ({"target": "http://x:port", "traffic": [0.0]}, "must be a valid URL"),
        ({"target": "http://x", "traffic": [0.0], "inputs": [math.nan]}, "cannot be sent"),
        ({"target": "http://x", "traffic": [0.0], "inputs": [object()]}, "cannot be sent"),
        ({"target": "http://x", "traffic": [0.0], "inputs": ["\ud800"]}, "cannot be sent"),
        (
            {"target": "http://x", "traffic": [0.0], "headers": {"a": 1}},
            "headers must be a dict of strings",
        ),
    ],
)
def test_invalid_options(make: Make, options: dict[str, Any], message: str) -> None:
    """Each is rejected before a request is sent."""
    server = make(echo)
    given = {"target": server, "inputs": ["x"], **options}
    with pytest.raises(OptionError, match=message):
        load_test(**given)
    assert server.records() == []


def test_the_deadline_and_the_warm_up_reach_the_report(make: Make) -> None:
    """They are options of the report, not of the server."""
    report = load_test(make(echo), ["x"], traffic=[0.0, 0.1], deadline=0.5, warmup=0.25)
    assert (report.deadline, report.warmup) == (0.5, 0.25)


@pytest.mark.parametrize(
    ("lateness", "latency", "busy", "expected"),
    [
        (0.009, 0.001, 1.0, False),  # less than 10 ms does not matter
        (0.011, 0.050, 0.0, True),
        (0.011, 0.200, 0.0, False),  # less than a tenth of the latency
        (0.030, 0.200, 0.0, True),
        (0.011, math.nan, 0.0, True),  # nothing was answered
        (math.nan, 0.001, 1.0, False),  # nothing was sent
        (None, 0.001, 0.81, True),
        (None, 0.001, 0.79, False),
    ],
)
def test_when_the_generator_is_the_bottleneck(
    lateness: float | None, latency: float, busy: float, expected: bool
) -> None:
    """Its lateness counts in an open loop, its CPU time in a closed one."""
    late = None if lateness is None else Distribution(p99=lateness)
    assert bool(describe_bottleneck(late, latency, busy)) == expected


# -- the progress bar -----------------------------------------------------------------------


def test_a_progress_bar(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    """It ends full with the count of ended requests, and is removed with its thread."""
    load_test(make(echo), ["x"], traffic=Constant(100), duration=0.2, progress=True)

    drawn = capsys.readouterr().err
    assert "load test" in drawn
    assert "0.2/0.2 s, 20 ended, 0 in flight" in drawn


def test_no_progress_bar_without_a_terminal(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal there is none, nor with ``progress=False``."""
    server = make(echo)
    for progress in (None, False):
        load_test(server, ["x"], traffic=[0.0], progress=progress)
        load_test(server, ["x"], traffic=[0.0], duration=3.0, progress=progress)

    assert capsys.readouterr().err == ""


def test_a_progress_bar_without_tqdm(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """``progress=True`` raises with the install command; by default there is no bar."""

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
