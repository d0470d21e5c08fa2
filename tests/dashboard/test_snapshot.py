"""The picture that a dashboard draws, and what its controls do."""

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


def tiles(picture: dict[str, Any]) -> dict[str, str]:
    """Return the figures of a picture by their names."""
    return {name: value for name, value, _ in picture["tiles"]}


def later(seconds: float = 2.0) -> float:
    """A moment by which whatever has happened is in the past of whole seconds."""
    return time.monotonic() + seconds


def test_before_anything_was_asked_it_says_so(make: Make) -> None:
    """An idle server has a picture too, of JSON values without not-a-number."""
    picture = EngineSnapshots(make(echo)._engine).take()

    assert picture["tiles"] == EMPTY_TILES
    assert picture["timeline"] == []
    assert picture["state"] == "ready"
    assert set(map(len, picture["history"].values())) == {SPAN}
    json.dumps(picture, allow_nan=False)


def rates(count: int) -> set[str]:
    """What `count` in the last 10 s may be per second, on a server that is younger than that."""
    return {per_second(count / seconds) for seconds in range(1, 11)}


def test_it_counts_what_was_asked(make: Make) -> None:
    """Arrivals, answers and losses by the second; sizes, reasons and outcomes."""
    server = make(Faulty(echo, fail_on="bad"), policy=Greedy(4))
    server.pause()
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(server.predict, text) for text in ("a", "b", "c", "bad")]
        eventually(lambda: len(server.queue()) == 4, "all wait")
        server.resume()
        assert sum(future.exception() is not None for future in asked) == 1
    picture = EngineSnapshots(server._engine).take(later())
    history = picture["history"]

    assert sum(history["arrived"]) == 4
    assert sum(history["answered"]) == 3
    assert sum(history["lost"]) == 1
    assert picture["batch_sizes"] == {"4": 1}
    assert picture["reasons"] == {"full": 1}
    assert picture["outcomes"]["failed"] == 1
    assert [bar["size"] for bar in picture["timeline"]] == [4] * 4
    assert {bar["reason"] for bar in picture["timeline"]} == {"full"}
    assert tiles(picture)["answers"] in rates(3)


def test_who_waits_and_who_runs_is_shown(make: Make) -> None:
    """A request has a bar from its arrival on, and counts as waiting until it runs."""
    gate = Gate()
    server = make(gate, policy=NoBatching())
    with ThreadPoolExecutor(3) as pool:
        for name in "abc":
            pool.submit(server.predict, name)
        assert gate.begun.wait(60)
        eventually(lambda: len(server.queue()) == 2, "two wait")
        picture = EngineSnapshots(server._engine).take(later(3.0))
        gate.opened.set()
    bars = picture["timeline"]

    assert [bar["finished"] for bar in bars] == [None] * 3
    assert [bar["started"] is None for bar in bars] == [False, True, True]
    assert tiles(picture)["waiting"] == "2"
    assert tiles(picture)["running"] == "1"
    assert picture["history"]["waiting"][-1] == 2
    assert sum(picture["history"]["arrived"]) == 3


def test_looking_often_shows_the_same_as_looking_once(make: Make) -> None:
    """What is kept from picture to picture adds up to what the records say."""
    server = make(echo, policy=Greedy(3))
    often, looks = EngineSnapshots(server._engine), 0
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(server.predict, [f"text {n}" for n in range(300)]):
            often.take()
            looks += 1
    now = later()

    assert looks == 300
    assert often.take(now) == EngineSnapshots(server._engine).take(now)


def test_what_is_old_is_forgotten(make: Make) -> None:
    """A picture reaches a minute back, but for the time line and the counts since the start."""
    server = make(echo)
    server.predict("x")
    live = EngineSnapshots(server._engine)
    assert sum(live.take(later())["history"]["answered"]) == 1
    picture = live.take(later(SPAN + 5.0))

    assert sum(picture["history"]["answered"]) == 0
    assert picture["batch_sizes"] == {}
    assert picture["times"]["latency"]["p50"] is None
    assert picture["outcomes"]["ok"] == 1
    assert len(picture["timeline"]) == 1


