"""A call of a model by an HTTP request: the one way for all routes, whatever form they speak."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from ..engine.engine import Engine
from ..engine.registry import FIRST, EngineRegistry
from ..engine.requests import Answer
from ..engine.text_stream import Stream, check_writes
from ..errors import ServeError
from ..models.generation import Piece
from .request import parse_timeout, read_body, read_headers
from .telemetry.request_context import MODEL
from .transport.disconnects import wait_while_connected
from .transport.future_bridge import FutureBridge

H = TypeVar("H")
#: key of a request's scope: the engine of its model
ENGINE = "notebook_serve.engine"


class CallFactory:
    """A factory of the calls of `engines`; a body has at most `limit` bytes."""

    def __init__(self, engines: EngineRegistry, limit: int) -> None:
        self._engines = engines
        self.limit = limit
        self._bridge: FutureBridge | None = None

    @property
    def names(self) -> list[str]:
        """Names of the models."""
        return list(self._engines)

    def engine(self, request: Request, name: str) -> Engine:
        """Return the engine of the model `name`, and note it for logs and traces.

        Raises `NoSuchModel`.
        """
        engine = self._engines[name]
        request.scope[MODEL] = engine.name
        request.scope[ENGINE] = engine
        return engine

    def begin(self, request: Request, name: str = FIRST) -> ModelCall:
        """Begin a call of the model `name`.

        Raises the error that rejects the call, before its body is read.
        """
        engine, loop = self.engine(request, name), asyncio.get_running_loop()
        # After a restart the server has another loop.
        if self._bridge is None or self._bridge.loop is not loop:
            self._bridge = FutureBridge(loop)
        return ModelCall(request, engine, self.limit, self._bridge)


class ModelCall:
    """One HTTP request to one model: its body, its inputs in the queue, and its answers."""

    def __init__(self, request: Request, engine: Engine, limit: int, bridge: FutureBridge) -> None:
        self.request, self.engine = request, engine
        self.headers = read_headers(request.scope)
        self._limit, self._bridge = limit, bridge
        address = request.scope.get("client")
        self._client = f"{address[0]}:{address[1]}" if address else ""
        timed = "x-request-timeout" in self.headers
        self._timeout = parse_timeout(self.headers) if timed else None
        engine.check_open(self._client, self._timeout)
        model = engine.runner.model
        assert model is not None  # the engine is open
        self.model = model

    async def body(self) -> bytes:
        """Read the request's body."""
        return await read_body(self.request, self._limit, self.engine.timeout)

    async def answer(self, inputs: Any, parameters: Mapping[str, Any]) -> tuple[list[Answer], bool]:
        """Return the answers to one input or to a list of them, and True if it was a list."""
        parts = self.model.split(inputs, parameters)
        entries = [inputs] if parts is None else parts
        futures = self.engine.submit(
            entries, parameters, timeout=self._timeout, client=self._client
        )
        return await self._wait(futures, parts is not None), parts is not None

    async def answer_each(
        self, inputs: Sequence[Any], parameters: Mapping[str, Any], *, many: bool = True
    ) -> list[Answer]:
        """Return the answers to `inputs`, each of which is an entry of the queue.

        Raises the first error, with the index of its input if there may be `many`. Raises
        `ClientDisconnect` if the client disconnects.
        """
        futures = self.engine.submit(inputs, parameters, timeout=self._timeout, client=self._client)
        return await self._wait(futures, many)

    async def _wait(self, futures: Sequence[Future[Answer]], many: bool) -> list[Answer]:
        waiting = list(map(self._bridge.wrap, futures))
        everything: asyncio.Future[Any] = asyncio.gather(*waiting) if many else waiting[0]
        try:
            answers = await wait_while_connected(self.request, everything)
            return list(answers) if many else [answers]
        except ServeError as error:
            if many:
                failed = (future.done() and future.exception() is error for future in waiting)
                error.index = list(failed).index(True)
            raise
        finally:
            for future in futures:
                future.cancel()  # after an error or a disconnect; else they are done

    async def listen(
        self, prompt: Any, stops: Sequence[str], parameters: Mapping[str, Any]
    ) -> Stream:
        """Return the stream of the answer to `prompt`, once its first token is there.

        Raises errors that occur before; the stream raises later ones.
        """
        self.check_writes()
        stream = Stream(stops)
        stream.submit(self.engine, prompt, parameters, timeout=self._timeout, client=self._client)
        try:
            await wait_while_connected(self.request, asyncio.ensure_future(stream.begun()))
        except BaseException:
            stream.close()
            raise
        return stream

    async def read(self, stream: Stream) -> list[Piece]:
        """Return all pieces of `stream`; raise `ClientDisconnect` if the client disconnects."""

        async def read() -> list[Piece]:
            return [piece async for piece in stream]

        reading = asyncio.ensure_future(read())
        try:
            pieces: list[Piece] = await wait_while_connected(self.request, reading)
            return pieces
        finally:
            stream.close()

    def check_writes(self) -> None:
        """Raise `InvalidInput` if the model does not generate text token by token."""
        check_writes(self.model)


def count_answers(
    handler: Callable[[H, Request], Awaitable[Response]],
) -> Callable[[H, Request], Awaitable[Response]]:
    """Wrap a handler that calls a model: count each response it returns as a sent answer."""

    @functools.wraps(handler)
    async def counting_handler(self: H, request: Request) -> Response:
        response = await handler(self, request)
        request.scope[ENGINE].health.answer_sent()
        return response

    return counting_handler
