"""What the tests of the engine share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from notebook_serve import Decision, Job, ServeError
from notebook_serve.engine.engine import Engine
from notebook_serve.engine.requests import Answer

MakeEngine = Callable[..., Engine]


def double(inputs: list[Any]) -> list[Any]:
    return [value * 2 for value in inputs]


def ask(engine: Engine, value: Any, **options: Any) -> Future[Answer]:
    return engine.submit([value], {}, **options)[0]


def outcome_of(engine: Engine, wanted: str) -> str:
    """Ask for an outcome, and return the one that came."""
    with contextlib.suppress(ServeError):
        ask(engine, wanted).result(30)
    return engine.records()[-1].outcome


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
