"""A short soak test with every fault at random, and the rules that detect growth."""

from __future__ import annotations

import random

import pytest

from ..benchmarks.soak import CLIENTS, SLACK, Sample, Soak, growth, soak

REST = Sample(50.0, 5, 20)
#: under load both ends of every connection are open, and a thread restarts dead workers
BUSY = Sample(60.0, 6, 20 + 2 * CLIENTS)
STEADY = [BUSY] * 12


def test_every_fault_at_random_is_answered_rightly() -> None:
    """Every request has one answer, right or rightly rejected, and nothing grows."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - to repeat a failure
    made, stats = soak(6.0, seed)

    assert made.faults() == []
    assert made.sent.total() > 100
    assert stats.queue_depth == 0


def memory(*values: float) -> list[Sample]:
    """Return samples that differ in memory only."""
    return [BUSY._replace(memory=value) for value in values]


@pytest.mark.parametrize(
    "samples",
    [
        STEADY,
        STEADY[:9],
        memory(*range(50, 60), 59, 59, 59, 59, 59),  # warming up
        memory(60, 61, 60, 61, 60, 61, 60, 61, 60, 61, 60, 61),  # up and down
        memory(*[60] * 8, 60, 60, 60, 95),  # one peak
        memory(*[60] * 8, *[60 + SLACK] * 4),
        memory(*[90] * 4, *[60] * 8),  # freed
        [*STEADY[:4], REST, *STEADY[:7]],  # a sample was taken while a worker was dead
        [BUSY._replace(threads=9), *STEADY],
        [*STEADY, BUSY._replace(files=BUSY.files + 10)],  # some requests were just abandoned
    ],
)
def test_growth_ignores(samples: list[Sample]) -> None:
    """Warm-up, swings, a single peak and freed memory are not growth."""
    assert growth(REST, samples, REST) == []


@pytest.mark.parametrize(
    ("samples", "after", "found"),
    [
        (memory(*[60] * 8, *[60.1 + SLACK] * 4), REST, "memory by 2.1 MB"),
        (memory(*range(50, 62)), REST, "memory by 4.0 MB"),
        (memory(*[60] * 4, *[50] * 4, *[60] * 4), REST, "memory by 10.0 MB"),
        ([*STEADY, BUSY._replace(threads=7)], REST, "threads from 6 to 7"),
        ([BUSY._replace(threads=n) for n in range(12)], REST, "threads from 7 to 11"),
        ([*STEADY, BUSY._replace(files=21 + 3 * CLIENTS)], REST, "files from 20 to 213 under"),
        (STEADY, REST._replace(threads=6), "threads from 5 to 6 when all clients had gone"),
        (STEADY, REST._replace(files=21), "files from 20 to 21 when all clients had gone"),
    ],
)
def test_growth_finds(samples: list[Sample], after: Sample, found: str) -> None:
    """A rise of the typical memory, one more thread or one more open file is reported."""
    messages = growth(REST, samples, after)

    assert len(messages) == 1
    assert messages[0].startswith(found)


def test_growth_needs_nine_samples() -> None:
    """Eight samples are too few for thirds that can be compared."""
    with pytest.raises(AssertionError, match="too few"):
        growth(REST, STEADY[:8], REST)


def test_a_soak_reports_its_faults() -> None:
    """A request without an answer, a wrong answer and growth are faults."""
    made = Soak(0, REST, samples=STEADY, after=REST)
    assert made.faults() == []
    made.sent["good"] += 3
    made.answered["good 200"] += 2
    made.wrong.append("good: 500")
    made.after = BUSY

    assert [fault.split()[0] for fault in made.faults()] == ["3", "good:", "grown:", "grown:"]
