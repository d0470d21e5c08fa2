"""The one way in which HTTP handlers ask a model, whatever shapes their clients speak."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ..engine.engine import Engine
from ..engine.registry import FIRST, EngineRegistry
from ..engine.requests import Answer
from ..engine.text_stream import Stream, check_writes, submit
from ..errors import ServeError, UnsupportedMediaType
from ..models.base import Model
from ..models.generation import Piece
from .request import body_of, client_of, forms, from_json, from_text, is_file, timeout_of
from .telemetry.request_context import MODEL
from .transport.disconnects import departure_of
from .transport.future_bridge import FutureBridge

H = TypeVar("H")
#: in a request's scope, the engine that it asks
ENGINE = "notebook_serve.engine"


class Calls:
    """Makes the calls of an application to its `engines`; bodies have at most `limit` bytes."""

    def __init__(self, engines: EngineRegistry, limit: int) -> None:
        self._engines = engines
        self.limit = limit
        self._letters: FutureBridge | None = None

    @property
    def names(self) -> list[str]:
        """The names of the models that can be asked."""
        return list(self._engines)

    def engine(self, request: Request, name: str) -> Engine:
        """The engine of the model that a request asks; raises `NoSuchModel`."""
        engine = self._engines[name]
        request.scope[MODEL] = engine.name  # for those who log or trace
        request.scope[ENGINE] = engine
        return engine

    def begin(self, request: Request, name: str = FIRST) -> Call:
        """A call to the model `name`.

        Raises what refuses it, before its body is read, let alone prepared.
        """
        return Call(request, self.engine(request, name), self.limit, self._mailbox())

    def _mailbox(self) -> FutureBridge:
        """The mailbox of the loop that runs."""
        loop = asyncio.get_running_loop()
        # Started anew, a server has another loop.
        if self._letters is None or self._letters.loop is not loop:
            self._letters = FutureBridge(loop)
        return self._letters


class Call:
    """One HTTP request to one model: its body, its places in the queue and its answers."""

    def __init__(self, request: Request, engine: Engine, limit: int, letters: FutureBridge) -> None:
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
        stream = Stream(stops)
        stream.submit(self.engine, prompt, parameters, timeout=self._timeout, client=self._client)
        try:
            await unless_gone(self.request, asyncio.ensure_future(stream.begun()))
        except BaseException:
            stream.close()
            raise
        return stream

    async def read(self, stream: Stream) -> list[Piece]:
        """All pieces of `stream`; raises `ClientDisconnect` if the client goes before."""

        async def read() -> list[Piece]:
            return [piece async for piece in stream]

        try:
            pieces: list[Piece] = await unless_gone(self.request, asyncio.ensure_future(read()))
            return pieces
        finally:
            stream.close()

    def check_writes(self) -> None:
        """Raise `InvalidInput` if the model answers no `Prompt`."""
        check_writes(self.model)

    def _submit(self, inputs: Sequence[Any], parameters: Mapping[str, Any]) -> list[Future[Answer]]:
        return submit(self.engine, inputs, parameters, timeout=self._timeout, client=self._client)


def counting_answers(
    handler: Callable[[H, Request], Awaitable[Response]],
) -> Callable[[H, Request], Awaitable[Response]]:
    """Wrap a handler that asks a model: what it returns can be sent, so its engine counts it."""

    @functools.wraps(handler)
    async def asked(self: H, request: Request) -> Response:
        response = await handler(self, request)
        request.scope[ENGINE].answer_sent()
        return response

    return asked


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
