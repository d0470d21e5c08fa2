"""A bridge that brings results from other threads to an event loop, many at a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


class FutureBridge:
    """A bridge that makes `concurrent.futures.Future` objects awaitable on one event loop.

    `asyncio.wrap_future` wakes the loop once for each future. The bridge wakes it once for all
    results that have arrived, because the requests of a batch are answered together. Create and use
    it on the loop's own thread.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._done: deque[tuple[asyncio.Future[Any], Future[Any]]] = deque()
        #: True while a call of `_deliver` is scheduled
        self._scheduled = False

    def wrap(self, source: Future[T]) -> asyncio.Future[T]:
        """Return a future of the loop that gets the result of `source`.

        Cancelling `source` cancels it, but not the reverse: the caller cancels both.
        """
        target: asyncio.Future[T] = self.loop.create_future()
        source.add_done_callback(partial(self._put, target))
        return target

    def _put(self, target: asyncio.Future[T], source: Future[T]) -> None:
        """Note, on any thread, that `source` is done."""
        self._done.append((target, source))
        # After the append: if `_deliver` is scheduled, it will see this future too.
        if not self._scheduled:
            self._scheduled = True
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self.loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._scheduled = False
        while self._done:
            target, source = self._done.popleft()
            if target.done():
                continue
            if source.cancelled():
                target.cancel()
            elif (error := source.exception()) is not None:
                target.set_exception(error)
            else:
                target.set_result(source.result())
