"""Interpreter settings that servers change while they run, and restore."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest

from notebook_serve import Server
from notebook_serve.workers.runtime_tuning import MANY_CONTAINERS, SHORT_INTERVAL, SWITCH_INTERVAL

USUAL = (700, 10, 10)


@pytest.fixture(autouse=True)
def thresholds() -> Iterator[None]:
    """Begin each test with the same thresholds; they differ between versions of Python."""
    before = gc.get_threshold()
    gc.set_threshold(*USUAL)
    yield
    gc.set_threshold(*before)


def server(name: str) -> Server:
    return Server(lambda inputs: inputs, port=0, name=name)


def test_the_switch_interval_is_short_until_the_last_holder_releases_it() -> None:
    """A holder counts once, and a second release has no effect."""
    usual = sys.getswitchinterval()
    one, two = object(), object()
    for holder in (one, one, two):
        SWITCH_INTERVAL.hold(holder)
    SWITCH_INTERVAL.release(one)
    assert sys.getswitchinterval() == pytest.approx(SHORT_INTERVAL)
    SWITCH_INTERVAL.release(two)
    SWITCH_INTERVAL.release(two)
    assert sys.getswitchinterval() == usual


def test_garbage_is_collected_less_often_while_a_server_runs() -> None:
    """The last of two servers restores the threshold."""
    one, two = server("one"), server("two")
    with one:
        assert gc.get_threshold() == (MANY_CONTAINERS, 10, 10)
        with two:
            one.stop()
            assert gc.get_threshold() == (MANY_CONTAINERS, 10, 10)
            one.start()
        assert gc.get_threshold() == (MANY_CONTAINERS, 10, 10)
    assert gc.get_threshold() == USUAL


def test_thresholds_of_the_user_stay() -> None:
    """One that is off or higher is not changed; one that is set later is not reset."""
    gc.set_threshold(0)
    with server("off"):
        assert gc.get_threshold()[0] == 0
    gc.set_threshold(5 * MANY_CONTAINERS, 10, 10)
    with server("more"):
        assert gc.get_threshold() == (5 * MANY_CONTAINERS, 10, 10)
        gc.set_threshold(123, 4, 5)
    assert gc.get_threshold() == (123, 4, 5)


def test_waves_of_requests_cause_no_full_collection() -> None:
    """Hundreds of requests at once, again and again, do not make Python scan all objects."""
    found: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            found.append(info["generation"])

    with server("waves") as waves:
        assert waves.predict(list(range(300))) == list(range(300))
        gc.collect()
        gc.callbacks.append(note)
        try:
            for _ in range(30):
                waves.predict(list(range(300)))
        finally:
            gc.callbacks.remove(note)
    assert 2 not in found
    assert len(found) < 30
