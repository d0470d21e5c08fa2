"""HTTP in, the engine's queue, HTTP out. Errors become JSON; nothing heavy happens here.

The event loop reads, checks and answers. Preparing and running happen on the engine's threads.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from ..engine.registry import AT_REST, FIRST, EngineRegistry, summary
from ..errors import InvalidInput, ModelFailed, NotReady, ServeError, WorkerDead
from ..extras import require
from .auth import Access
from .dashboard_page import Page, find_engine
from .headers import header
from .huggingface_api import InferenceApi
from .model_call import ENGINE, Calls, counting_answers, inputs_of
from .openai_api import OpenAIApi
from .openapi import document
from .request import content_type_of
from .responses import (
    answer_response,
    error_content,
    error_response,
    headers_of,
    json_response,
    request_id,
    without_places,
)
from .telemetry.access_log import AccessLog
from .telemetry.tracing_middleware import Traced

if TYPE_CHECKING:
    from .telemetry.prometheus import Exposition

logger = logging.getLogger("notebook_serve")


@dataclass(frozen=True)
class HttpOptions:
    """What the HTTP side needs to know."""

    #: most bytes of a body
    max_body_size: int = 10_000_000
    #: what a client must show, or None to let everybody in
    token: str | None = None
    #: whether clients read what exceptions say
    expose_errors: bool = True
    #: names that the server goes by, besides those of loopback
    hosts: tuple[str, ...] = ()
    #: pages that may post to it, besides its own
    origins: tuple[str, ...] = ()


def create_app(engines: EngineRegistry, options: HttpOptions) -> Starlette:
    """The ASGI application in front of `engines`.

    Under a server that runs lifespans (``uvicorn server:app``) it starts and stops the engines;
    where they run already, they are left running.
    """
    handlers = Handlers(engines, options)
    v1 = OpenAIApi(handlers.calls, handlers.told)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        ours = engines.first.state in AT_REST
        if ours:
            await asyncio.to_thread(engines.start)
        yield
        if ours:
            await asyncio.to_thread(engines.stop)

    app = Starlette(
        routes=[
            Route("/", handlers.root, methods=["GET", "POST"]),
            Route("/health", handlers.health),
            Route("/ready", handlers.ready),
            Route("/stats", handlers.stats),
            Route("/metrics", handlers.metrics),
            Route("/openapi.json", handlers.openapi),
            Route("/models", handlers.models),
            Route("/models/{name}", handlers.model, methods=["GET", "POST"]),
            *handlers.page.routes,
            *handlers.hub.routes,
            *v1.routes,
        ],
        exception_handlers={
            ServeError: handlers.failed,
            HTTPException: handlers.refused,
            ClientDisconnect: handlers.left,
            Exception: handlers.broken,
        },
        lifespan=lifespan,
    )
    app.add_middleware(Traced, engines=engines)
    app.add_middleware(Access, token=options.token, hosts=options.hosts, origins=options.origins)
    if options.origins:
        # Outermost: a browser asks before it sends, and without a token.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=options.origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["Server-Timing", "X-Batch-Size", "X-Request-ID", "Retry-After"],
        )
    app.add_middleware(AccessLog)
    return app


class Handlers:
    """The endpoints."""

    def __init__(self, engines: EngineRegistry, options: HttpOptions) -> None:
        self._engines = engines
        self._options = options
        self.calls = Calls(engines, options.max_body_size)
        self.hub = InferenceApi(self.calls, self.told)
        self._exposition: Exposition | None = None
        self.page = Page(engines, self._said, trusted=options.token is not None)

    async def root(self, request: Request) -> Response:
        """``POST``: ask the first model. ``GET``: the dashboard."""
        if request.method == "POST":
            return await self._ask(request)
        return await self.page.page(request)

    async def models(self, request: Request) -> Response:
        """What models there are."""
        return json_response({"models": self._engines.overview()})

    async def model(self, request: Request) -> Response:
        """``POST``: ask the model of this name. ``GET``: what it is."""
        if request.method == "POST":
            return await self.hub.ask(request)
        return json_response(summary(self._engines[request.path_params["name"]]))

    async def health(self, request: Request) -> Response:
        """Whether the process answers and its workers live."""
        for engine in self._engines.values():
            if engine.state == "dead":
                raise WorkerDead(str(engine.cause), 1)
        return json_response({"state": self._engines.state})

    async def ready(self, request: Request) -> Response:
        """Answer 200 if every model is loaded and takes requests, else 503.

        A failing model takes requests, so the answer is 200 with its error. With 503 a load
        balancer would send no request that could end the state, and three bad inputs of one client
        would take the server away from all. An open circuit breaker is 503.
        """
        failing = self._failing()
        for engine in self._engines.values():
            refusal = engine.closed()
            if refusal is not None:
                return error_response(request, refusal, self.told(request, refusal), failing)
        return json_response({"state": self._engines.state, **failing})

    def _failing(self) -> dict[str, Any]:
        """The error of each model that is failing, by its name."""
        errors = [engine.failing for engine in self._engines.values()]
        told = {error.model: asdict(error.told(self._said)) for error in errors if error}
        return {"failing": told} if told else {}

    async def stats(self, request: Request) -> Response:
        """The statistics as JSON: of the whole, or of one model."""
        engine = find_engine(request, self._engines)
        # Sorting thousands of records is not for the event loop.
        stats = await asyncio.to_thread(self._engines.stats if engine is None else engine.stats)
        return json_response(stats.told(self._said).to_dict())

    async def metrics(self, request: Request) -> Response:
        """The statistics of all models for Prometheus."""
        if self._exposition is None:
            require("prometheus_client", "metrics")
            from .telemetry.prometheus import Exposition

            self._exposition = Exposition(self._engines)
        accept = header(request.scope, b"accept")
        text, kind = await asyncio.to_thread(self._exposition.text, accept)
        return Response(text, headers={"Content-Type": kind})

    async def openapi(self, request: Request) -> Response:
        """What there is at which path, as an OpenAPI document."""
        names = list(dict.fromkeys([*self._engines, FIRST]))
        return json_response(document(names, token=self._options.token is not None))

    def _said(self, error: str) -> str:
        """What a client may read of what is wrong with the server."""
        if error and not self._options.expose_errors:
            return "the server's log says what is wrong"
        return without_places(error)

    # -- asking -------------------------------------------------------------------------

    @counting_answers
    async def _ask(self, request: Request) -> Response:
        call = self.calls.begin(request)
        body = await call.body()
        inputs, parameters = inputs_of(call.model, body, *content_type_of(request))
        parts = call.model.split(inputs, parameters)
        wanted = [inputs] if parts is None else parts
        answers = await call.ask(wanted, parameters, many=parts is not None)
        values = [answer.value for answer in answers]
        records = [answer.record for answer in answers]
        value = values[0] if parts is None else values
        return await answer_response(request, value, headers_of(request, records))

    # -- errors -------------------------------------------------------------------------

    async def failed(self, request: Request, error: Exception) -> Response:
        """An error of ours, as JSON."""
        assert isinstance(error, ServeError)
        # A failure in the engine has a record: this one came later, when the answer was encoded.
        if isinstance(error, ModelFailed) and error.record is None and ENGINE in request.scope:
            request.scope[ENGINE].answer_failed(error, request_id(request))
        return error_response(request, error, self.told(request, error))

    def told(self, request: Request, error: ServeError) -> str:
        """What a client reads of an error; the log has the rest."""
        message = error.message
        known_as = request_id(request)
        if isinstance(error, ModelFailed):
            # Where the client reads it too, the log need not repeat it in everybody's cell.
            level = logging.INFO if self._options.expose_errors else logging.ERROR
            logger.log(level, "request %s: %s", known_as, message, exc_info=error.__cause__)
            if not self._options.expose_errors:
                message = f"the model failed on this input; the log says why under {known_as}"
        elif self._options.expose_errors:
            pass
        elif isinstance(error, InvalidInput) and error.quotes_its_cause:
            logger.warning("request %s: %s", known_as, message)
            message = f"the task rejects the input; the log says why under {known_as}"
        elif isinstance(error, (WorkerDead, NotReady)):
            message = "the server cannot answer now"
        return without_places(message)

    async def refused(self, request: Request, error: Exception) -> Response:
        """Starlette's own refusals (no such path, wrong method), in the same form."""
        assert isinstance(error, HTTPException)
        messages = {
            404: f"there is nothing at {request.url.path}; POST / asks the model",
            405: f"{request.method} is not possible at {request.url.path}",
        }
        kind = {404: "NotFound", 405: "MethodNotAllowed"}.get(error.status_code, "HTTPError")
        content = error_content(
            request, error.status_code, kind, messages.get(error.status_code, error.detail)
        )
        return json_response(
            content, error.status_code, {**headers_of(request), **(error.headers or {})}
        )

    async def left(self, request: Request, error: Exception) -> Response:
        """Nobody is there to read this."""
        return Response(status_code=499)

    async def broken(self, request: Request, error: Exception) -> Response:
        """A fault of this package: say so, and where to find it."""
        known_as = request_id(request)
        logger.error("request %s failed inside notebook_serve", known_as, exc_info=error)
        message = f"the server failed on this request; its log says why under {known_as}"
        content = error_content(request, 500, "InternalError", message)
        return json_response(content, 500, headers_of(request))
