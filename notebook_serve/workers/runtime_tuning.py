"""Settings of the interpreter that a server changes while it runs, and then sets back."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

#: seconds after which a thread that computes in Python gives the interpreter to one that waits.
#: Python's own 5 ms are waited for at every step of a request: a tokenizer or a socket gives the
#: interpreter up, and must wait for it again.
SHORT = 0.0002
#: containers that are made, beyond those that are freed, before Python looks for cycles of garbage.
#: Each request that is under way has dozens, so that the usual 700 come and go with every wave of
#: them. What was alive then counts as old, and soon all objects of the process are looked
#: through: with torch imported that takes 0.1 s, in which no thread runs.
MANY = 10_000


class Setting(Generic[T]):
    """A setting of the interpreter, changed as long as anybody needs that."""

    def __init__(
        self, read: Callable[[], T], write: Callable[[T], object], better: Callable[[T], T]
    ) -> None:
        self._read, self._write, self._better = read, write, better
        self._lock = threading.Lock()
        self._holders: set[int] = set()
        self._usual = self._ours = read()

    def hold(self, who: object) -> None:
        """Change it, until all who asked for that have let go."""
        with self._lock:
            if not self._holders:
                self._usual = self._read()
                self._write(self._better(self._usual))
                self._ours = self._read()
            self._holders.add(id(who))

    def let_go(self, who: object) -> None:
        """`who` does not need it any more, if it ever did; after the last it is as before.

        Unless somebody else has changed it meanwhile.
        """
        with self._lock:
            if id(who) in self._holders:
                self._holders.discard(id(who))
                if not self._holders and self._read() == self._ours:
                    self._write(self._usual)


def _rarer(usual: tuple[int, int, int]) -> tuple[int, int, int]:
    first, *others = usual
    return (max(first, MANY) if first else 0, others[0], others[1])


#: how long a busy cell keeps the interpreter from the server's threads
SWITCHING = Setting(sys.getswitchinterval, sys.setswitchinterval, lambda usual: min(SHORT, usual))
#: how often cycles of garbage are looked for; never, where that is switched off
COLLECTING = Setting(gc.get_threshold, lambda wanted: gc.set_threshold(*wanted), _rarer)
