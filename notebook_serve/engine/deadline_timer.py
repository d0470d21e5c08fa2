"""The deadline timer: a thread that sleeps until the earliest deadline, and never polls."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Iterable


class DeadlineTimer:
    """Calls ``due(key)`` on its own thread once `time.monotonic` reaches the deadline of `key`.

    A key that is discarded before its deadline is forgotten.
    """

    def __init__(self, due: Callable[[int], None], name: str) -> None:
        self._due = due
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._live: dict[int, float] = {}
        self._heap: list[tuple[float, int]] = []
        self._closed = False
        self._thread = threading.Thread(target=self._watch, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and forget the deadlines that have not come."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def add(self, when: float, key: int) -> None:
        """Call ``due(key)`` at time `when`."""
        with self._lock:  # called for every request, and a condition is entered in Python
            self._live[key] = when
            heapq.heappush(self._heap, (when, key))
            if len(self._heap) > 2 * len(self._live) + 64:
                # Most keys are discarded long before their deadline; do not keep them until then.
                self._heap = [(at, live) for live, at in self._live.items()]
                heapq.heapify(self._heap)
            if self._heap[0][1] == key:
                self._changed.notify()

    def discard(self, keys: Iterable[int]) -> None:
        """Forget the deadlines of `keys`, if they have not come."""
        with self._lock:
            for key in keys:
                self._live.pop(key, None)

    def _watch(self) -> None:
        while True:
            with self._changed:
                while not self._closed and not self._due_now():
                    left = self._heap[0][0] - time.monotonic() if self._heap else None
                    self._changed.wait(left if left is None else min(left, threading.TIMEOUT_MAX))
                if self._closed:
                    return
                _, key = heapq.heappop(self._heap)
                del self._live[key]
            self._due(key)

    def _due_now(self) -> bool:
        while self._heap and self._live.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)  # discarded, or given another time since
        return bool(self._heap) and self._heap[0][0] <= time.monotonic()
