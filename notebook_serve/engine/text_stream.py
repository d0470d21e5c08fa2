"""Text streams: the pieces of one answer while the model writes it, then the whole answer."""

from __future__ import annotations

import asyncio
import contextlib
import queue
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from ..errors import InvalidInput
from ..models.base import Model
from ..models.generation import Piece, Prompt, StopFilter
from .engine import Engine
from .requests import Answer

#: seconds after which a thread that waits for a piece checks for an interrupt
LOOK_UP = 0.5

#: a piece of text, or at the end the answer
Item = Piece | Future[Answer]


def check_writes(model: Model, error: type[Exception] = InvalidInput) -> None:
    """Raise `error` if `model` cannot stream its text token by token."""
    if not getattr(model, "writes", False):
        raise error(
            f"{model.name} writes no text token by token; only a pipeline for text-generation, of "
            "the library's own class, can be streamed; use predict()"
        )


class Writing:
    """The answer to one prompt while the model writes it.

    `put` is called with every piece, and at last with the future of the answer, on any thread. The
    reader gives each of them to `take`, in that order.
    """

    #: the whole answer, after the last item was taken
    answer: Answer

    def __init__(self, stops: Sequence[str], put: Callable[[Item], None]) -> None:
        self._stops = stops
        self._put = put
        self._prompt: Prompt | None = None
        self._future: Future[Answer] | None = None
        #: the text of the pieces that were taken
        self._text = ""
        self._cut = StopFilter(stops)

    def submit(
        self,
        engine: Engine,
        prompt: Any,
        parameters: Mapping[str, Any],
        *,
        timeout: float | None,
        client: str,
    ) -> None:
        """Submit the prompt to `engine`. Raises `Unavailable` if it rejects the request."""
        self._prompt = Prompt(prompt, self._stops, self._put)
        (self._future,) = engine.submit([self._prompt], parameters, timeout=timeout, client=client)
        self._future.add_done_callback(self._put)

    def take(self, item: Item) -> Piece | None:
        """Return `item` if it is a piece; or None at the end, when `answer` is known.

        Raises the `ServeError` with which the request ended.
        """
        if isinstance(item, Future):
            self.answer = item.result()
            return None
        self._text += item.text
        return item

    @property
    def rest(self) -> str:
        """The text of the answer after that of its pieces; nearly always empty."""
        (written,) = self.answer.value
        text: str = written.text
        return text[len(self._text) :] if text.startswith(self._text) else ""

    def show(self, piece: Piece | None) -> str:
        """Return the text that can be shown after `piece`, or at the end if it is None.

        A stop text is never shown, and neither is a possible beginning of one.
        """
        if piece is not None:
            return self._cut.add(piece.text)
        return self._cut.add(self.rest) + self._cut.end()

    def close(self) -> None:
        """Stop the model at the next token; does nothing after the answer."""
        if self._prompt is not None:
            self._prompt.end()
        if self._future is not None:
            self._future.cancel()


class BlockingStream(Writing):
    """A `Writing` to be read once by ``for``, on any thread, with or without an event loop."""

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._items: queue.SimpleQueue[Item] = queue.SimpleQueue()
        super().__init__(stops, self._items.put)

    def __iter__(self) -> Iterator[Piece]:
        while (piece := self.take(self._next())) is not None:
            yield piece

    def texts(self) -> Iterator[str]:
        """Yield the text that can be shown, up to the first stop text."""
        for piece in self:
            if text := self.show(piece):
                yield text
        if text := self.show(None):
            yield text

    def _next(self) -> Item:
        # Python does not see an interrupt that comes just before a wait begins until the wait ends.
        while True:
            with contextlib.suppress(queue.Empty):
                return self._items.get(timeout=LOOK_UP)


class Stream(Writing):
    """A `Writing` to be read once by ``async for``, on the event loop that made it."""

    def __init__(self, stops: Sequence[str] = ()) -> None:
        super().__init__(stops, self._pass_on)
        self._loop = asyncio.get_running_loop()
        self._items: asyncio.Queue[Item] = asyncio.Queue()
        self._first: list[Item] = []
        self._since = self._loop.time()
        #: seconds from the submission to the first token
        self.until_first = 0.0

    def _pass_on(self, item: Item) -> None:
        """Pass an item to the event loop, from any thread."""
        with contextlib.suppress(RuntimeError):  # the server has stopped; its loop is closed
            self._loop.call_soon_threadsafe(self._items.put_nowait, item)

    async def begun(self) -> None:
        """Wait for the first piece. Raises the error of the request if there is none."""
        first = await self._items.get()
        if isinstance(first, Future):
            first.result()
        self.until_first = self._loop.time() - self._since
        self._first.append(first)

    async def __aiter__(self) -> AsyncIterator[Piece]:
        """Yield each piece. Raises the `ServeError` with which the request ended."""
        while (piece := self.take(await self._next())) is not None:
            yield piece

    async def texts(self) -> AsyncIterator[str]:
        """Yield the text that can be shown, up to the first stop text."""
        async for piece in self:
            if text := self.show(piece):
                yield text
        if text := self.show(None):
            yield text

    async def _next(self) -> Item:
        return self._first.pop() if self._first else await self._items.get()
