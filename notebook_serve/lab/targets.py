"""Targets of a load test: the queue of a server in this process, or a URL over HTTP."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import json
import math
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ssl import PROTOCOL_TLS_CLIENT, SSLContext
from typing import TYPE_CHECKING, Any, Protocol

from ..engine.engine import Engine
from ..errors import OptionError, ServeError, Unavailable
from ..records import Outcome

if TYPE_CHECKING:
    import httpx

#: client of a load test's records
CLIENT = "load test"
#: seconds until a connection to a URL times out
CONNECT_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Reply:
    """Outcome of one request; times are those of ``time.monotonic()``."""

    outcome: Outcome
    finished: float
    #: start of its batch; None if it did not run or the answer does not say
    started: float | None = None
    batch_id: int | None = None
    batch_size: int = 0
    length: int = 1
    group: str = ""
    #: kind and message of an error
    error: tuple[str, str] | None = None


class Target(Protocol):
    """Receiver of requests. It puts a request's error into the reply and never raises it."""

    async def open(self, connections: int) -> None:
        """Prepare for that many concurrent requests. Raises `Unavailable` without a server."""

    async def send(self, index: int) -> Reply:
        """Send request number `index`, with the inputs in turn; cancelling the task cancels it."""

    async def close(self) -> None:
        """Release all resources."""


class QueueTarget:
    """Queue of a server in this process, without HTTP."""

    def __init__(
        self,
        engine: Engine,
        inputs: Sequence[Any],
        parameters: Mapping[str, Any],
        timeout: float,
    ) -> None:
        self._engine = engine
        self._inputs = inputs
        self._parameters = parameters
        self._timeout = timeout

    async def open(self, connections: int) -> None:
        """Raise the server's error if it accepts no requests."""
        closed = self._engine.admission.closed()
        if closed is not None:
            raise closed

    async def send(self, index: int) -> Reply:
        """Enqueue one input and wait for its answer."""
        given = self._inputs[index % len(self._inputs)]
        failure = None
        try:
            (future,) = self._engine.submit(
                [given], self._parameters, timeout=self._timeout, client=CLIENT
            )
            record = (await asyncio.wrap_future(future)).record
        except ServeError as error:
            if error.record is None:  # rejected before it was queued
                return Reply("rejected", time.monotonic())
            record = error.record
            if record.outcome in ("invalid", "failed"):
                failure = type(error).__name__, error.message
        return Reply(
            record.outcome,
            record.finished,
            record.started,
            record.batch_id,
            record.batch_size,
            record.length,
            record.group,
            failure,
        )

    async def close(self) -> None:
        """Do nothing: there is no connection."""


