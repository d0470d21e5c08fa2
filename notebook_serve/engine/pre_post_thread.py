"""The pre/post thread: prepares inputs and finishes outputs, urgent work first."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable

#: a piece of work, with its arguments bound
Work = Callable[[], None]


class PrePostThread:
    """A thread that does pieces of work: urgent work first, else in order.

    Answers are finished before the next inputs are prepared, however many of those wait. The worker
    thread does neither: it goes on with the next batch at once. `died` is called with an error that
    escapes from a piece of work; the thread ends with it.
    """

    def __init__(self, died: Callable[[BaseException], None], name: str) -> None:
        self._died = died
        self._urgent: deque[Work] = deque()
        self._other: deque[Work] = deque()
        #: one for each piece of work, and a False at the end
        self._signals: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, work: Work) -> None:
        """Do `work` when everything before it is done."""
        self._other.append(work)
        self._signals.put(True)

    def put_urgent(self, work: Work) -> None:
        """Do `work` when the urgent work before it is done."""
        self._urgent.append(work)
        self._signals.put(True)

    def close(self) -> None:
        """End the thread after the work that was put before."""
        self._signals.put(False)

    def join(self, timeout: float) -> None:
        """Wait at most `timeout` seconds for the thread to end."""
        if self._thread.is_alive() and not self.is_current():
            self._thread.join(timeout)

    def is_current(self) -> bool:
        """Return True if the caller runs on this thread."""
        return threading.current_thread() is self._thread

    def _work(self) -> None:
        try:
            while self._signals.get():
                (self._urgent or self._other).popleft()()
        except BaseException as error:
            self._died(error)
