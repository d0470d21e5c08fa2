"""The engine: life cycle, loaders, deaths of workers, and everything at once."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

import pytest

from notebook_serve import (
    DeadlineExceeded,
    Greedy,
    LoaderFailed,
    ModelFailed,
    NoBatching,
    NotReady,
    Overloaded,
    Policy,
    QueueFull,
    Stopping,
    Window,
    WorkerDead,
)

from ..helpers.blocking_model import Gate
from ..helpers.engines import MakeEngine, Raising, Stalling, ask, double


def test_answers_each_request_with_its_own_output(engine: MakeEngine) -> None:
    """Many requests from many threads each get the answer to their own input."""
    one = engine(double)
    results: dict[int, Any] = {}

    def work(base: int) -> None:
        for value in range(base, base + 50):
            results[value] = ask(one, value).result(30).value

    threads = [threading.Thread(target=work, args=(base,)) for base in range(0, 400, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert results == {value: value * 2 for value in range(400)}
    assert one.stats().outcomes["ok"] == 400
    assert sorted(record.id for record in one.requests.records()) == list(range(1, 401))


def test_stop_drains_even_under_a_policy_that_would_wait(engine: MakeEngine) -> None:
    """Everything accepted is answered; what comes after is refused."""
    one = engine(double, policy=Window(100, max_wait=3000))
    futures = one.submit(list(range(250)), {})
    one.stop()
    assert [future.result(0).value for future in futures] == list(range(0, 500, 2))
    with pytest.raises(Stopping):
        one.submit([1], {})
    assert [(b.size, b.reason) for b in one.requests.batches()][:2] == [
        (100, "full"),
        (100, "full"),
    ]
    assert {b.reason for b in one.requests.batches()[2:]} == {"drain"}
    assert one.state == "stopped"


def test_stop_without_drain_refuses_what_waits(engine: MakeEngine) -> None:
    """With drain=False the waiting requests are answered with Stopping, at once."""
    gate = Gate()
    one = engine(gate)
    running = ask(one, 0)
    assert gate.begun.wait(30)
    waiting = one.submit([1, 2], {})
    stopper = threading.Thread(target=one.stop, kwargs={"drain": False})
    stopper.start()
    for future in [running, *waiting]:
        with pytest.raises(Stopping):
            future.result(30)
    gate.opened.set()
    stopper.join()
    assert len(gate.calls) == 1


def test_start_after_stop_works(engine: MakeEngine) -> None:
    """An engine can be stopped and started again, and both do nothing the second time."""
    one = engine(double)
    for round_ in range(3):
        assert ask(one, round_).result(30).value == round_ * 2
        one.start()
        one.stop()
        one.stop()
        one.start()
    assert ask(one, 9).result(30).value == 18


def test_a_loader_runs_once_on_the_worker_thread(engine: MakeEngine) -> None:
    """Until the loader is done requests are refused; then its model answers; restarts reuse it."""
    let, threads = threading.Event(), []

    def loader() -> Callable[[list[Any]], list[Any]]:
        threads.append(threading.current_thread())
        assert let.wait(30)
        return double

    one = engine(loader=loader)
    assert one.state == "loading"
    with pytest.raises(NotReady, match="loading"):
        ask(one, 1)
    with pytest.raises(NotReady, match=r"after 0\.01 s"):
        one.wait_ready(0.01)
    let.set()
    one.wait_ready(30)
    assert ask(one, 1).result(30).value == 2
    one.stop()
    one.start()
    assert ask(one, 2).result(30).value == 4
    assert len(threads) == 1
    assert "worker" in threads[0].name


@pytest.mark.parametrize("error", [OSError("no such file"), MemoryError(), SystemExit(3)])
def test_a_failing_loader_is_readable_and_can_be_tried_again(
    engine: MakeEngine, error: BaseException
) -> None:
    """wait_ready raises what the loader raised; start() after a mend loads again."""
    broken = [True]

    def loader() -> Callable[[list[Any]], list[Any]]:
        if broken[0]:
            raise error
        return double

    one = engine(loader=loader)
    with pytest.raises(LoaderFailed, match=type(error).__name__) as caught:
        one.wait_ready(30)
    assert caught.value.__cause__ is error
    assert one.state == "failed"
    with pytest.raises(NotReady, match="could not be loaded"):
        ask(one, 1)
    broken[0] = False
    one.start()
    one.wait_ready(30)
    assert ask(one, 1).result(30).value == 2
    assert one.stats().error == ""


def test_when_the_worker_dies_everybody_is_answered_and_start_recovers(
    engine: MakeEngine,
) -> None:
    """What escapes the worker is told to all who wait; a new worker goes on."""
    deadly = [True]

    def model(inputs: list[Any]) -> list[Any]:
        if deadly[0]:
            raise SystemExit("enough")
        return inputs

    one = engine(model)
    one.pause()
    futures = one.submit(list(range(40)), {})
    one.pause(False)
    for future in futures:
        with pytest.raises(WorkerDead, match="SystemExit: enough"):
            future.result(30)
    assert one.state == "dead"
    assert "SystemExit" in one.stats().error
    with pytest.raises(WorkerDead):
        ask(one, 1)
    deadly[0] = False
    one.start()
    assert ask(one, 1).result(30).value == 1


def test_an_error_without_a_message_is_told_by_its_name(engine: MakeEngine) -> None:
    """Nothing stands behind a colon."""

    def model(inputs: list[Any]) -> list[Any]:
        raise KeyboardInterrupt

    one = engine(model)
    with pytest.raises(WorkerDead, match=r"the worker died of KeyboardInterrupt; call start\(\)"):
        ask(one, 1).result(30)


def test_everything_at_once_loses_nothing(engine: MakeEngine) -> None:
    """Under clients that cancel, expire and crash batches while policies swap, all are answered."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - to repeat a failure
    rng = random.Random(seed)

    def model(inputs: list[int]) -> list[int]:
        if any(value % 17 == 0 for value in inputs):
            raise ValueError("seventeen")
        return inputs

    one = engine(model, max_queue_size=64)
    counts = dict.fromkeys(("sent", "ok", "failed", "expired", "cancelled", "rejected"), 0)
    lock = threading.Lock()

    def count(name: str) -> None:
        with lock:
            counts[name] += 1

    def client(seed: int) -> None:
        mine = random.Random(seed)
        for _ in range(150):
            value = mine.randrange(1000)
            count("sent")
            try:
                future = ask(one, value, timeout=mine.choice([None, 1e-4, 1.0]))
            except (QueueFull, Overloaded):
                count("rejected")
                continue
            if mine.random() < 0.2:
                future.cancel()
            try:
                assert future.result(60).value == value
                count("ok")
            except ModelFailed:
                assert value % 17 == 0
                count("failed")
            except DeadlineExceeded:
                count("expired")
            except CancelledError:
                count("cancelled")

    policies: list[Policy] = [Greedy(3), NoBatching(), Window(5, 0.001), Raising(), Stalling()]
    clients = [threading.Thread(target=client, args=(rng.random(),)) for _ in range(8)]
    for thread in clients:
        thread.start()
    while any(thread.is_alive() for thread in clients):
        one.policy = rng.choice(policies)
        clients[0].join(0.005)
        clients = [thread for thread in clients if thread.is_alive()] or clients[:1]
    outcomes = dict(one.stats().outcomes)

    assert counts.pop("sent") == 1200 == sum(counts.values())
    assert {name: outcomes[name] for name in counts} == counts
    assert one.stats().queue_depth == 0