class UrlTarget:
    """URL that is called over persistent connections.

    A connection pool of httpx checks all its idle connections for each request, so a request gets
    slower with more of them. Here each connection is a pool by itself, and the one used last is
    reused first.
    """

    def __init__(
        self,
        url: str,
        inputs: Sequence[Any],
        parameters: Mapping[str, Any],
        timeout: float,
        headers: Mapping[str, str],
    ) -> None:
        import httpx

        self._url = _parse_url(url)
        self._requests = [
            _make_request(self._url, given, parameters, timeout, headers) for given in inputs
        ]
        self._free: list[httpx.AsyncHTTPTransport] = []
        self._all: list[httpx.AsyncHTTPTransport] = []
        # Load the certificates once: it is slow, and each connection needs them.
        secure = self._url.scheme == "https"
        self._tls = httpx.create_ssl_context() if secure else SSLContext(PROTOCOL_TLS_CLIENT)
        self._httpx = httpx

    async def open(self, connections: int) -> None:
        """Open that many connections. Raises `Unavailable` if no server answers."""
        if importlib.util.find_spec("sniffio") is None:
            # httpcore tries this import several times a request. A failed import is slow, a third
            # of a request's time; with this entry it fails at once.
            sys.modules["sniffio"] = None  # type: ignore[assignment]
        seconds = self._httpx.Timeout(CONNECT_TIMEOUT).as_dict()
        # Any answer opens the connection, even an error.
        probe = self._httpx.Request(
            "GET", self._url.join("/health"), extensions={"timeout": seconds}
        )
        try:
            await self._exchange(probe)
            probes = (self._exchange(probe) for _ in range(connections))
            for result in await asyncio.gather(*probes, return_exceptions=True):
                if isinstance(result, BaseException):
                    raise result
        except (self._httpx.TransportError, OSError) as error:
            raise Unavailable(
                f"no server answers at {self._url}: {_format_message(error)}"
            ) from error

    async def send(self, index: int) -> Reply:
        """Send one request and read its answer."""
        sent = time.monotonic()
        try:
            response = await self._exchange(self._requests[index % len(self._requests)])
        except self._httpx.TimeoutException as error:
            return Reply("expired", time.monotonic(), error=_describe_error(error))
        except Exception as error:
            return Reply("failed", time.monotonic(), error=_describe_error(error))
        finished = time.monotonic()
        status = response.status_code
        outcome = classify_status(status)
        failure = None
        if outcome not in ("ok", "rejected", "expired"):
            failure = f"status {status}", response.text[:200]
        size, seconds = _parse_batch(response.headers)
        started = None if seconds is None else max(sent, finished - seconds)
        return Reply(outcome, finished, started, batch_size=size, error=failure)

    async def close(self) -> None:
        """Close all connections."""
        if sys.modules.get("sniffio", self) is None:
            del sys.modules["sniffio"]
        for transport in self._all:
            await transport.aclose()

    async def _exchange(self, request: httpx.Request) -> httpx.Response:
        # The transport without `httpx.Client`: redirects, cookies and environment settings are not
        # wanted here, and a client makes a request about a third slower.
        transport = self._free.pop() if self._free else self._connect()
        try:
            response = await transport.handle_async_request(request)
            try:
                await response.aread()
            finally:
                await response.aclose()
            return response
        finally:
            self._free.append(transport)

    def _connect(self) -> httpx.AsyncHTTPTransport:
        limits = self._httpx.Limits(max_connections=1, keepalive_expiry=None)
        transport = self._httpx.AsyncHTTPTransport(verify=self._tls, trust_env=False, limits=limits)
        self._all.append(transport)
        return transport


def classify_status(status: int) -> Outcome:
    """Return the outcome for an HTTP status; a redirect is a failure, as none is followed."""
    if 200 <= status < 300:
        return "ok"
    if status in (429, 503):
        return "rejected"
    if status == 504:
        return "expired"
    return "invalid" if 400 <= status < 500 else "failed"


def _parse_batch(headers: Mapping[str, str]) -> tuple[int, float | None]:
    """Return size and seconds of an answer's batch; 0 and None if the headers lack them."""
    size = headers.get("X-Batch-Size", "")
    timing = re.search(r"\binference;dur=(\d+(?:\.\d+)?)", headers.get("Server-Timing", ""))
    if timing is None or not size.isdecimal() or not int(size):
        return 0, None
    return int(size), float(timing[1]) / 1e3


def _parse_url(url: str) -> httpx.URL:
    import httpx

    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise OptionError(f"target must be a valid URL, got {url!r}: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise OptionError(f"a URL must begin with http:// or https:// and a host, got {url!r}")
    return parsed


def _make_request(
    url: httpx.URL,
    given: Any,
    parameters: Mapping[str, Any],
    timeout: float,
    headers: Mapping[str, str],
) -> httpx.Request:
    """Build a request once, to send it many times."""
    import httpx

    kind, content = _encode_body(given, parameters)
    known = httpx.Headers({"Content-Type": kind, "User-Agent": "notebook-serve"})
    if timeout < math.inf:
        known["X-Request-Timeout"] = repr(float(timeout))
    seconds = httpx.Timeout(None if timeout == math.inf else timeout).as_dict()
    try:
        known.update(headers)
        return httpx.Request(
            "POST", url, headers=known, content=content, extensions={"timeout": seconds}
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise OptionError(f"headers must be a dict of strings: {error}") from error


def _encode_body(given: Any, parameters: Mapping[str, Any]) -> tuple[str, bytes]:
    """Return the content type and the body of an input."""
    if isinstance(given, (bytes, bytearray)):
        if not parameters:
            return "application/octet-stream", bytes(given)
        given = base64.b64encode(given).decode("ascii")
    value = {"inputs": given, "parameters": dict(parameters)} if parameters else {"inputs": given}
    try:
        if isinstance(given, str) and not parameters:
            return "text/plain", given.encode()
        return "application/json", json.dumps(value, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise OptionError(f"an input cannot be sent: {error}") from error


def _describe_error(error: Exception) -> tuple[str, str]:
    return type(error).__name__, _format_message(error)


def _format_message(error: Exception) -> str:
    return str(error) or type(error).__name__
