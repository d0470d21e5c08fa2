"""Health: a failing model, its recovery, and the newest errors."""

from __future__ import annotations

import logging
import random
from typing import Any

import pytest

from notebook_serve import (
    DeadlineExceeded,
    InvalidInput,
    LoaderFailed,
    ModelFailed,
    NoBatching,
    QueueFull,
)
from notebook_serve.engine.circuit_breaker import CircuitBreaker
from notebook_serve.engine.failures import FAILING_AFTER
from notebook_serve.models.base import Prepared
from notebook_serve.models.functions.function_model import FunctionModel
from notebook_serve.queueing.scheduler import PolicyFault

from ..helpers.blocking_model import Gate
from ..helpers.engines import MakeEngine, Raising, ask, double, make_engine, outcome_of


class Sometimes:
    """A batch function that fails, rejects or answers, as each input says."""

    def __call__(self, inputs: list[Any]) -> list[Any]:
        """Do what the one input asks for."""
        (wanted,) = inputs
        if wanted == "failed":
            raise RuntimeError("no weights")
        if wanted == "invalid":
            raise InvalidInput("not this one")
        return inputs


def test_a_model_is_failing_exactly_while_its_newest_requests_fail(engine: MakeEngine) -> None:
    """For any order of answers, failures and rejected inputs, a rejected one counting for none."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - to repeat a failure
    chosen, one, ran = random.Random(seed), engine(Sometimes(), policy=NoBatching()), list[str]()
    one.admission.breaker = CircuitBreaker(threshold=10**9)
    assert one.state == "ready"
    for _ in range(300):
        wanted = chosen.choice(("ok", "failed", "failed", "failed", "invalid"))
        assert outcome_of(one, wanted) == wanted
        ran += [wanted] if wanted != "invalid" else []
        newest = ran[-FAILING_AFTER:]
        failing = bool(newest) and set(newest) == {"failed"}

        assert one.state == ("failing" if failing else "ready"), ran
        assert (one.failing is not None) == failing
        assert one.stats().state == one.state


def test_what_did_not_run_is_no_failure(engine: MakeEngine) -> None:
    """Requests that time out, are cancelled or rejected do not make a model failing."""
    gate = Gate()
    one = engine(gate, max_queue_size=2)
    running = ask(one, 0)
    assert gate.begun.wait(30)
    late, gone = ask(one, 1, timeout=0.01), ask(one, 2)
    gone.cancel()
    with pytest.raises(DeadlineExceeded):
        late.result(30)
    one.submit([1, 2], {})
    with pytest.raises(QueueFull):
        ask(one, 3)

    assert (one.state, one.failing, one.health.errors()) == ("ready", None, [])
    gate.opened.set()
    running.result(30)


def test_a_failing_model_says_what_failed_and_what_comes_next(
    engine: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """Type, message, how often, which request and what next; logged once, with the traceback."""
    one = engine(Sometimes(), policy=NoBatching())
    one.admission.breaker = CircuitBreaker(threshold=4, cool_off=60.0)
    with caplog.at_level(logging.INFO, "notebook_serve"):
        assert outcome_of(one, "failed") == "failed"
        first = one.failing
        assert caplog.records == []  # its client knows
        for _ in range(2):
            outcome_of(one, "failed")
        third = one.stats().failing
        outcome_of(one, "failed")
        opened = one.failing
    assert first is not None
    assert third is not None
    assert opened is not None

    assert (first.type, first.message, first.model) == ("RuntimeError", "no weights", "test")
    assert (first.times, third.times, opened.times) == (1, 3, 4)
    assert (first.request, opened.request) == ("1", "4")
    assert 0 <= first.ago < 60
    assert "3 of 4 failures in a row" in third.next
    assert "one is tried again in 60 s" in opened.next
    logged = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(logged) == 1
    assert logged[0].getMessage() == (
        "test: the model failed on 3 requests in a row; "
        "the newest (request 3) raised RuntimeError: no weights"
    )
    assert "test_health.py" in caplog.text  # the traceback leads to the model's own line


def test_the_log_tells_of_a_recovery(engine: MakeEngine, caplog: pytest.LogCaptureFixture) -> None:
    """One line for each spell of failures, and one when an answer ends it."""
    one = engine(Sometimes(), policy=NoBatching())
    with caplog.at_level(logging.INFO, "notebook_serve"):
        for wanted in ["failed"] * 5 + ["ok"] * 2 + ["failed"] * 2 + ["ok"] + ["failed"] * 3:
            outcome_of(one, wanted)

    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO", "ERROR"]
    assert one.state == "failing"
    outcome_of(one, "ok")
    assert (one.state, one.failing) == ("ready", None)
    assert one.health.last_error is not None
    assert one.health.last_error.times == 10


def test_a_paused_server_is_paused_although_its_model_fails(engine: MakeEngine) -> None:
    """It has to be shown that it can be resumed; the error is there all the same."""
    one = engine(Sometimes())
    outcome_of(one, "failed")
    one.pause()

    assert one.state == "paused"
    assert one.failing is not None
    one.pause(False)
    assert one.state == "failing"


def test_a_start_forgets_the_failures(engine: MakeEngine) -> None:
    """As it forgets records and counts: another model may have been loaded."""
    one = engine(Sometimes())
    outcome_of(one, "failed")
    one.stop()
    assert (one.state, one.failing) == ("stopped", None)
    assert one.health.last_error is not None
    one.start()

    assert (one.state, one.failing, one.health.errors()) == ("ready", None, [])


def test_an_input_that_breaks_the_preparation_counts(engine: MakeEngine) -> None:
    """A model that cannot even prepare its inputs is failing too."""
    model = FunctionModel(double)

    def prepare(inputs: Any, parameters: Any) -> Prepared:
        raise AttributeError("no tokenizer")

    model.prepare = prepare  # type: ignore[method-assign]
    one = engine(model)
    with pytest.raises(ModelFailed):
        ask(one, 1).result(30)

    assert one.state == "failing"
    assert [error.type for error in one.health.errors()] == ["AttributeError"]
    assert one.failing is not None
    assert one.failing.next == "An answer ends this."


def test_errors_are_counted_where_they_repeat(engine: MakeEngine) -> None:
    """Those of the model and of the policy; equal ones in a row are one, the newest is first."""
    calls = iter(["a", "a", "b"])

    def model(inputs: list[Any]) -> list[Any]:
        raise ValueError(next(calls))

    one = engine(model, policy=NoBatching())
    for _ in range(3):
        outcome_of(one, "x")
    one.policy_failed(PolicyFault(Raising(), RuntimeError("no idea")))
    found = [
        (error.type, error.message, error.times, error.request) for error in one.health.errors()
    ]

    assert found == [
        ("RuntimeError", "no idea", 1, ""),
        ("ValueError", "b", 1, "3"),
        ("ValueError", "a", 2, "2"),
    ]
    assert {error.model for error in one.health.errors()} == {"test"}


def test_a_worker_that_dies_and_a_loader_that_fails_are_errors() -> None:
    """What ended them can be read after the cell is gone."""

    def loader() -> Any:
        raise OSError("no such file")

    one = make_engine(loader=loader, max_queue_size=5)
    one.start()
    with pytest.raises(LoaderFailed):
        one.wait_ready(30)
    assert [(error.type, error.message) for error in one.health.errors()] == [
        ("OSError", "no such file")
    ]
    one.stop()
    assert one.health.errors() != []
