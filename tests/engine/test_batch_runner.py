"""The batch runner: isolation of failures, and answers from outputs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from notebook_serve import (
    Greedy,
    ModelFailed,
    NoBatching,
    WorkerDead,
)
from notebook_serve.models.base import Prepared
from notebook_serve.models.functions.function_model import FunctionModel

from ..helpers.blocking_model import eventually
from ..helpers.engines import MakeEngine, ask, double


def test_one_bad_input_costs_nobody_else_an_answer(engine: MakeEngine) -> None:
    """In a batch of 16 with one offender, 15 are answered and one fails, with its own error."""

    def model(inputs: list[Any]) -> list[Any]:
        return [10 // value for value in inputs]

    one = engine(model, policy=Greedy(16))
    one.pause()
    futures = [ask(one, value) for value in [1, 2, 0, *range(3, 16)]]
    one.pause(False)

    with pytest.raises(ModelFailed, match="ZeroDivisionError") as caught:
        futures[2].result(30)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    right = [future.result(30).value for at, future in enumerate(futures) if at != 2]
    assert right == [10 // value for value in range(1, 16)]
    assert one.requests.batches()[0].retries == 8
    assert one.stats().outcomes == {
        "ok": 15, "rejected": 0, "invalid": 0, "failed": 1, "expired": 0, "cancelled": 0
    }  # fmt: skip


def test_batches_say_which_requests_shared_them(engine: MakeEngine) -> None:
    """The ids are those of the request records, in the order of the lengths."""
    one = engine(double, policy=Greedy(4))
    one.pause()
    futures = one.submit(list(range(10)), {})
    one.pause(False)
    for future in futures:
        future.result(30)
    shared = {record.id: record.batch_id for record in one.requests.records()}

    assert [batch.requests for batch in one.requests.batches()] == [
        (1, 2, 3, 4),
        (5, 6, 7, 8),
        (9, 10),
    ]
    assert all(
        shared[mate] == batch.id for batch in one.requests.batches() for mate in batch.requests
    )


class AtDesk(FunctionModel):
    """A function whose answers are finished at the desk, by `finishing`."""

    def __init__(self, function: Callable[..., Any], finishing: Callable[[Any], Any]) -> None:
        super().__init__(function)
        self.prepares = True
        self._finishing = finishing

    def finish(self, item: Prepared, output: Any) -> Any:
        """What `finishing` makes of it."""
        return self._finishing(output)


def test_the_next_batch_does_not_wait_for_the_answers_to_the_last(engine: MakeEngine) -> None:
    """What remains to be done with outputs is done off the worker's thread."""
    second_ran, ran = threading.Event(), list[int]()

    def model(inputs: list[int]) -> list[int]:
        ran.extend(inputs)
        if 2 in inputs:
            second_ran.set()
        return inputs

    def finishing(output: int) -> int:
        # The first answer is not made before the second batch has run: else this times out.
        assert output != 1 or second_ran.wait(30)
        return output

    one = engine(AtDesk(model, finishing), policy=NoBatching())
    one.pause()
    futures = one.submit([1, 2], {})
    eventually(lambda: len(one.requests.queue()) == 2, "both wait")
    one.pause(False)
    assert [future.result(30).value for future in futures] == [1, 2]
    assert ran == [1, 2]


def test_what_was_computed_before_the_worker_died_is_still_answered(engine: MakeEngine) -> None:
    died = threading.Event()

    def model(inputs: list[int]) -> list[int]:
        if 2 in inputs:
            raise SystemExit("enough")
        return inputs

    def finishing(output: int) -> int:
        assert died.wait(30)
        return output

    one = engine(AtDesk(model, finishing), policy=NoBatching())
    one.pause()
    first, second = one.submit([1, 2], {})
    eventually(lambda: len(one.requests.queue()) == 2, "both wait")
    one.pause(False)
    eventually(lambda: one.state == "dead", "the worker is dead")
    died.set()
    assert first.result(30).value == 1
    with pytest.raises(WorkerDead, match="SystemExit: enough"):
        second.result(30)


def test_when_the_desk_dies_everybody_is_answered_and_start_recovers(engine: MakeEngine) -> None:
    deadly = [True]

    def finishing(output: int) -> int:
        if deadly[0]:
            raise SystemExit("enough")
        return output

    one = engine(AtDesk(double, finishing))
    with pytest.raises(WorkerDead, match="SystemExit: enough"):
        ask(one, 1).result(30)
    assert one.state == "dead"
    deadly[0] = False
    one.start()
    assert ask(one, 1).result(30).value == 2


def test_a_lack_of_memory_costs_few_runs(engine: MakeEngine) -> None:
    """Of bursts of 32 requests, 3 of which fit together, later ones need the least runs."""
    calls: list[int] = []

    def model(inputs: list[int]) -> list[int]:
        calls.append(len(inputs))
        if len(inputs) > 3:
            raise MemoryError
        return inputs

    one = engine(model, policy=Greedy(32))
    runs = []
    for _ in range(10):
        calls.clear()
        one.pause()
        futures = one.submit(list(range(32)), {})
        one.pause(False)
        assert [future.result(30).value for future in futures] == list(range(32))
        runs.append(len(calls))

    assert runs[0] <= 20  # 4 that failed, and 16 pairs
    assert runs[1] <= 14
    assert runs[9] <= 11
    assert one.stats().outcomes["ok"] == 320


def test_an_input_that_fails_alone_says_nothing_about_memory(engine: MakeEngine) -> None:
    """Neither an input that does not fit alone nor a bad one raises the learned limit."""

    def model(inputs: list[str]) -> list[str]:
        if "bad" in inputs[0]:
            raise ValueError("bad")
        if sum(map(len, inputs)) > 100:
            raise MemoryError
        return inputs

    model.length = len  # type: ignore[attr-defined]
    one = engine(model, policy=Greedy(32))
    one.pause()
    futures = one.submit(["x" * 10] * 32, {})
    one.pause(False)
    assert {future.result(30).value for future in futures} == {"x" * 10}
    limit = one.runner.memory.limit
    assert limit <= 160

    for text in ("y" * 600, "bad" * 200):
        with pytest.raises(ModelFailed):
            ask(one, text).result(30)
    assert one.runner.memory.limit == limit
    assert one.requests.batches()[0].retries < 2 * 32


def test_the_record_counts_the_runs_that_were_made(engine: MakeEngine) -> None:
    """Parts that are known to be too large are not run, and not counted."""
    calls: list[int] = []

    def model(inputs: list[int]) -> list[int]:
        calls.append(len(inputs))
        if len(inputs) > 3:
            raise MemoryError
        return inputs

    one = engine(model, policy=Greedy(32))
    one.pause()
    futures = one.submit(list(range(32)), {})
    one.pause(False)
    for future in futures:
        future.result(30)
    (batch,) = one.requests.batches()
    assert batch.retries == len(calls) - 1

    one.stop()
    one.start()
    assert one._scheduler.max_tokens == one.runner.memory.limit < 32
