from __future__ import annotations

import pytest

from notebook_serve.engine.circuit_breaker import CircuitBreaker


def opened(now: float = 100.0) -> CircuitBreaker:
    breaker = CircuitBreaker(threshold=3, cool_off=2.0, longest=10.0)
    breaker.ran(0, 3, now)
    return breaker


def test_it_opens_after_failures_in_a_row_and_says_for_how_long() -> None:
    """Below the threshold nothing happens; at it, requests are refused for the cool-off."""
    breaker = CircuitBreaker(threshold=3, cool_off=2.0)
    assert not breaker.ran(0, 2, 100.0)
    assert breaker.refuses(100.0) is None
    assert breaker.ran(0, 1, 100.0)
    assert breaker.state == "open"
    assert breaker.refuses(100.5) == pytest.approx(1.5)
    assert breaker.refuses(102.0) is None


def test_a_success_in_between_starts_the_count_again() -> None:
    """Bad inputs among good ones never open it."""
    breaker = CircuitBreaker(threshold=3)
    for _ in range(100):
        breaker.ran(0, 2, 100.0)
        breaker.ran(1, 5, 100.0)
    assert breaker.state == "closed"


def test_after_the_cool_off_one_probe_is_let_through() -> None:
    """Others are refused until the probe tells, and its success closes the breaker."""
    breaker = opened()
    assert breaker.refuses(102.0) is None
    breaker.taken(102.0)
    assert breaker.state == "probing"
    assert breaker.refuses(102.5) == pytest.approx(1.5)
    assert breaker.ran(1, 0, 103.0)
    assert (breaker.state, breaker.refuses(103.0)) == ("closed", None)


def test_a_probe_that_fails_doubles_the_cool_off() -> None:
    """2, 4, 8 and then never more than the longest."""
    breaker, now, waits = opened(), 100.0, []
    for _ in range(5):
        wait = breaker.refuses(now)
        assert wait is not None
        waits.append(wait)
        now += wait
        breaker.taken(now)
        breaker.ran(0, 1, now)
    assert waits == [2.0, 4.0, 8.0, 10.0, 10.0]


def test_a_probe_that_never_tells_does_not_close_the_door() -> None:
    """Where its client left before it ran, another is let through after the same time."""
    breaker = opened()
    breaker.taken(102.0)
    assert breaker.refuses(103.9) is not None
    assert breaker.refuses(104.0) is None


def test_it_says_what_happens_next() -> None:
    """In a sentence for each state: how far it is, how long it is open, or that it tries."""
    breaker = CircuitBreaker(threshold=3, cool_off=2.0)
    said = [breaker.outlook(100.0)]
    breaker.ran(0, 2, 100.0)
    said.append(breaker.outlook(100.0))
    breaker.ran(0, 1, 100.0)
    said += [breaker.outlook(100.5), breaker.outlook(102.0)]
    breaker.taken(102.0)
    said.append(breaker.outlook(102.5))

    assert said == [
        "An answer ends this.",
        "An answer ends this; otherwise the circuit breaker opens "
        "(2 of 3 failures in a row so far).",
        "Requests are rejected (circuit breaker); one is tried again in 2 s.",
        "The next request tries the model again; an answer ends this.",
        "One request tries the model; others are rejected for at most 2 s.",
    ]
