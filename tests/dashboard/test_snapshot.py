"""Snapshots of engines, and commands of the dashboard's controls."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from notebook_serve import (
    BatchRecord,
    CostAware,
    Greedy,
    ModelFailed,
    NoBatching,
    OptionError,
    QueueFull,
    Server,
    Window,
)
from notebook_serve.dashboard.snapshot import (
    MOST_BARS,
    MOST_ERRORS,
    SPAN,
    EngineSnapshots,
    list_options,
    replace_messages,
    run_command,
)
from notebook_serve.display import per_second
from notebook_serve.queueing.scheduler import PolicyFault
from notebook_serve.queueing.stats import Unfinished
from notebook_serve.testing import Faulty

from ..helpers import small_models
from ..helpers.blocking_model import Gate, eventually

Make = Callable[..., Server]

EMPTY_TILES = [
    ("arrivals", "0/s", "last 10 s"),
    ("answers", "0/s", "last 10 s"),
    ("busy", "0%", "last 10 s"),
    ("waiting", "0", "now"),
    ("running", "0", "now"),
    ("latency p50", "–", "last minute"),
    ("latency p99", "–", "last minute"),
    ("batch size", "–", "last minute"),
    ("padding", "–", "last minute"),
]


def echo(inputs: list[Any]) -> list[Any]:
    return inputs


def tiles(snapshot: dict[str, Any]) -> dict[str, str]:
    """Return the figures of a snapshot by their names."""
    return {name: value for name, value, _ in snapshot["tiles"]}


def later(seconds: float = 2.0) -> float:
    """Return a time at which all events so far lie in past whole seconds."""
    return time.monotonic() + seconds


def test_snapshot_of_an_idle_server(make: Make) -> None:
    """It has all fields, as JSON values without not-a-number."""
    snapshot = EngineSnapshots(make(echo)._engine).take()

    assert snapshot["tiles"] == EMPTY_TILES
    assert snapshot["timeline"] == []
    assert snapshot["state"] == "ready"
    assert set(map(len, snapshot["history"].values())) == {SPAN}
    json.dumps(snapshot, allow_nan=False)


def rates(count: int) -> set[str]:
    """Return the possible rates of `count` events on a server that is up to 10 s old."""
    return {per_second(count / seconds) for seconds in range(1, 11)}


def test_it_counts_requests_and_batches(make: Make) -> None:
    """It has arrivals, answers and losses by the second, batch sizes, reasons and outcomes."""
    server = make(Faulty(echo, fail_on="bad"), policy=Greedy(4))
    server.pause()
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(server.predict, text) for text in ("a", "b", "c", "bad")]
        eventually(lambda: len(server.queue()) == 4, "all wait")
        server.resume()
        assert sum(future.exception() is not None for future in asked) == 1
    snapshot = EngineSnapshots(server._engine).take(later())
    history = snapshot["history"]

    assert sum(history["arrived"]) == 4
    assert sum(history["answered"]) == 3
    assert sum(history["lost"]) == 1
    assert snapshot["batch_sizes"] == {"4": 1}
    assert snapshot["reasons"] == {"full": 1}
    assert snapshot["outcomes"]["failed"] == 1
    assert [bar["size"] for bar in snapshot["timeline"]] == [4] * 4
    assert {bar["reason"] for bar in snapshot["timeline"]} == {"full"}
    assert tiles(snapshot)["answers"] in rates(3)


def test_waiting_and_running_requests(make: Make) -> None:
    """A request is in the timeline from its arrival, and counts as waiting until it runs."""
    gate = Gate()
    server = make(gate, policy=NoBatching())
    with ThreadPoolExecutor(3) as pool:
        for name in "abc":
            pool.submit(server.predict, name)
        assert gate.begun.wait(60)
        eventually(lambda: len(server.queue()) == 2, "two wait")
        snapshot = EngineSnapshots(server._engine).take(later(3.0))
        gate.opened.set()
    bars = snapshot["timeline"]

    assert [bar["finished"] for bar in bars] == [None] * 3
    assert [bar["started"] is None for bar in bars] == [False, True, True]
    assert tiles(snapshot)["waiting"] == "2"
    assert tiles(snapshot)["running"] == "1"
    assert snapshot["history"]["waiting"][-1] == 2
    assert sum(snapshot["history"]["arrived"]) == 3


def test_many_snapshots_add_up_to_the_same_as_one(make: Make) -> None:
    """The state kept between snapshots agrees with the records."""
    server = make(echo, policy=Greedy(3))
    often, count = EngineSnapshots(server._engine), 0
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(server.predict, [f"text {n}" for n in range(300)]):
            often.take()
            count += 1
    now = later()

    assert count == 300
    assert often.take(now) == EngineSnapshots(server._engine).take(now)


def test_old_records_are_dropped(make: Make) -> None:
    """A snapshot covers one minute, except for the timeline and the counts since the start."""
    server = make(echo)
    server.predict("x")
    snapshots = EngineSnapshots(server._engine)
    assert sum(snapshots.take(later())["history"]["answered"]) == 1
    snapshot = snapshots.take(later(SPAN + 5.0))

    assert sum(snapshot["history"]["answered"]) == 0
    assert snapshot["batch_sizes"] == {}
    assert snapshot["times"]["latency"]["p50"] is None
    assert snapshot["outcomes"]["ok"] == 1
    assert len(snapshot["timeline"]) == 1


def test_a_restarted_server_begins_anew(make: Make) -> None:
    """Its records are new, and so are the counts of its snapshots."""
    server = make(echo)
    server.predict(["x", "y"])
    snapshots = EngineSnapshots(server._engine)
    assert snapshots.take()["outcomes"]["ok"] == 2
    server.stop()
    assert snapshots.take()["state"] == "stopped"
    server.start()
    server.predict("z")
    snapshot = snapshots.take(later())

    assert snapshot["outcomes"]["ok"] == 1
    assert sum(snapshot["history"]["answered"]) == 1


def test_the_timeline_is_bounded(make: Make) -> None:
    """It has the newest ended requests, and the oldest of those that wait."""
    gate = Gate()
    server = make(gate, policy=NoBatching(), max_queue_size=1000)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(server.predict, [str(n) for n in range(500)])
        assert gate.begun.wait(60)
        snapshot = EngineSnapshots(server._engine).take()
        gate.opened.set()

    assert len(snapshot["timeline"]) == MOST_BARS // 3
    assert snapshot["timeline"][0]["started"] is not None
    full = EngineSnapshots(server._engine).take()["timeline"]
    assert len(full) == MOST_BARS
    assert [bar["id"] for bar in full] == sorted(bar["id"] for bar in full)


def test_percentiles_equal_those_of_stats(make: Make) -> None:
    """They do for queue time, inference time and latency."""
    server = make(echo)
    server.predict([str(n) for n in range(50)])
    times, stats = EngineSnapshots(server._engine).take()["times"], server.stats()

    assert times["wait"]["p90"] == stats.queue_time.p90
    assert times["run"]["p99"] == stats.inference_time.p99
    assert times["latency"]["p50"] == stats.latency.p50
    assert not math.isnan(stats.latency.p50)


def test_arrivals_include_waiting_and_rejected_requests(make: Make) -> None:
    """Arrivals and answers cover the same seconds."""
    gate = Gate()
    server = make(gate, policy=NoBatching(), max_queue_size=2)
    with ThreadPoolExecutor(3) as pool:
        pool.submit(server.predict, "a")
        assert gate.begun.wait(60)
        pool.submit(server.predict, ["b", "c"])
        eventually(lambda: len(server.queue()) == 2, "two wait")
        with pytest.raises(QueueFull):
            server.predict("d")
        snapshot = EngineSnapshots(server._engine).take(later())
        gate.opened.set()

    assert tiles(snapshot)["arrivals"] in rates(4)
    assert tiles(snapshot)["answers"] == "0/s"


@pytest.mark.parametrize(
    ("batches", "running", "workers", "share"),
    [
        ([], [], 1, 0.0),
        ([(95.0, 1.0, 0)], [], 1, 0.1),
        ([(85.0, 10.0, 0)], [], 1, 0.5),
        ([(95.0, 1.0, 0), (95.0, 1.0, 1)], [], 2, 0.1),
        ([(80.0, 5.0, 0)], [(7, 97.0), (7, 97.0)], 1, 0.3),
        ([], [(7, 50.0), (8, 95.0)], 2, 0.75),
        ([(99.0, 9.0, 0)], [], 1, 0.1),
    ],
)
def test_busy_is_the_share_of_time_that_workers_ran(
    make: Make,
    batches: list[tuple[float, float, int]],
    running: list[tuple[int, float]],
    workers: int,
    share: float,
) -> None:
    """It covers ten seconds, includes running batches, and is the mean over all workers."""
    snapshots = EngineSnapshots(make(loader=lambda: echo, workers=workers)._engine)
    snapshots._batches.extend(
        BatchRecord(1, "full", (1,), started, seconds, worker=worker)
        for started, seconds, worker in batches
    )
    unfinished = [Unfinished(1, 40.0, started, batch, 1) for batch, started in running]
    waiting = [Unfinished(2, 40.0, None, None, 0)]

    assert snapshots._measure_busy([*unfinished, *waiting], 90.0, 100.0) == pytest.approx(share)


def test_a_failing_model(make: Make) -> None:
    """It has the error and what happens next; the list of errors stays after an answer."""
    server = make(Faulty(echo, fail_on="bad"), policy=NoBatching())
    snapshots = EngineSnapshots(server._engine)
    snapshot = snapshots.take()
    assert (snapshot["failing"], snapshot["errors"], snapshot["warnings"]) == (None, [], [])
    for _ in range(3):
        with pytest.raises(ModelFailed):
            server.predict("bad")
    snapshot = snapshots.take()

    assert snapshot["state"] == "failing"
    assert {"type", "message", "ago", "times", "next"} <= snapshot["failing"].keys()
    assert (snapshot["failing"]["times"], snapshot["failing"]["type"]) == (3, "RuntimeError")
    json.dumps(snapshot, allow_nan=False)
    server.predict("good")
    snapshot = snapshots.take()
    (error,) = snapshot["errors"]
    assert (snapshot["state"], snapshot["failing"]) == ("ready", None)
    assert error.keys() == {"type", "message", "ago", "times", "request"}
    assert (error["type"], error["times"], error["request"]) == ("RuntimeError", 3, "3")
    assert error["ago"] >= 0


def test_the_newest_errors(make: Make) -> None:
    """There are at most ten, the newest first."""
    calls = iter(range(100))

    def model(inputs: list[Any]) -> list[Any]:
        raise ValueError(str(next(calls)))

    server = make(model)
    for _ in range(9):
        with pytest.raises(ModelFailed):
            server.predict("x")
    server._engine.policy_failed(PolicyFault(Greedy(), RuntimeError("no idea")))
    server._engine.policy_failed(PolicyFault(Greedy(), RuntimeError("none at all")))
    errors = EngineSnapshots(server._engine).take()["errors"]

    assert len(errors) == MOST_ERRORS == 10
    assert [error["message"] for error in errors[:3]] == ["none at all", "no idea", "8"]


def test_changes_of_the_policy(make: Make) -> None:
    """They are those of the last minute, oldest first, with age and reason."""
    server = make(echo, policy=Greedy(3))
    server.policy = NoBatching()
    snapshots, now = EngineSnapshots(server._engine), time.monotonic()
    changes = snapshots.take(now)["changes"]
    first, second = server.policy_changes()

    assert [(change["policy"], change["reason"]) for change in changes] == [
        ("Greedy(max_batch_size=3)", "start"),
        ("NoBatching()", "set"),
    ]
    assert [change["ago"] for change in changes] == [now - first.at, now - second.at]
    assert snapshots.take(first.at - 1)["changes"][0]["ago"] == 0.0
    assert snapshots.take(second.at + SPAN + 1)["changes"] == []


def test_task_and_kinds_of_input(make: Make) -> None:
    """The try-it form needs them; they are empty before the model is loaded."""
    about = EngineSnapshots(make(echo)._engine).take()
    assert (about["task"], about["accepts"]) == ("function", ["bytes", "json", "text"])
    pipe = EngineSnapshots(make(small_models.pipeline("fill-mask"))._engine).take()
    assert (pipe["task"], pipe["accepts"]) == ("fill-mask", ["json", "text"])
    unloaded = EngineSnapshots(make(loader=lambda: echo, start=False)._engine).take()
    assert (unloaded["task"], unloaded["accepts"]) == ("", [])


def test_messages_are_replaced() -> None:
    """Every message of an error is replaced, and no other field."""
    error = {"type": "KeyError", "message": "secret", "ago": 1.0}
    snapshot = {"error": "secret", "failing": error, "errors": [error], "policy": "Greedy()"}
    found = replace_messages(snapshot, lambda text: "hidden")

    assert "secret" not in json.dumps(found)
    assert found["errors"] == [{**error, "message": "hidden"}]
    assert replace_messages({**snapshot, "failing": None}, str)["failing"] is None


# -- controls -------------------------------------------------------------------------------


def test_controls_pause_resume_and_set_a_policy(make: Make) -> None:
    """They act as `pause`, `resume` and `policy` of the server do."""
    server = make(echo)
    run_command(server._engine, {"do": "pause"})
    assert server.state == "paused"
    run_command(server._engine, {"do": "resume"})
    assert server.state == "ready"
    run_command(
        server._engine, {"do": "policy", "policy": "Window(max_batch_size=3, max_wait=0.01)"}
    )

    assert server.policy == Window(3, 0.01)


@pytest.mark.parametrize(
    "action",
    [{}, [], None, "pause", {"do": "stop"}, {"do": "policy"}, {"do": "policy", "policy": 8}],
)
def test_an_unknown_command_changes_nothing(make: Make, action: Any) -> None:
    """The error lists the commands."""
    server = make(echo)
    with pytest.raises(OptionError, match="pause, resume or set a policy"):
        run_command(server._engine, action)

    assert (server.state, server.policy) == ("ready", CostAware())


def test_an_invalid_policy_changes_nothing(make: Make) -> None:
    """The error names the invalid option."""
    server = make(echo, policy=Greedy(3))
    with pytest.raises(OptionError, match="max_batch_size"):
        run_command(server._engine, {"do": "policy", "policy": "Greedy(max_batch_size=0)"})

    assert server.policy == Greedy(3)


def test_options_of_a_policy() -> None:
    """They are the reprs of a built-in policy; those of another policy are unknown."""

    class Own:
        def decide(self, waiting: Any, now: float) -> Any: ...

    assert list_options(Window(8)) == {"max_batch_size": "8", "max_wait": "0.005"}
    assert list_options(Own()) == {}
