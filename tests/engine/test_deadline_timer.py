from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notebook_serve.engine.deadline_timer import DeadlineTimer

from ..helpers.blocking_model import eventually

#: seconds that no run should need
LONG = 30.0


class Watch:
    """A `DeadlineTimer` whose calls can be waited for."""

    def __init__(self) -> None:
        self.calls: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.deadlines = DeadlineTimer(self.calls.put, "test deadlines")

    def next(self) -> int:
        """The next key that was due."""
        return self.calls.get(timeout=LONG)

    def rest(self) -> list[int]:
        """Stop, and give the keys that were due and not asked for."""
        self.deadlines.stop()
        return [self.calls.get_nowait() for _ in range(self.calls.qsize())]

    def asleep(self) -> bool:
        """Whether the thread waits for something to change."""
        return bool(self.deadlines._changed._waiters)  # type: ignore[attr-defined]


@pytest.fixture
def watch() -> Iterator[Watch]:
    """A watch that is stopped at the end."""
    watch = Watch()
    yield watch
    watch.deadlines.stop()


def test_keys_are_due_in_the_order_of_their_times(watch: Watch) -> None:
    """Whatever the order in which they were added, the earliest is called first."""
    now = time.monotonic()
    for key, ago in [(1, 2.0), (2, 3.0), (3, 1.0), (4, 2.0)]:
        watch.deadlines.add(now - ago, key)
    watch.deadlines.start()

    assert [watch.next() for _ in range(4)] == [2, 1, 4, 3]
    assert watch.rest() == []


@pytest.mark.parametrize("seconds", [0.001, 0.005, 0.02, 0.05])
def test_nothing_is_due_before_its_time(seconds: float) -> None:
    """The clock has reached the time when the call comes."""
    called_at: queue.SimpleQueue[float] = queue.SimpleQueue()
    deadlines = DeadlineTimer(lambda key: called_at.put(time.monotonic()), "test deadlines")
    deadlines.start()
    when = time.monotonic() + seconds
    deadlines.add(when, 1)
    actual = called_at.get(timeout=LONG)
    deadlines.stop()

    assert actual >= when


def test_a_discarded_key_is_not_called(watch: Watch) -> None:
    """A key that was taken back is passed over, and the next one comes."""
    now = time.monotonic()
    for key in (1, 2, 3):
        watch.deadlines.add(now - 10 + key, key)
    watch.deadlines.discard([1])
    watch.deadlines.discard([3])
    watch.deadlines.discard([99])
    watch.deadlines.start()

    assert watch.next() == 2
    eventually(watch.asleep, "the thread is through with what was due")
    assert watch.rest() == []


def test_an_earlier_time_wakes_the_thread(watch: Watch) -> None:
    """A key added while the thread sleeps for a later one is called at its own time."""
    watch.deadlines.add(time.monotonic() + 3600, 1)
    watch.deadlines.start()
    eventually(watch.asleep, "the thread sleeps until the first key's time")
    watch.deadlines.add(time.monotonic(), 2)

    assert watch.next() == 2
    assert watch.rest() == []


def test_the_first_key_wakes_the_thread(watch: Watch) -> None:
    """A thread with nothing to wait for sleeps without end, and still hears of the first key."""
    watch.deadlines.start()
    eventually(watch.asleep, "the thread sleeps")
    watch.deadlines.add(time.monotonic(), 1)

    assert watch.next() == 1


def test_a_time_that_never_comes_is_no_trouble(watch: Watch) -> None:
    """Infinity, which no lock can wait for, is waited for all the same."""
    watch.deadlines.add(math.inf, 1)
    watch.deadlines.start()
    eventually(watch.asleep, "the thread sleeps")
    watch.deadlines.add(time.monotonic(), 2)

    assert watch.next() == 2
    assert watch.rest() == []


def test_a_call_holds_up_nobody() -> None:
    """The call is made without the lock, so other threads may add and discard meanwhile."""
    added = threading.Event()

    def add() -> None:
        deadlines.add(math.inf, 2)
        deadlines.discard([2])
        added.set()

    seen: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def due(key: int) -> None:
        helper = threading.Thread(target=add, daemon=True)
        helper.start()
        seen.put(added.wait(LONG / 3))

    deadlines = DeadlineTimer(due, "test deadlines")
    deadlines.add(time.monotonic(), 1)
    deadlines.start()
    went_on = seen.get(timeout=LONG)
    deadlines.stop()

    assert went_on


def test_a_key_may_add_and_discard_others() -> None:
    """A call may come back with new keys, and with some to forget."""
    called: queue.SimpleQueue[int] = queue.SimpleQueue()

    def due(key: int) -> None:
        called.put(key)
        if key == 1:
            deadlines.discard([2])
            deadlines.add(time.monotonic(), 3)

    deadlines = DeadlineTimer(due, "test deadlines")
    now = time.monotonic()
    deadlines.add(now - 1, 1)
    deadlines.add(now, 2)
    deadlines.start()
    keys = [called.get(timeout=LONG), called.get(timeout=LONG)]
    deadlines.stop()

    assert keys == [1, 3]
    assert called.empty()


