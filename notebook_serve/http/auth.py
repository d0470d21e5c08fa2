"""Who gets in: a check of the host, of the page that sends, and of the token."""

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
from .headers import header, is_own_page
from .responses import error_response

COOKIE = "notebook_serve"
#: the page that asks for the token needs its own style, and sends its form to this server
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'; "
    "base-uri 'none'; form-action 'self'"
)
LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})


class Access:
    """Refuses what a browser was tricked into sending, and who has no token where one is set.

    A page on the web may make its visitor's browser post to ``localhost``, and may point a name
    of its own at it (DNS rebinding). So a request that names its page must come from a page of
    this server or one that is allowed; and without a token the host must be one of `hosts`.
    ``/health`` needs no token.
    """

    def __init__(
        self, app: ASGIApp, *, token: str | None, hosts: Collection[str], origins: Collection[str]
    ) -> None:
        self._app = app
        self._token = None if token is None else token.encode()
        self._hosts = LOOPBACK_HOSTS | {host.lower() for host in hosts}
        self._origins = frozenset(origins)
        # The cookie need not hold the token itself.
        self._cookie = hashlib.sha256(b"notebook-serve cookie\0" + (self._token or b"")).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request and pass it on, or answer with why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._token is not None and self._is_greeting(Request(scope)):
            # The token came in the address of a page: keep it as a cookie, out of the address.
            response: Response = RedirectResponse(_own_place(scope["path"]), 303)
            response.set_cookie(COOKIE, self._cookie, httponly=True, samesite="strict")
            await response(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, send)
        elif isinstance(refusal, Unauthorized) and _is_browser(scope):
            await _question_for_token()(scope, receive, send)
        else:
            await error_response(Request(scope), refusal)(scope, receive, send)

    def _refusal(self, scope: Scope) -> ServeError | None:
        host = header(scope, b"host")
        if self._token is None and host and _name(host) not in self._hosts:
            return Forbidden(
                f"this server does not go by the name {_name(host)!r}; serve(..., "
                "allow_hosts=[...]) lets others in"
            )
        origin = header(scope, b"origin")
        asks = scope["method"] not in ("GET", "HEAD")
        if origin and asks and not is_own_page(origin, host) and origin not in self._origins:
            return Forbidden(
                f"a page from {origin} may not ask this server; serve(..., "
                "allow_origins=[...]) lets it"
            )
        if self._token is None or scope["path"] == "/health" or self._may_enter(Request(scope)):
            return None
        return Unauthorized(
            "this server has a token; send Authorization: Bearer TOKEN, or open /?token=TOKEN in "
            "a browser"
        )

    def _is_greeting(self, request: Request) -> bool:
        shown = request.query_params.get("token") if request.method == "GET" else None
        return shown is not None and self._is_token(shown.encode("utf-8", "replace"))

    def _may_enter(self, request: Request) -> bool:
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            # Headers are read as Latin-1: these are the bytes that were sent.
            return self._is_token(value.strip().encode("latin-1"))
        cookie = request.cookies.get(COOKIE, "")
        return hmac.compare_digest(cookie.encode(), self._cookie.encode())

    def _is_token(self, value: bytes) -> bool:
        return self._token is not None and hmac.compare_digest(value, self._token)


def _is_browser(scope: Scope) -> bool:
    """Return True if a request is for the page, by a client that shows one."""
    kinds = (item.partition(";")[0].strip() for item in header(scope, b"accept").split(","))
    return scope["method"] == "GET" and scope["path"] == "/" and "text/html" in kinds


def _question_for_token() -> Response:
    """Return a page with a form that asks for the token. It runs no script."""
    headers = {
        "Content-Security-Policy": POLICY,
        "Cache-Control": "no-store",
        "WWW-Authenticate": "Bearer",
    }
    return HTMLResponse(render("token.html"), 401, headers)


def _own_place(path: str) -> str:
    """Return the address of `path` seen from itself: a proxy may have taken a prefix away."""
    return "./" + quote(path.rpartition("/")[2])


def _name(host: str) -> str:
    """A Host header's name, without the port."""
    name, colon, port = host.lower().rpartition(":")
    return name if colon and port.isdecimal() else host.lower()