def test_a_server_that_starts_again_begins_anew(make: Make) -> None:
    """Its records are new, and so is the picture."""
    server = make(echo)
    server.predict(["x", "y"])
    live = EngineSnapshots(server._engine)
    assert live.take()["outcomes"]["ok"] == 2
    server.stop()
    assert live.take()["state"] == "stopped"
    server.start()
    server.predict("z")
    picture = live.take(later())

    assert picture["outcomes"]["ok"] == 1
    assert sum(picture["history"]["answered"]) == 1


def test_the_time_line_is_bounded(make: Make) -> None:
    """However many wait: the newest that ended, and of those that wait the oldest."""
    gate = Gate()
    server = make(gate, policy=NoBatching(), max_queue_size=1000)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(server.predict, [str(n) for n in range(500)])
        assert gate.begun.wait(60)
        picture = EngineSnapshots(server._engine).take()
        gate.opened.set()

    assert len(picture["timeline"]) == MOST_BARS // 3
    assert picture["timeline"][0]["started"] is not None
    full = EngineSnapshots(server._engine).take()["timeline"]
    assert len(full) == MOST_BARS
    assert [bar["id"] for bar in full] == sorted(bar["id"] for bar in full)


def test_the_times_are_those_of_the_records(make: Make) -> None:
    """The percentiles of the wait, of the run and of both are those of `stats`."""
    server = make(echo)
    server.predict([str(n) for n in range(50)])
    times, stats = EngineSnapshots(server._engine).take()["times"], server.stats()

    assert times["wait"]["p90"] == stats.queue_time.p90
    assert times["run"]["p99"] == stats.inference_time.p99
    assert times["latency"]["p50"] == stats.latency.p50
    assert not math.isnan(stats.latency.p50)


def test_arrivals_count_what_waits_and_what_is_rejected(make: Make) -> None:
    """The load that comes, answered or not, over the same seconds as the answers."""
    gate = Gate()
    server = make(gate, policy=NoBatching(), max_queue_size=2)
    with ThreadPoolExecutor(3) as pool:
        pool.submit(server.predict, "a")
        assert gate.begun.wait(60)
        pool.submit(server.predict, ["b", "c"])
        eventually(lambda: len(server.queue()) == 2, "two wait")
        with pytest.raises(QueueFull):
            server.predict("d")
        picture = EngineSnapshots(server._engine).take(later())
        gate.opened.set()

    assert tiles(picture)["arrivals"] in rates(4)
    assert tiles(picture)["answers"] == "0/s"


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
    """Of the last ten seconds, the batches that still run included; the mean of all workers."""
    live = EngineSnapshots(make(loader=lambda: echo, workers=workers)._engine)
    live._batches.extend(
        BatchRecord(1, "full", (1,), started, seconds, worker=worker)
        for started, seconds, worker in batches
    )
    unfinished = [Unfinished(1, 40.0, started, batch, 1) for batch, started in running]
    waiting = [Unfinished(2, 40.0, None, None, 0)]

    assert live._measure_busy([*unfinished, *waiting], 90.0, 100.0) == pytest.approx(share)


