"""The short form of the soak: every fault at random for some seconds."""

from __future__ import annotations

import random

from .benchmarks.soak import soak


def test_every_fault_at_random_is_answered_rightly() -> None:
    """As many answers as requests, each right or rightly refused, and nothing kept for ever."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - to repeat a failure
    made, stats = soak(6.0, seed)

    assert made.wrong == []
    assert sum(made.answered.values()) == sum(made.sent.values()) > 100
    assert stats.queue_depth == 0
