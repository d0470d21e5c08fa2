"""Authorization of requests by their Host header, their origin and their token."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ..display import render
from ..errors import Forbidden, ServeError, Unauthorized
from .request import is_same_origin, read_headers
from .responses import error_response

COOKIE = "notebook_serve"
#: Content-Security-Policy of the login page, which has a style and a form for this server
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'; "
    "base-uri 'none'; form-action 'self'"
)
LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})


class AuthMiddleware:
    """Middleware that rejects cross-site requests, unknown hosts, and requests without the token.

    A web page can make its visitor's browser post to ``localhost``. It can also point its own host
    name at this machine (DNS rebinding). So a request with an ``Origin``, other than a
    GET or HEAD, must be same-origin, or its origin must be in `origins`. Without a token, the host
    must be loopback or in `hosts`. ``/health`` needs no token.
    """

    def __init__(
        self, app: ASGIApp, *, token: str | None, hosts: Collection[str], origins: Collection[str]
    ) -> None:
        self._app = app
        self._token = None if token is None else token.encode()
        self._hosts = LOOPBACK_HOSTS | {host.lower() for host in hosts}
        self._origins = frozenset(origins)
        # A hash, so that the cookie does not reveal the token.
        self._cookie = hashlib.sha256(b"notebook-serve cookie\0" + (self._token or b"")).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on an authorized request, or reject it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._token is not None and self._has_token_in_url(Request(scope)):
            # Move the token from the address into a cookie.
            response: Response = RedirectResponse(_relative_url(scope["path"]), 303)
            response.set_cookie(COOKIE, self._cookie, httponly=True, samesite="strict")
            await response(scope, receive, send)
            return
        error = self._check(scope)
        if error is None:
            await self._app(scope, receive, send)
        elif isinstance(error, Unauthorized) and _is_browser(scope):
            await _login_page()(scope, receive, send)
        else:
            await error_response(Request(scope), error)(scope, receive, send)

    def _check(self, scope: Scope) -> ServeError | None:
        """Return the error to reject a request with; None if it is authorized."""
        headers = read_headers(scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._token is None and host and (name := _host_name(host)) not in self._hosts:
            return Forbidden(
                f"host {name!r} is not allowed; add it: serve(..., allow_hosts=[{name!r}])"
            )
        reads = scope["method"] in ("GET", "HEAD")
        if origin and not (reads or origin in self._origins or is_same_origin(origin, host)):
            return Forbidden(
                f"origin {origin!r} is not allowed; add it: serve(..., allow_origins=[{origin!r}])"
            )
        if self._token is None or scope["path"] == "/health" or self._has_token(Request(scope)):
            return None
        return Unauthorized(
            "this server needs a token; send Authorization: Bearer TOKEN, or open /?token=TOKEN "
            "in a browser"
        )

    def _has_token_in_url(self, request: Request) -> bool:
        given = request.query_params.get("token") if request.method == "GET" else None
        return given is not None and self._is_token(given.encode("utf-8", "replace"))

    def _has_token(self, request: Request) -> bool:
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            # Headers are decoded as Latin-1; this gives the bytes that were sent.
            return self._is_token(value.strip().encode("latin-1"))
        cookie = request.cookies.get(COOKIE, "")
        return hmac.compare_digest(cookie.encode(), self._cookie.encode())

    def _is_token(self, value: bytes) -> bool:
        return self._token is not None and hmac.compare_digest(value, self._token)


def _is_browser(scope: Scope) -> bool:
    """Return True if a browser requests the page at ``/``."""
    accept = read_headers(scope).get("accept", "")
    kinds = (item.partition(";")[0].strip() for item in accept.split(","))
    return scope["method"] == "GET" and scope["path"] == "/" and "text/html" in kinds


def _login_page() -> Response:
    """Return a page with a form for the token. It runs no script."""
    headers = {
        "Content-Security-Policy": POLICY,
        "Cache-Control": "no-store",
        "WWW-Authenticate": "Bearer",
    }
    return HTMLResponse(render("token.html"), 401, headers)


def _relative_url(path: str) -> str:
    """Return `path` relative to itself, because a proxy may have removed a prefix."""
    return "./" + quote(path.rpartition("/")[2])


def _host_name(host: str) -> str:
    """Return the name in a Host header, without the port."""
    name, colon, port = host.lower().rpartition(":")
    return name if colon and port.isdecimal() else host.lower()