def stop_at_once(deadlines: DeadlineTimer) -> None:
    """Stop a thread that may not even have begun to wait."""
    deadlines.start()
    deadlines.stop()


def stop_twice(deadlines: DeadlineTimer) -> None:
    """Stop again what is stopped."""
    deadlines.start()
    deadlines.stop()
    deadlines.stop()


def stop_before_start(deadlines: DeadlineTimer) -> None:
    """Stop first: the thread ends as soon as it starts."""
    deadlines.stop()
    deadlines.start()
    deadlines._thread.join(LONG)


@pytest.mark.parametrize("end", [stop_at_once, stop_twice, stop_before_start])
def test_stop_ends_the_thread(end: Callable[[DeadlineTimer], None]) -> None:
    """In whatever order it is started and stopped, no thread stays and nothing more is called."""
    watch = Watch()
    watch.deadlines.add(time.monotonic() + 3600, 1)
    end(watch.deadlines)

    assert not watch.deadlines._thread.is_alive()
    assert watch.calls.empty()


def test_stop_wakes_a_thread_that_sleeps(watch: Watch) -> None:
    """A sleep of an hour does not hold up the end."""
    watch.deadlines.add(time.monotonic() + 3600, 1)
    watch.deadlines.start()
    eventually(watch.asleep, "the thread sleeps")
    watch.deadlines.stop()

    assert not watch.deadlines._thread.is_alive()
    assert watch.calls.empty()


def test_a_thread_that_never_started_can_be_stopped() -> None:
    """Stopping what was only made is no error."""
    watch = Watch()
    watch.deadlines.stop()

    assert not watch.deadlines._thread.is_alive()


def test_a_key_may_stop_the_thread() -> None:
    """A stop from within a call does not wait for itself."""
    stopped = threading.Event()

    def due(key: int) -> None:
        deadlines.stop()
        stopped.set()

    deadlines = DeadlineTimer(due, "test deadlines")
    deadlines.add(time.monotonic(), 1)
    deadlines.add(time.monotonic(), 2)
    deadlines.start()

    assert stopped.wait(LONG)
    deadlines._thread.join(LONG)
    assert not deadlines._thread.is_alive()


def test_the_thread_is_a_daemon_with_a_name() -> None:
    """A stack dump says whose thread it is, and it keeps no interpreter alive."""
    thread = Watch().deadlines._thread

    assert (thread.name, thread.daemon) == ("test deadlines", True)


def test_discarded_keys_do_not_pile_up(watch: Watch) -> None:
    """Of many keys that came and went, few are remembered, and those that stay are called."""
    deadlines, now = watch.deadlines, time.monotonic()
    for key in range(1, 11):
        deadlines.add(now - key, -key)
    for key in range(1, 10_000):
        deadlines.add(now + 3600 + key, key)
        assert len(deadlines._heap) <= 2 * len(deadlines._live) + 64
        deadlines.discard([key])

    assert len(deadlines._live) == 10
    deadlines.start()
    assert [watch.next() for _ in range(10)] == list(range(-10, 0))
    eventually(watch.asleep, "the thread is through with what was due")
    assert watch.rest() == []


@settings(max_examples=40, deadline=None)
@given(
    keys=st.lists(
        st.tuples(st.integers(1, 5), st.sampled_from(["keep", "discard", "later"])), max_size=90
    )
)
def test_exactly_the_due_keys_are_called_in_order(keys: list[tuple[int, str]]) -> None:
    """Of any keys: each that is due and was not discarded, once, by time and then by number."""
    watch, now, due = Watch(), time.monotonic(), list[tuple[float, int]]()
    for key, (ago, what) in enumerate(keys):
        watch.deadlines.add(now + 3600 if what == "later" else now - ago, key)
        if what == "discard":
            watch.deadlines.discard([key])
        elif what == "keep":
            due.append((now - ago, key))
    watch.deadlines.start()
    try:
        called = [watch.next() for _ in due]
    finally:
        rest = watch.rest()

    assert called == [key for _, key in sorted(due)]
    assert rest == []


@pytest.mark.parametrize("discard", [True, False])
def test_a_key_added_again_has_its_new_time(watch: Watch, discard: bool) -> None:
    """A key that was given another time, after a discard or without, forgets the old one."""
    now = time.monotonic()
    watch.deadlines.add(now - 2, 1)
    if discard:
        watch.deadlines.discard([1])
    watch.deadlines.add(now + 3600, 1)
    watch.deadlines.add(now - 1, 2)
    watch.deadlines.start()

    assert watch.next() == 2
    assert watch.rest() == []
