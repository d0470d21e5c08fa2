"""Admission: rejections of a full, late, closed or failing engine."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from notebook_serve import (
    BatchRecord,
    CircuitOpen,
    InvalidInput,
    ModelFailed,
    NoBatching,
    Overloaded,
    QueueFull,
    each,
)
from notebook_serve.engine.admission import retry_after
from notebook_serve.engine.circuit_breaker import CircuitBreaker
from notebook_serve.engine.engine import Engine

from ..helpers.blocking_model import Gate, eventually
from ..helpers.engines import MakeEngine, ask


def test_a_full_queue_refuses_and_says_when_to_come_back(engine: MakeEngine) -> None:
    """Beyond max_queue_size a request is refused at once; a list is taken whole or not at all."""
    gate = Gate()
    one = engine(gate, max_queue_size=3)
    running = ask(one, 0)
    assert gate.begun.wait(30)
    waiting = one.submit([1, 2], {})
    with pytest.raises(QueueFull, match="2 requests wait, and the queue holds 3") as caught:
        one.submit([3, 4], {})
    assert caught.value.retry_after >= 1
    last = ask(one, 5)
    with pytest.raises(QueueFull):
        one.check_open()
    with pytest.raises(InvalidInput, match="send it in parts"):
        one.submit([0] * 4, {})
    gate.opened.set()

    assert [future.result(30).value for future in [running, *waiting, last]] == [0, 1, 2, 5]
    assert one.stats().outcomes["rejected"] == 3


@pytest.mark.parametrize(
    ("depth", "rate", "seconds"),
    [(0, 0.0, 1), (10, 0.0, 1), (10, 100.0, 1), (100, 10.0, 10), (101, 10.0, 11), (1000, 1.0, 60)],
)
def test_retry_after_is_the_time_to_drain_the_queue(depth: int, rate: float, seconds: int) -> None:
    """Whole seconds, at least one, at most a minute."""
    assert retry_after(depth, rate) == seconds


def test_time_with_nothing_to_do_does_not_lengthen_the_wait(engine: MakeEngine) -> None:
    """Who is refused is told by what batches took, not by how few there were to run of late."""
    gate = Gate()
    one = engine(gate, max_queue_size=40)
    for number in range(20):
        record = BatchRecord(number, "idle", (1,), started=number * 60.0, seconds=0.09)
        one.requests.estimate.learn(record)
    running = ask(one, 0)
    assert gate.begun.wait(30)
    waiting = one.submit(list(range(40)), {})
    with pytest.raises(QueueFull) as caught:
        ask(one, "too many")
    gate.opened.set()

    assert caught.value.retry_after == 4
    assert len([future.result(30) for future in [running, *waiting]]) == 41


def test_a_model_that_only_fails_is_left_alone_for_a_while(engine: MakeEngine) -> None:
    """After many failures in a row requests are refused, until a probe is answered."""
    broken = [True]

    def model(inputs: list[Any]) -> list[Any]:
        if broken[0]:
            raise RuntimeError("no weights")
        return inputs

    one = engine(model)
    one.admission.breaker = CircuitBreaker(threshold=3, cool_off=0.05)
    for _ in range(3):
        with pytest.raises(ModelFailed):
            ask(one, 1).result(30)
    eventually(lambda: one.stats().breaker == "open", "the breaker opens")
    with pytest.raises(CircuitOpen, match="failed 3 times in a row") as caught:
        ask(one, 1)
    assert caught.value.retry_after >= 1
    broken[0] = False
    eventually(lambda: one.admission.closed() is None, "the cool-off is over")
    assert ask(one, "probe").result(30).value == "probe"
    eventually(lambda: one.stats().breaker == "closed", "the breaker closes")
    assert ask(one, 2).result(30).value == 2


def test_who_cannot_be_served_in_time_is_refused_at_once(engine: MakeEngine) -> None:
    """With ten seconds of work in front, who has five is told so, and who has a minute waits."""
    gate = Gate()
    one = engine(gate, timeout=60.0)
    for n in range(20):
        one.requests.estimate.learn(BatchRecord(n, "full", (1,), 0.0, 1.0))  # each took a second
    futures = [ask(one, 0)]
    assert gate.begun.wait(30)
    futures += one.submit(list(range(10)), {})
    with pytest.raises(Overloaded, match=r"10 requests wait; .* takes about 11 s, and it has 5 s"):
        ask(one, 1, timeout=5.0)
    with pytest.raises(Overloaded):
        one.check_open(timeout=5.0)
    futures.append(ask(one, 1, timeout=59.0))
    gate.opened.set()
    for future in futures:
        future.result(30)


class Picky:
    """A function that answers numbers, and fails on texts; while `broken` it fails on all."""

    broken = False

    def __init__(self) -> None:
        self.calls: list[list[Any]] = []

    def __call__(self, inputs: list[Any]) -> list[Any]:
        """Return the successor of each number."""
        self.calls.append(inputs)
        if self.broken:
            raise RuntimeError("no weights")
        return [value + 1 for value in inputs]


def fail(one: Engine, count: int) -> None:
    """Send so many inputs that fail."""
    for number in range(count):
        with pytest.raises(ModelFailed):
            ask(one, f"bad {number}").result(30)


def test_bad_inputs_do_not_close_the_server_to_good_ones(engine: MakeEngine) -> None:
    """Before the breaker opens, the model is tested with an input that it has answered."""
    model = Picky()
    one = engine(model, policy=NoBatching())
    assert ask(one, 1).result(30).value == 2
    for _ in range(5):
        fail(one, 18)
        assert ask(one, 2).result(30).value == 3
    assert one.stats().breaker == "closed"
    # One extra run for each ten failures in a row, with the newest input that was answered.
    assert len(model.calls) == 1 + 5 * (18 + 1 + 1)
    assert one.stats().outcomes["ok"] == 6


def test_a_model_that_breaks_opens_the_breaker(engine: MakeEngine) -> None:
    """If the input that it has answered fails too, it is the model that fails."""
    model = Picky()
    one = engine(model, policy=NoBatching())
    assert ask(one, 1).result(30).value == 2
    model.broken = True
    for _ in range(10):
        with pytest.raises(ModelFailed):
            ask(one, 1).result(30)
    eventually(lambda: one.stats().breaker == "open", "the breaker opens")
    with pytest.raises(CircuitOpen):
        ask(one, 1)


def test_a_probe_with_a_bad_input_closes_the_breaker_of_a_healthy_model(
    engine: MakeEngine,
) -> None:
    """After a cool-off a bad input is the probe; the model answers the test, and all is well."""
    model = Picky()
    one = engine(model, policy=NoBatching())
    one.admission.breaker = CircuitBreaker(threshold=3, cool_off=0.0)
    assert ask(one, 1).result(30).value == 2
    model.broken = True
    fail(one, 3)
    eventually(lambda: one.stats().breaker == "open", "the breaker opens")
    model.broken = False
    fail(one, 1)
    eventually(lambda: one.stats().breaker == "closed", "the model answers again")


def test_bad_inputs_of_each_do_not_close_the_server(engine: MakeEngine) -> None:
    """A function of one item, whose failures are outputs, is tested in the same way."""
    seen: list[Any] = []

    def successor(value: Any) -> Any:
        seen.append(value)
        return value + 1

    one = engine(each(successor), policy=NoBatching())
    assert ask(one, 1).result(30).value == 2
    fail(one, 25)
    assert ask(one, 2).result(30).value == 3
    assert one.stats().breaker == "closed"
    assert [value for value in seen if isinstance(value, int)] == [1, 1, 1, 2]


def test_invalid_inputs_cost_no_test(engine: MakeEngine) -> None:
    """Inputs that the model calls invalid say nothing about it, and no test is made."""
    calls: list[Any] = []

    def model(inputs: list[Any]) -> list[Any]:
        calls.append(inputs)
        if "invalid" in inputs:
            raise InvalidInput("not this")
        return inputs

    one = engine(model, policy=NoBatching())
    assert ask(one, "valid").result(30).value == "valid"
    for _ in range(15):
        with pytest.raises(InvalidInput):
            ask(one, "invalid").result(30)
    assert len(calls) == 16
    one.stop()
    assert one.runner._answered is None


def test_the_answers_do_not_wait_for_the_test(engine: MakeEngine) -> None:
    """The input that leads to the test has its error before the test ends."""
    tested, opened = threading.Event(), threading.Event()

    def model(inputs: list[Any]) -> list[Any]:
        if inputs == ["good"] and len(failed) == 10:
            tested.set()
            assert opened.wait(60)
        return [value.strip() for value in inputs]

    failed: list[Any] = []
    one = engine(model, policy=NoBatching())
    assert ask(one, "good").result(30).value == "good"
    for number in range(10):
        future = ask(one, number)
        failed.append(future) if number == 9 else failed.append(None)
        with pytest.raises(ModelFailed):
            future.result(30)
    assert tested.wait(30)
    opened.set()
    assert ask(one, "more").result(30).value == "more"
