"""The one way in which HTTP handlers ask a model, whatever shapes their clients speak."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from starlette.requests import ClientDisconnect, Request

from .bodies import body_of, client_of, forms, from_json, from_text, is_file, timeout_of
from .departure import departure_of
from .engine import Answer, Engine
from .errors import InvalidInput, ServeError, UnsupportedMediaType
from .generation import Piece, Prompt
from .mailbox import Mailbox
from .models import Model

#: what the first model is called
FIRST = "default"


class Engines(Protocol):
    """The engines of a server by the names of their models."""

    def __getitem__(self, name: str) -> Engine:
        """The engine of the model `name`; raises `NoSuchModel`."""

    def __iter__(self) -> Iterator[str]:
        """The names."""


class Calls:
    """Makes the calls of an application to its `engines`; bodies have at most `limit` bytes."""

    def __init__(self, engines: Engines, limit: int) -> None:
        self._engines = engines
        self.limit = limit
        self._letters: Mailbox | None = None

    @property
    def names(self) -> list[str]:
        """The names of the models that can be asked."""
        return list(self._engines)

    def engine(self, request: Request, name: str) -> Engine:
        """The engine of the model that a request asks; raises `NoSuchModel`."""
        return self._engines[name]

    def begin(self, request: Request, name: str = FIRST) -> Call:
        """A call to the model `name`.

        Raises what refuses it, before its body is read, let alone prepared.
        """
        return Call(request, self.engine(request, name), self.limit, self._mailbox())

    def _mailbox(self) -> Mailbox:
        """The mailbox of the loop that runs."""
        loop = asyncio.get_running_loop()
        # Started anew, a server has another loop.
        if self._letters is None or self._letters.loop is not loop:
            self._letters = Mailbox(loop)
        return self._letters


class Call:
    """One HTTP request to one model: its body, its places in the queue and its answers."""

    def __init__(self, request: Request, engine: Engine, limit: int, letters: Mailbox) -> None:
        self.request, self.engine = request, engine
        self._limit, self._letters = limit, letters
        self._timeout, self._client = timeout_of(request), client_of(request)
        engine.check_open(self._client, self._timeout)

    @property
    def model(self) -> Model:
        """What answers."""
        model = self.engine.model
        assert model is not None  # it was open
        return model

    async def body(self) -> bytes:
        """The request's body."""
        return await body_of(self.request, self._limit, self.engine.timeout)

    async def ask(
        self, inputs: Sequence[Any], parameters: Mapping[str, Any], *, many: bool = True
    ) -> list[Answer]:
        """The answers to `inputs`, each an entry of the queue.

        Raises the first error, with the position of its input if there may be `many`; or
        `ClientDisconnect` if the client goes.
        """
        waiting = [self._letters.expect(future) for future in self._submit(inputs, parameters)]
        everything: asyncio.Future[Any] = asyncio.gather(*waiting) if many else waiting[0]
        try:
            answers = await unless_gone(self.request, everything)
            return list(answers) if many else [answers]
        except ServeError as error:
            if many:
                failed = (future.done() and future.exception() is error for future in waiting)
                error.index = list(failed).index(True)
            raise
        finally:
            for future in waiting:
                future.cancel()

    async def listen(
        self, prompt: Any, stops: Sequence[str], parameters: Mapping[str, Any]
    ) -> Stream:
        """The answer to `prompt` as it is written; returns once there is some of it.

        What goes wrong before is raised here, and later by the stream.
        """
        self.check_writes()
        stream = Stream()
        (stream.future,) = self._submit([Prompt(prompt, stops, stream.put)], parameters)
        stream.future.add_done_callback(stream.put)
        try:
            await unless_gone(self.request, asyncio.ensure_future(stream.begun()))
        except BaseException:
            stream.close()
            raise
        return stream

    def check_writes(self) -> None:
        """Raise `InvalidInput` where the model answers no `Prompt`."""
        if not getattr(self.model, "writes", False):
            raise InvalidInput(
                f"{self.model.name} does not tell of the tokens that it writes; only a pipeline "
                "for text-generation does, of the library's own class"
            )

    def _submit(self, inputs: Sequence[Any], parameters: Mapping[str, Any]) -> list[Future[Answer]]:
        futures = self.engine.submit(inputs, parameters, timeout=self._timeout, client=self._client)
        for given, future in zip(inputs, futures, strict=True):
            if isinstance(given, Prompt):
                # Whatever ends a request (its client, its time, a stop), nobody wants more of it.
                future.add_done_callback(given.end)
        return futures


