"""Engines for tests, stopped at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from notebook_serve import (
    Greedy,
    Policy,
)
from notebook_serve.engine.engine import Engine

MakeEngine = Callable[..., Engine]


@pytest.fixture
def engine() -> Iterator[MakeEngine]:
    """Makes started engines, and stops them."""
    made: list[Engine] = []

    def make(
        model: Any = None,
        *,
        loader: Callable[[], Any] | None = None,
        policy: Policy | None = None,
        max_queue_size: int = 1000,
        timeout: float = 60.0,
    ) -> Engine:
        new = Engine(
            model,
            loader,
            Greedy() if policy is None else policy,
            max_queue_size=max_queue_size,
            timeout=timeout,
            name="test",
        )
        made.append(new)
        new.start()
        return new

    yield make
    for one in made:
        one.stop(drain=False)
