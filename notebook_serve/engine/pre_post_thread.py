"""The desk: one thread that does the small work around the model, what is urgent first."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable

#: a piece of work; whatever it needs is bound to it
Work = Callable[[], None]


class PrePostThread:
    """Does what is put on it, on a thread of its own: urgent work first, else in order.

    So answers leave before the next inputs are made ready, however many of those wait, and the
    worker's thread does neither: it goes on with the next batch at once. `died` is told what
    escaped from a piece of work; the thread ends with it.
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
        """End the thread once it is through with what was put before."""
        self._signals.put(False)

    def join(self, timeout: float) -> None:
        """Wait at most `timeout` seconds for the thread to end."""
        if self._thread.is_alive() and not self.is_current():
            self._thread.join(timeout)

    def is_current(self) -> bool:
        """Whether the caller runs on the desk's own thread."""
        return threading.current_thread() is self._thread

    def _work(self) -> None:
        try:
            while self._signals.get():
                (self._urgent or self._other).popleft()()
        except BaseException as error:
            self._died(error)
