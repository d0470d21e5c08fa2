"""The ASGI application: routes, middleware, and errors as JSON.

The event loop only reads, checks and answers requests. The engine's threads do the heavy work.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from ..engine.registry import AT_REST, FIRST, EngineRegistry, summarize
from ..errors import InvalidInput, ModelFailed, NotReady, ServeError, WorkerDead
from ..extras import require
from .auth import AuthMiddleware
from .dashboard_page import Page, find_engine
from .huggingface_api import InferenceApi
from .model_call import ENGINE, CallFactory
from .openai_api import OpenAIApi
from .openapi import openapi_document
from .options import HttpOptions
from .request import parse_inputs, read_headers, reject_unknown
from .responses import (
    answer_headers,
    answer_response,
    error_content,
    error_response,
    hide_paths,
    json_response,
    request_id,
)
from .telemetry.telemetry_middleware import AccessLogMiddleware, TracingMiddleware

if TYPE_CHECKING:
    from .telemetry.prometheus import Exposition

logger = logging.getLogger("notebook_serve")


def create_app(engines: EngineRegistry, options: HttpOptions) -> Starlette:
    """Return the ASGI application in front of `engines`.

    Under a server that runs lifespans (``uvicorn server:app``), the application starts and stops
    the engines. If they run already, it leaves them running.
    """
    handlers = Handlers(engines, options)
    v1 = OpenAIApi(handlers.calls, handlers.public_message)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        must_start = engines.first.state in AT_REST
        if must_start:
            await asyncio.to_thread(engines.start)
        yield
        if must_start:
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
            ServeError: handlers.handle_serve_error,
            HTTPException: handlers.handle_http_exception,
            ClientDisconnect: handlers.handle_disconnect,
            Exception: handlers.handle_unexpected_error,
        },
        lifespan=lifespan,
    )
    app.add_middleware(TracingMiddleware, engines=engines)
    origins = options.allow_origins
    app.add_middleware(AuthMiddleware, token=options.token, hosts=options.hosts, origins=origins)
    if origins:
        # Outside of authorization, because a browser's preflight request has no token.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["Server-Timing", "X-Batch-Size", "X-Request-ID", "Retry-After"],
        )
    app.add_middleware(AccessLogMiddleware)
    return app


class Handlers:
    """The handlers of the routes and of errors."""

    def __init__(self, engines: EngineRegistry, options: HttpOptions) -> None:
        self._engines = engines
        self._options = options
        self.calls = CallFactory(engines, options.max_body_size)
        self.hub = InferenceApi(self.calls, self.public_message)
        self._exposition: Exposition | None = None
        self.page = Page(engines, self._public_error, trusted=options.token is not None)

    async def root(self, request: Request) -> Response:
        """Call the first model (``POST``), or show the dashboard (``GET``)."""
        if request.method != "POST":
            return await self.page.page(request)
        call = self.calls.begin(request)
        body = await call.body()
        inputs, parameters, others = parse_inputs(call.model, body, call.headers)
        if others:
            reject_unknown(others)
        answers, many = await call.answer(inputs, parameters)
        value = [answer.value for answer in answers] if many else answers[0].value
        headers = answer_headers(request, [answer.record for answer in answers])
        response = await answer_response(request, value, headers)
        call.engine.health.answer_sent()
        return response

    async def models(self, request: Request) -> Response:
        """List the models."""
        return json_response({"models": self._engines.overview()})

    async def model(self, request: Request) -> Response:
        """Call the model of this name (``POST``), or describe it (``GET``)."""
        if request.method == "POST":
            return await self.hub.infer(request)
        return json_response(summarize(self._engines[request.path_params["name"]]))

    async def health(self, request: Request) -> Response:
        """Answer 200, or 503 if a worker has died."""
        for engine in self._engines.values():
            if engine.state == "dead":
                raise WorkerDead(engine.error, 1)
        return json_response({"state": self._engines.state})

    async def ready(self, request: Request) -> Response:
        """Answer 200 if every model is loaded and accepts requests, else 503.

        A failing model accepts requests, so the answer is 200 with its error. With 503 a load
        balancer would send no request that could end this state. Then three bad inputs of one
        client would disable the server for all clients. An open circuit breaker is 503.
        """
        failing = self._failing()
        for engine in self._engines.values():
            error = engine.admission.closed()
            if error is not None:
                message = self.public_message(request, error)
                return error_response(request, error, message, failing)
        return json_response({"state": self._engines.state, **failing})

    def _failing(self) -> dict[str, Any]:
        """Return the error of each failing model, by the model's name."""
        errors = [engine.failing for engine in self._engines.values()]
        public = {
            error.model: asdict(error.redact(self._public_error)) for error in errors if error
        }
        return {"failing": public} if public else {}

    async def stats(self, request: Request) -> Response:
        """Return statistics as JSON, of one model or of all together."""
        engine = find_engine(request, self._engines)
        # Sorting thousands of records would block the event loop.
        stats = await asyncio.to_thread(self._engines.stats if engine is None else engine.stats)
        return json_response(stats.redact(self._public_error).to_dict())

    async def metrics(self, request: Request) -> Response:
        """Return the metrics of all models for Prometheus."""
        if self._exposition is None:
            require("prometheus_client", "metrics")
            from .telemetry.prometheus import Exposition

            self._exposition = Exposition(self._engines)
        accept = read_headers(request.scope).get("accept", "")
        text, kind = await asyncio.to_thread(self._exposition.text, accept)
        return Response(text, headers={"Content-Type": kind})

    async def openapi(self, request: Request) -> Response:
        """Return the OpenAPI document."""
        names = list(dict.fromkeys([*self._engines, FIRST]))
        return json_response(openapi_document(names, token=self._options.token is not None))

    def _public_error(self, error: str) -> str:
        """Return what a client may read about an error of the server."""
        if error and not self._options.expose_errors:
            return "see the server's log for details"
        return hide_paths(error)

    # -- errors -------------------------------------------------------------------------

    async def handle_serve_error(self, request: Request, error: Exception) -> Response:
        """Answer with an error of this package, as JSON."""
        assert isinstance(error, ServeError)
        # Failures in the engine have a record. This one came later, when the answer was encoded.
        if isinstance(error, ModelFailed) and error.record is None and ENGINE in request.scope:
            request.scope[ENGINE].health.answer_failed(error, request_id(request))
        return error_response(request, error, self.public_message(request, error))

    def public_message(self, request: Request, error: ServeError) -> str:
        """Return the message of an error for the client, and log the details of a failure."""
        message = error.message
        identifier = request_id(request)
        if isinstance(error, ModelFailed):
            # If the client reads the message, the log need not show it in a cell as well.
            level = logging.INFO if self._options.expose_errors else logging.ERROR
            logger.log(level, "request %s: %s", identifier, message, exc_info=error.__cause__)
            if not self._options.expose_errors:
                message = f"the model failed on this input; see request {identifier} in the log"
        elif self._options.expose_errors:
            pass
        elif isinstance(error, InvalidInput) and error.quotes_its_cause:
            logger.warning("request %s: %s", identifier, message)
            message = f"the task rejects this input; see request {identifier} in the log"
        elif isinstance(error, (WorkerDead, NotReady)):
            message = "the server cannot answer now"
        return hide_paths(message)

    async def handle_http_exception(self, request: Request, error: Exception) -> Response:
        """Answer with an error of Starlette (unknown path, wrong method), in the same form."""
        assert isinstance(error, HTTPException)
        messages = {
            404: f"there is nothing at {request.url.path}; POST / calls the model",
            405: f"{request.method} is not allowed at {request.url.path}",
        }
        kind = {404: "NotFound", 405: "MethodNotAllowed"}.get(error.status_code, "HTTPError")
        content = error_content(
            request, error.status_code, kind, messages.get(error.status_code, error.detail)
        )
        headers = {**answer_headers(request), **(error.headers or {})}
        return json_response(content, error.status_code, headers)

    async def handle_disconnect(self, request: Request, error: Exception) -> Response:
        """Answer 499 for the log; the client has disconnected."""
        return Response(status_code=499)

    async def handle_unexpected_error(self, request: Request, error: Exception) -> Response:
        """Answer 500 for a fault of this package, and log it with its traceback."""
        identifier = request_id(request)
        logger.error("request %s failed inside notebook_serve", identifier, exc_info=error)
        message = f"the server failed on this request; see request {identifier} in the log"
        content = error_content(request, 500, "InternalError", message)
        return json_response(content, 500, answer_headers(request))
