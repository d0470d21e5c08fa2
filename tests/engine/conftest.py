"""Engines for tests, stopped at the end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from notebook_serve.engine.engine import Engine

from ..helpers.engines import MakeEngine, make_engine


@pytest.fixture
def engine() -> Iterator[MakeEngine]:
    """Make started engines, and stop them at the end."""
    made: list[Engine] = []

    def make(*args: Any, **options: Any) -> Engine:
        new = make_engine(*args, **options)
        made.append(new)
        new.start()
        return new

    yield make
    for one in made:
        one.stop(drain=False)
