"""What a load test asks: a server's queue itself, or a URL over HTTP."""

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

#: what the records of a load test say of who asked
CLIENT = "load test"
#: most seconds for the first connection to a URL
CONNECT = 10.0


@dataclass(frozen=True, slots=True)
class Reply:
    """How one request ended; times are those of ``time.monotonic()``."""

    outcome: Outcome
    finished: float
    #: when its batch started; None if it never ran, or nobody said
    started: float | None = None
    batch_id: int | None = None
    batch_size: int = 0
    length: int = 1
    group: str = ""
    #: what went wrong, in a word, and in a sentence
    trouble: tuple[str, str] | None = None


class Target(Protocol):
    """Something that takes requests. What goes wrong with one is in its reply, never raised."""

    async def open(self, connections: int) -> None:
        """Get ready for so many requests at a time; raises `Unavailable` if nobody is there."""

    async def ask(self, index: int) -> Reply:
        """Send the input whose turn it is with the request of this number; cancel to withdraw."""

    async def close(self) -> None:
        """Let go of everything."""


class QueueTarget:
    """The queue of a server in this process, without HTTP."""

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
        """Raise why the server takes no requests, if it does not."""
        closed = self._engine.closed()
        if closed is not None:
            raise closed

    async def ask(self, index: int) -> Reply:
        """Put one input into the queue and wait for its answer."""
        given = self._inputs[index % len(self._inputs)]
        trouble = None
        try:
            (future,) = self._engine.submit(
                [given], self._parameters, timeout=self._timeout, client=CLIENT
            )
            record = (await asyncio.wrap_future(future)).record
        except ServeError as error:
            if error.record is None:  # refused at the door
                return Reply("rejected", time.monotonic())
            record = error.record
            if record.outcome in ("invalid", "failed"):
                trouble = type(error).__name__, error.message
        return Reply(
            record.outcome,
            record.finished,
            record.started,
            record.batch_id,
            record.batch_size,
            record.length,
            record.group,
            trouble,
        )

    async def close(self) -> None:
        """Nothing to do."""


class UrlTarget:
    """A URL, over connections that stay open.

    A pool of httpx looks at each of its idle connections for every request, so a request costs the
    more the more of them there are. Here every connection is a pool of its own, and the one that
    became free last is taken first.
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

        self._url = _checked(url)
        self._requests = [
            _request(self._url, given, parameters, timeout, headers) for given in inputs
        ]
        self._free: list[httpx.AsyncHTTPTransport] = []
        self._all: list[httpx.AsyncHTTPTransport] = []
        # Reading the certificates takes a while: once, not once for each connection.
        secure = self._url.scheme == "https"
        self._tls = httpx.create_ssl_context() if secure else SSLContext(PROTOCOL_TLS_CLIENT)
        self._httpx = httpx

    async def open(self, connections: int) -> None:
        """Connect so many times; raises `Unavailable` if nobody answers."""
        if importlib.util.find_spec("sniffio") is None:
            # httpcore looks for it several times for each request, and a search that finds nothing
            # is slow: a third of all that a request takes. So it reads here that it is not there.
            sys.modules["sniffio"] = None  # type: ignore[assignment]
        seconds = self._httpx.Timeout(CONNECT).as_dict()
        # Whatever this answers, and be it an error, the connection stands then.
        greeting = self._httpx.Request(
            "GET", self._url.join("/health"), extensions={"timeout": seconds}
        )
        try:
            await self._send(greeting)
            greetings = (self._send(greeting) for _ in range(connections))
            for greeted in await asyncio.gather(*greetings, return_exceptions=True):
                if isinstance(greeted, BaseException):
                    raise greeted
        except (self._httpx.TransportError, OSError) as error:
            raise Unavailable(f"nobody answers at {self._url}: {_said(error)}") from error

    async def ask(self, index: int) -> Reply:
        """Send one request and read its answer."""
        sent = time.monotonic()
        try:
            response = await self._send(self._requests[index % len(self._requests)])
        except self._httpx.TimeoutException as error:
            return Reply("expired", time.monotonic(), trouble=_trouble(error))
        except Exception as error:
            return Reply("failed", time.monotonic(), trouble=_trouble(error))
        finished = time.monotonic()
        status = response.status_code
        outcome = outcome_of(status)
        trouble = None
        if outcome not in ("ok", "rejected", "expired"):
            trouble = f"status {status}", response.text[:200]
        size, seconds = _ran(response.headers)
        started = None if seconds is None else max(sent, finished - seconds)
        return Reply(outcome, finished, started, batch_size=size, trouble=trouble)

    async def close(self) -> None:
        """Close all connections."""
        if sys.modules.get("sniffio", self) is None:
            del sys.modules["sniffio"]
        for transport in self._all:
            await transport.aclose()

    async def _send(self, request: httpx.Request) -> httpx.Response:
        # Below the client: it would follow no redirects, keep no cookies and read no settings of
        # this machine's here anyway, and a request through it takes about a third longer.
        transport = self._free.pop() if self._free else self._connection()
        try:
            response = await transport.handle_async_request(request)
            try:
                await response.aread()
            finally:
                await response.aclose()
            return response
        finally:
            self._free.append(transport)

    def _connection(self) -> httpx.AsyncHTTPTransport:
        limits = self._httpx.Limits(max_connections=1, keepalive_expiry=None)
        transport = self._httpx.AsyncHTTPTransport(verify=self._tls, trust_env=False, limits=limits)
        self._all.append(transport)
        return transport


def outcome_of(status: int) -> Outcome:
    """How a request ended that was answered with this HTTP status; redirects are not followed."""
    if 200 <= status < 300:
        return "ok"
    if status in (429, 503):
        return "rejected"
    if status == 504:
        return "expired"
    return "invalid" if 400 <= status < 500 else "failed"


def _ran(headers: Mapping[str, str]) -> tuple[int, float | None]:
    """The size of the batch that an answer came from, and how many seconds that ran, if known."""
    size = headers.get("X-Batch-Size", "")
    timing = re.search(r"\binference;dur=(\d+(?:\.\d+)?)", headers.get("Server-Timing", ""))
    if timing is None or not size.isdecimal() or not int(size):
        return 0, None
    return int(size), float(timing[1]) / 1e3


def _checked(url: str) -> httpx.URL:
    import httpx

    try:
        checked = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise OptionError(f"{url!r} is no URL: {error}") from error
    if checked.scheme not in ("http", "https") or not checked.host:
        raise OptionError(f"a URL begins with http:// or https:// and a host, unlike {url!r}")
    return checked


def _request(
    url: httpx.URL,
    given: Any,
    parameters: Mapping[str, Any],
    timeout: float,
    headers: Mapping[str, str],
) -> httpx.Request:
    """A request, made once for all the times that it is sent."""
    import httpx

    kind, content = _body(given, parameters)
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
        raise OptionError(f"headers are strings by their names: {error}") from error


def _body(given: Any, parameters: Mapping[str, Any]) -> tuple[str, bytes]:
    """The content type and the body that an input is sent as."""
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


def _trouble(error: Exception) -> tuple[str, str]:
    return type(error).__name__, _said(error)


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
