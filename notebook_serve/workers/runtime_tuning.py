"""Interpreter settings that a server changes while it runs, and restores afterwards."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

#: seconds after which a thread that computes in Python releases the GIL to one that waits. Each
#: step of a request waits for Python's own 5 ms: a tokenizer or a socket releases the GIL, and
#: must wait to get it back.
SHORT_INTERVAL = 0.0002
#: containers made, beyond those freed, before Python looks for cycles of garbage. A request in
#: flight has dozens, so every wave of requests passes the default of 700. Objects that are alive
#: then count as old, and soon Python scans all objects of the process: with torch imported that
#: takes 0.1 s, in which no thread runs.
MANY_CONTAINERS = 10_000


class Setting(Generic[T]):
    """A setting of the interpreter that is changed as long as it has a holder."""

    def __init__(
        self, read: Callable[[], T], write: Callable[[T], object], improve: Callable[[T], T]
    ) -> None:
        self._read, self._write, self._improve = read, write, improve
        self._lock = threading.Lock()
        self._holders: set[int] = set()
        self._usual = self._ours = read()

    def hold(self, holder: object) -> None:
        """Change the setting until all holders have released it."""
        with self._lock:
            if not self._holders:
                self._usual = self._read()
                self._write(self._improve(self._usual))
                self._ours = self._read()
            self._holders.add(id(holder))

    def release(self, holder: object) -> None:
        """Release the setting, if `holder` holds it; the last holder restores it.

        A value that other code has set in the meantime stays.
        """
        with self._lock:
            if id(holder) in self._holders:
                self._holders.discard(id(holder))
                if not self._holders and self._read() == self._ours:
                    self._write(self._usual)


def _collect_less_often(usual: tuple[int, int, int]) -> tuple[int, int, int]:
    first, *others = usual
    return (max(first, MANY_CONTAINERS) if first else 0, others[0], others[1])


#: how long a busy cell may keep the GIL from the server's threads
SWITCH_INTERVAL = Setting(
    sys.getswitchinterval, sys.setswitchinterval, lambda usual: min(SHORT_INTERVAL, usual)
)
#: how often Python looks for cycles of garbage; never, if the user has switched that off
GC_THRESHOLD = Setting(
    gc.get_threshold, lambda threshold: gc.set_threshold(*threshold), _collect_less_often
)
