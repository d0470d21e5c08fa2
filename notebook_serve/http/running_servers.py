"""Running servers of this process by name, and how the end of the process stops them."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

#: seconds for running batches when the interpreter exits; Jupyter kills a kernel after 2.5
EXIT_GRACE = 1.0


class Stoppable(Protocol):
    """A server, as far as the table needs it."""

    @property
    def name(self) -> str:
        """Name in the table."""

    def stop(self, drain: bool = True, timeout: float = 10.0) -> None:
        """Stop, and free the port."""


T = TypeVar("T", bound=Stoppable)


class RunningServers(Generic[T]):
    """A table of the running servers, at most one of each name; any thread may use it."""

    def __init__(self) -> None:
        self._table: dict[str, T] = {}
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[T]:
        with self._lock:
            return iter(list(self._table.values()))

    def stop_namesake(self, server: T) -> None:
        """Stop another server that has the name of `server`."""
        with self._lock:
            found = self._table.get(server.name)
        if found is not None and found is not server:
            found.stop()

    def add(self, server: T) -> None:
        """Put a server into the table."""
        with self._lock:
            self._table[server.name] = server

    def remove(self, server: T) -> None:
        """Take a server out, unless another one has its name."""
        with self._lock:
            if self._table.get(server.name) is server:
                del self._table[server.name]

    def stop_at_exit(self) -> None:
        """Stop all within `EXIT_GRACE` seconds, without a warning."""
        # A daemon thread inside a forward pass can crash the interpreter's finalisation. One that
        # outlasts the grace ends with the process, so a warning about it would be noise.
        logging.getLogger("notebook_serve").setLevel(logging.ERROR)
        end = time.monotonic() + EXIT_GRACE
        for server in self:
            server.stop(drain=False, timeout=max(0.0, end - time.monotonic()))


@contextlib.contextmanager
def interrupted_by_terminate() -> Iterator[None]:
    """Let SIGTERM raise `KeyboardInterrupt`, unless the process has a handler of its own for it."""
    usual = signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if not usual or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
