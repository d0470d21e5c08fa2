"""The state of an engine, and waiting for it to change."""

from __future__ import annotations

import threading

from notebook_serve.engine.status import Status


def test_a_change_of_state_wakes_a_waiting_thread() -> None:
    """A thread that waits for the end of a state returns as soon as the state changes."""
    status = Status()
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(status.wait_while("new", 60.0)))
    thread.start()
    with status.lock:
        status.become("loading")
    thread.join(60)
    assert found == [True]


def test_a_state_that_stays_is_reported() -> None:
    """If the time is up before the state changes, the result is False."""
    status = Status()
    assert not status.wait_while("new", 0.0)
    assert status.wait_while("ready", 0.0)
