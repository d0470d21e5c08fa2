"""The table of running servers, and SIGTERM."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from notebook_serve.http.running_servers import (
    EXIT_GRACE,
    RunningServers,
    interrupted_by_terminate,
)


class Stopped:
    """A server that records the calls of `stop`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls: list[tuple[bool, float]] = []

    def stop(self, drain: bool = True, timeout: float = 10.0) -> None:
        """Record a call."""
        self.calls.append((drain, timeout))


def test_a_namesake_is_stopped_and_others_are_not() -> None:
    """A server does not stop itself."""
    table: RunningServers[Stopped] = RunningServers()
    old, other, new = Stopped("a"), Stopped("b"), Stopped("a")
    for server in (old, other):
        table.add(server)
    table.stop_namesake(old)
    assert old.calls == []
    table.stop_namesake(new)
    assert (len(old.calls), len(other.calls)) == (1, 0)
    table.add(new)
    assert list(table) == [new, other]


def test_a_replaced_server_does_not_remove_its_successor() -> None:
    """It may stop after the new one has taken the name."""
    table: RunningServers[Stopped] = RunningServers()
    old, new = Stopped("a"), Stopped("a")
    table.add(old)
    table.add(new)
    table.remove(old)
    assert list(table) == [new]
    table.remove(new)
    table.remove(new)
    assert list(table) == []


def test_the_table_may_change_while_it_is_read() -> None:
    """A stop removes its server from the table."""
    table: RunningServers[Stopped] = RunningServers()
    for name in "abc":
        table.add(Stopped(name))
    for server in table:
        table.remove(server)
    assert list(table) == []


@pytest.fixture
def log_level() -> Iterator[None]:
    """Restore the level of the log."""
    logger = logging.getLogger("notebook_serve")
    before = logger.level
    yield
    logger.setLevel(before)


@pytest.mark.usefixtures("log_level")
def test_the_end_of_the_interpreter_stops_all_without_draining() -> None:
    """They share the grace, and warnings are silent."""
    table: RunningServers[Stopped] = RunningServers()
    servers = [Stopped(name) for name in "ab"]
    for server in servers:
        table.add(server)
    table.stop_at_exit()
    calls = [call for server in servers for call in server.calls]
    assert [drain for drain, _ in calls] == [False, False]
    assert all(0.0 <= timeout <= EXIT_GRACE for _, timeout in calls)
    assert not logging.getLogger("notebook_serve").isEnabledFor(logging.WARNING)


# -- SIGTERM ----------------------------------------------------------------------------------


def test_sigterm_raises_keyboard_interrupt_inside_only() -> None:
    """Afterwards the usual handler is back."""
    with pytest.raises(KeyboardInterrupt), interrupted_by_terminate():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_handler_of_the_process_is_kept() -> None:
    """The program that installed it decides what a terminate does."""
    seen: list[int] = []

    def handle(number: int, frame: Any) -> None:
        seen.append(number)

    before = signal.signal(signal.SIGTERM, handle)
    try:
        with interrupted_by_terminate():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [signal.SIGTERM]


def test_another_thread_installs_no_handler() -> None:
    """Python allows that in the main thread only."""
    found: list[Any] = []

    def enter() -> None:
        with interrupted_by_terminate():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join(30)
    assert found == [signal.SIG_DFL]
