"""A mailbox: answers from other threads, brought to an event loop many at a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


class FutureBridge:
    """Makes futures of threads awaitable on one event loop.

    `asyncio.wrap_future` wakes the loop for each; a batch is answered all at once, so here all
    that has come is taken out when the loop wakes. Made and used on the loop's own thread.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._letters: deque[tuple[asyncio.Future[Any], Future[Any]]] = deque()
        #: whether the loop has been told and has not looked yet
        self._told = False

    def expect(self, theirs: Future[T]) -> asyncio.Future[T]:
        """A future of the loop that gets what `theirs` gets; to cancel it cancels both."""
        ours: asyncio.Future[T] = self.loop.create_future()
        theirs.add_done_callback(partial(self._put, ours))
        ours.add_done_callback(partial(_cancel, theirs))
        return ours

    def _put(self, ours: asyncio.Future[T], theirs: Future[T]) -> None:
        """On any thread: `theirs` is done."""
        self._letters.append((ours, theirs))
        # After the append: whoever finds that the loop was told knows that it will see this too.
        if not self._told:
            self._told = True
            with contextlib.suppress(RuntimeError):  # the loop is closed; nobody waits
                self.loop.call_soon_threadsafe(self._empty)

    def _empty(self) -> None:
        self._told = False
        while self._letters:
            ours, theirs = self._letters.popleft()
            if ours.done():
                continue
            if theirs.cancelled():
                ours.cancel()
            elif (error := theirs.exception()) is not None:
                ours.set_exception(error)
            else:
                ours.set_result(theirs.result())


def _cancel(theirs: Future[T], ours: asyncio.Future[T]) -> None:
    if ours.cancelled():
        theirs.cancel()