def test_a_failing_model_is_in_the_picture(make: Make) -> None:
    """With its error and what comes next; the errors stay when it answers again."""
    server = make(Faulty(echo, fail_on="bad"), policy=NoBatching())
    live = EngineSnapshots(server._engine)
    picture = live.take()
    assert (picture["failing"], picture["errors"], picture["warnings"]) == (None, [], [])
    for _ in range(3):
        with pytest.raises(ModelFailed):
            server.predict("bad")
    picture = live.take()

    assert picture["state"] == "failing"
    assert {"type", "message", "ago", "times", "next"} <= picture["failing"].keys()
    assert (picture["failing"]["times"], picture["failing"]["type"]) == (3, "RuntimeError")
    json.dumps(picture, allow_nan=False)
    server.predict("good")
    picture = live.take()
    (error,) = picture["errors"]
    assert (picture["state"], picture["failing"]) == ("ready", None)
    assert error.keys() == {"type", "message", "ago", "times", "request"}
    assert (error["type"], error["times"], error["request"]) == ("RuntimeError", 3, "3")
    assert error["ago"] >= 0


def test_a_picture_has_the_newest_errors(make: Make) -> None:
    """At most ten, the newest first."""
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


def test_changes_of_the_policy_are_in_the_picture(make: Make) -> None:
    """Those of the last minute, oldest first, each with its age and its reason."""
    server = make(echo, policy=Greedy(3))
    server.policy = NoBatching()
    live, now = EngineSnapshots(server._engine), time.monotonic()
    changes = live.take(now)["changes"]
    first, second = server.policy_changes()

    assert [(change["policy"], change["reason"]) for change in changes] == [
        ("Greedy(max_batch_size=3)", "start"),
        ("NoBatching()", "set"),
    ]
    assert [change["ago"] for change in changes] == [now - first.at, now - second.at]
    assert live.take(first.at - 1)["changes"][0]["ago"] == 0.0
    assert live.take(second.at + SPAN + 1)["changes"] == []


def test_the_picture_says_what_the_model_takes(make: Make) -> None:
    """Its task and the kinds of input, for a form to ask it; nothing before it is loaded."""
    about = EngineSnapshots(make(echo)._engine).take()
    assert (about["task"], about["accepts"]) == ("function", ["bytes", "json", "text"])
    pipe = EngineSnapshots(make(small_models.pipeline("fill-mask"))._engine).take()
    assert (pipe["task"], pipe["accepts"]) == ("fill-mask", ["json", "text"])
    unloaded = EngineSnapshots(make(loader=lambda: echo, start=False)._engine).take()
    assert (unloaded["task"], unloaded["accepts"]) == ("", [])


def test_a_client_is_told_what_it_may_read() -> None:
    """Every message of an error is replaced, and nothing else."""
    error = {"type": "KeyError", "message": "secret", "ago": 1.0}
    picture = {"error": "secret", "failing": error, "errors": [error], "policy": "Greedy()"}
    shown = replace_messages(picture, lambda text: "hidden")

    assert "secret" not in json.dumps(shown)
    assert shown["errors"] == [{**error, "message": "hidden"}]
    assert replace_messages({**picture, "failing": None}, str)["failing"] is None


# -- controls -------------------------------------------------------------------------------


def test_controls_pause_resume_and_set_a_policy(make: Make) -> None:
    """As `pause`, `resume` and `policy` of the server do."""
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
def test_a_control_that_there_is_not_changes_nothing(make: Make, action: Any) -> None:
    """It is said what there is."""
    server = make(echo)
    with pytest.raises(OptionError, match="pause, resume or set a policy"):
        run_command(server._engine, action)

    assert (server.state, server.policy) == ("ready", CostAware())


def test_a_policy_that_makes_no_sense_leaves_the_one_in_effect(make: Make) -> None:
    """The error names what is wrong with it."""
    server = make(echo, policy=Greedy(3))
    with pytest.raises(OptionError, match="max_batch_size"):
        run_command(server._engine, {"do": "policy", "policy": "Greedy(max_batch_size=0)"})

    assert server.policy == Greedy(3)


def test_the_options_of_a_policy_are_as_they_are_written() -> None:
    """Of one that ships; another's are not known."""

    class Own:
        def decide(self, waiting: Any, now: float) -> Any: ...

    assert list_options(Window(8)) == {"max_batch_size": "8", "max_wait": "0.005"}
    assert list_options(Own()) == {}
