"""Engines for tests, and models and policies that fail."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from notebook_serve import Decision, Greedy, Job, Policy, ServeError
from notebook_serve.engine.engine import Engine
from notebook_serve.engine.requests import Answer
from notebook_serve.models.factory import as_model
from notebook_serve.workers.executors import ThreadExecutor

from .blocking_model import eventually

MakeEngine = Callable[..., Engine]


def make_engine(
    model: Any = None,
    policy: Policy | None = None,
    *,
    loader: Callable[[], Any] = lambda: None,
    max_queue_size: int = 1000,
    timeout: float = 60.0,
    name: str = "test",
) -> Engine:
    """Return an engine with one worker thread, which is still to be started."""
    made = None if model is None else as_model(model)
    return Engine(
        made,
        Greedy() if policy is None else policy,
        [ThreadExecutor(made, lambda: as_model(loader()))],
        max_queue_size=max_queue_size,
        timeout=timeout,
        name=name,
    )


def double(inputs: list[Any]) -> list[Any]:
    return [value * 2 for value in inputs]


def ask(engine: Engine, value: Any, **options: Any) -> Future[Answer]:
    return engine.submit([value], {}, **options)[0]


def outcome_of(engine: Engine, wanted: str) -> str:
    """Ask for an outcome, and return the one that came."""
    with contextlib.suppress(ServeError):
        ask(engine, wanted).result(30)
    return engine.requests.records()[-1].outcome


class Raising:
    """A policy with a fault."""

    def decide(self, waiting: Sequence[Job], now: float) -> Decision:
        """Fail."""
        raise RuntimeError("no idea")


class Stalling:
    """A policy that waits for ever."""

    def decide(self, waiting: Sequence[Job], now: float) -> Decision:
        """Take nothing, never wake."""
        return Decision()


def started_engine(pipe: Any) -> Engine:
    """Return a started engine of a pipeline, with batches of up to eight."""
    engine = make_engine(pipe, Greedy(8), timeout=100.0, name="tasks")
    engine.start()
    return engine


def ask_together(engine: Engine, asked: Sequence[tuple[Any, Any]]) -> list[Any]:
    """Return the answers to requests that are all enqueued before the first batch."""
    engine.pause()
    futures = [engine.submit([given], parameters)[0] for given, parameters in asked]
    eventually(lambda: len(engine.requests.queue()) == len(asked), "all are prepared")
    engine.pause(False)
    return [future.result(60).value for future in futures]