class Stream:
    """The pieces of an answer, in the order in which the worker writes them.

    To be read once, by ``async for``. Then `answer` is the whole, with how the request fared.
    """

    answer: Answer
    future: Future[Answer]

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Piece | Future[Answer]] = asyncio.Queue()
        self._first: list[Piece | Future[Answer]] = []
        self._since = self._loop.time()
        #: seconds from the submission to the first token
        self.until_first = 0.0
        #: of the pieces that were read
        self._text = ""

    def put(self, item: Piece | Future[Answer]) -> None:
        """Pass on, from any thread, what was written, or at the end the future."""
        with contextlib.suppress(RuntimeError):  # the server has stopped, and its loop is closed
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)

    async def begun(self) -> None:
        """Wait until something is written; raises what went wrong instead."""
        first = await self._queue.get()
        if isinstance(first, Future):
            first.result()
        self.until_first = self._loop.time() - self._since
        self._first.append(first)

    async def __aiter__(self) -> AsyncIterator[Piece]:
        """Each piece; raises the `ServeError` that the request ended with."""
        while True:
            item = self._first.pop() if self._first else await self._queue.get()
            if isinstance(item, Future):
                self.answer = item.result()
                return
            self._text += item.text
            yield item

    async def all(self, request: Request) -> list[Piece]:
        """All pieces; raises `ClientDisconnect` if the client goes before."""

        async def read() -> list[Piece]:
            return [piece async for piece in self]

        try:
            pieces: list[Piece] = await unless_gone(request, asyncio.ensure_future(read()))
            return pieces
        finally:
            self.close()

    @property
    def rest(self) -> str:
        """What the text of the answer has beyond that of its pieces: mostly nothing."""
        (written,) = self.answer.value
        text: str = written.text
        return text[len(self._text) :] if text.startswith(self._text) else ""

    def close(self) -> None:
        """Nobody reads on: the model need not write on."""
        self.future.cancel()


def inputs_of(model: Model, body: bytes, kind: str, charset: str) -> tuple[Any, dict[str, Any]]:
    """The inputs and the parameters that a body of the media type `kind` means."""
    accepts = model.accepts
    if kind == "application/json" or kind.endswith("+json"):
        return from_json(body)
    # What `curl -d` says of any body, and what some clients say nothing of.
    anything = kind in ("", "application/x-www-form-urlencoded")
    if "text" in accepts and (anything or kind.startswith("text/")):
        if charset in ("", "utf-8", "utf8", "us-ascii"):
            return from_text(body), {}
    elif "bytes" in accepts and anything:
        return body, {}
    if "bytes" in accepts and is_file(kind):
        return body, {}
    raise UnsupportedMediaType(
        f"{model.task} does not take {kind or 'text'}"
        + (f" in {charset}" if charset else "")
        + f"; send {forms(accepts)}"
    )


async def unless_gone(request: Request, wanted: asyncio.Future[Any]) -> Any:
    """What `wanted` gives; `ClientDisconnect`, and an end of `wanted`, if the client goes."""
    departure = departure_of(request)
    departure.watch(wanted)
    try:
        return await wanted
    except asyncio.CancelledError:
        if departure.gone:
            raise ClientDisconnect from None
        raise  # this handler itself was cancelled
    finally:
        departure.unwatch(wanted)
