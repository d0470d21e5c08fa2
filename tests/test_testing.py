"""`Faulty`: failures on demand, and the behaviour of the server."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from notebook_serve import Greedy, ModelFailed, NoBatching, Server, WorkerDead
from notebook_serve.testing import Faulty

from .helpers import small_models
from .helpers.blocking_model import eventually
from .helpers.compare_answers import assert_same

Make = Callable[..., Server]


def echo(inputs: list[Any]) -> list[Any]:
    return inputs


def all_at_once(server: Server, inputs: list[Any]) -> list[Any]:
    """Return answers or errors of inputs that are all enqueued before the first batch."""
    server.pause()
    futures = server._engine.submit(inputs, {})
    eventually(lambda: len(server.queue()) == len(inputs), "all are prepared")
    server.resume()
    return [future.exception(60) or future.result().value for future in futures]


def test_a_poisoned_input_fails_alone(make: Make) -> None:
    """The other inputs have correct answers, and the record counts the retries."""
    server = make(Faulty(echo, fail_on="poison"), policy=Greedy(16))
    inputs = [f"text {n}" for n in range(15)] + ["poison"]
    *right, wrong = all_at_once(server, inputs)
    assert right == inputs[:-1]
    assert isinstance(wrong, ModelFailed)
    assert "Faulty: the forward pass fails" in str(wrong)
    [batch] = server.batches()
    assert 0 < batch.retries <= 2 * math.log2(16) + 1


def test_a_model_that_miscounts_is_found_out(make: Make) -> None:
    """Outputs are never assigned to the wrong inputs."""
    server = make(Faulty(echo, miscount_on="odd"), policy=Greedy(8))
    *right, wrong = all_at_once(server, ["a", "b", "c", "odd"])
    assert right == ["a", "b", "c"]
    assert isinstance(wrong, ModelFailed)
    assert "0 outputs for 1 inputs" in str(wrong)


def test_running_out_of_memory_splits_the_batch_and_is_remembered(make: Make) -> None:
    """All requests are answered, and later batches stay below the learned ceiling."""
    pipe, reference = (small_models.pipeline("text-classification") for _ in range(2))
    server = make(Faulty(pipe, out_of_memory_over=100), policy=Greedy(16))
    texts = ["the queue waits for the model"] * 16  # of 8 tokens each
    for want, got in zip(map(reference, texts), all_at_once(server, texts), strict=True):
        assert_same(want, got)
    assert server.batches()[0].retries == 2
    assert server.stats().memory_ceiling == 96  # halfway between 64, which fitted, and 128
    assert "96 padded tokens" in str(server.stats())

    answers = all_at_once(server, texts)
    assert not any(isinstance(answer, Exception) for answer in answers)
    later = server.batches()[1:]
    assert [batch.size for batch in later] == [12, 4]
    assert later[0].reason == "budget"
    assert all(batch.retries == 0 for batch in later)


def test_an_input_that_alone_does_not_fit_is_told_so(make: Make) -> None:
    """The error says that memory ran out on this input alone; the server continues."""
    pipe = small_models.pipeline("text-classification")
    server = make(Faulty(pipe, out_of_memory_over=20), policy=NoBatching())
    with pytest.raises(ModelFailed, match="out of memory on this input alone, of length 32"):
        server.predict("the " * 30)
    assert server.predict("the")[0]["label"]


def test_a_dead_worker_can_be_started_again(make: Make) -> None:
    """Pending requests end with `WorkerDead`, and start() serves new ones."""
    server = make(Faulty(echo, die_on="death"), policy=NoBatching())
    answers = all_at_once(server, ["before", "death", "after"])
    assert answers[0] == "before"
    assert all(isinstance(answer, WorkerDead) for answer in answers[1:])
    server.start()
    assert server.predict("again") == "again"
