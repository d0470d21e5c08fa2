"""What a server changes of the interpreter is set back when nobody needs it any more."""

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
    """Each test begins with Python's own, whatever Python it is."""
    before = gc.get_threshold()
    gc.set_threshold(*USUAL)
    yield
    gc.set_threshold(*before)


def server(name: str) -> Server:
    return Server(lambda inputs: inputs, port=0, name=name)


def test_threads_take_turns_sooner_while_anybody_needs_it() -> None:
    usual = sys.getswitchinterval()
    one, two = object(), object()
    for who in (one, one, two):
        SWITCH_INTERVAL.hold(who)
    SWITCH_INTERVAL.release(one)
    assert sys.getswitchinterval() == pytest.approx(SHORT_INTERVAL)
    SWITCH_INTERVAL.release(two)
    SWITCH_INTERVAL.release(two)
    assert sys.getswitchinterval() == usual


def test_garbage_is_looked_for_less_often_while_a_server_runs() -> None:
    one, two = server("one"), server("two")
    with one:
        assert gc.get_threshold() == (MANY_CONTAINERS, 10, 10)
        with two:
            one.stop()
            assert gc.get_threshold() == (MANY_CONTAINERS, 10, 10)
            one.start()
        assert gc.get_threshold() == (MANY_CONTAINERS, 10, 10)
    assert gc.get_threshold() == USUAL


def test_what_somebody_else_has_set_is_left() -> None:
    gc.set_threshold(0)
    with server("off"):
        assert gc.get_threshold()[0] == 0
    gc.set_threshold(5 * MANY_CONTAINERS, 10, 10)
    with server("more"):
        assert gc.get_threshold() == (5 * MANY_CONTAINERS, 10, 10)
        gc.set_threshold(123, 4, 5)
    assert gc.get_threshold() == (123, 4, 5)


def test_a_wave_of_requests_brings_no_collection_of_everything() -> None:
    """Hundreds at once, again and again: none of that makes Python look through all objects."""
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
