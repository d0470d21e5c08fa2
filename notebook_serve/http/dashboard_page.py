"""Page of the dashboard: its HTML, its static files, its data, and commands of its controls."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import json
import shlex
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from ..dashboard.assets import build_script, read_static
from ..dashboard.snapshot import ServerSnapshots, replace_messages, run_command
from ..display import render
from ..engine.engine import Engine
from ..engine.registry import EngineRegistry
from ..errors import BadRequest, Forbidden, InvalidInput, OptionError
from .examples import example
from .request import is_same_origin, read_body, read_headers
from .responses import json_response

#: most bytes of a command
MOST_COMMAND = 4000
#: allows only resources of this server, and no other page to embed this one in a frame
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src data:; "
    "media-src data:; connect-src 'self'; frame-ancestors 'self'; base-uri 'none'; "
    "form-action 'none'"
)
#: static files by name: media type and a function that returns the text
PARTS: dict[str, tuple[str, Callable[[], str]]] = {
    "dashboard.js": ("text/javascript", build_script),
    "dashboard.css": ("text/css", lambda: read_static("dashboard.css")),
    "page.js": ("text/javascript", lambda: read_static("page.js")),
    "page.css": ("text/css", lambda: read_static("page.css")),
    "tryit.js": ("text/javascript", lambda: read_static("tryit.js")),
}


class Page:
    """Endpoints of the dashboard's page.

    `redact` returns the part of an error message that a client may read (see `serve`). `trusted` is
    True if every request that arrives here has shown the token.
    """

    def __init__(
        self, engines: EngineRegistry, redact: Callable[[str], str], trusted: bool
    ) -> None:
        self._engines = engines
        self._snapshots = ServerSnapshots(engines)
        self._redact = redact
        self._trusted = trusted
        self.routes = [
            Route("/live", self.get_snapshot),
            Route("/control", self.execute, methods=["POST"]),
            Route("/static/{name}", self.get_static),
        ]

    async def page(self, request: Request) -> Response:
        """Return the HTML page."""
        engine, url = self._choose(request), str(request.base_url)
        if engine is not self._engines.first:
            url += f"models/{quote(engine.name, safe='')}"
        token = ' -H "Authorization: Bearer $TOKEN"' if self._trusted else ""
        # Quoted for the shell command in the page.
        quoted = shlex.quote(url)
        values = {"name": engine.name, "url": quoted, "header": token, "icon": _encode_icon()}
        text = render("page.html", **values)
        return HTMLResponse(text, headers={"Content-Security-Policy": CONTENT_POLICY})

    async def get_static(self, request: Request) -> Response:
        """Return a script or a style sheet."""
        name = request.path_params["name"]
        if name not in PARTS:
            raise HTTPException(404)
        kind, text = PARTS[name]
        return Response(text(), media_type=kind, headers={"Cache-Control": "no-cache"})

    async def get_snapshot(self, request: Request) -> Response:
        """Return a snapshot as JSON."""
        return json_response(await self._take_snapshot(request))

    async def execute(self, request: Request) -> Response:
        """Pause, resume, or set a policy, and return a snapshot."""
        if not self._may_control(request):
            raise Forbidden(
                "the controls accept only requests of this server's page; from other machines the "
                "server needs a token: serve(..., token=...)"
            )
        engine = self._choose(request)
        body = await read_body(request, MOST_COMMAND, engine.timeout)
        try:
            command = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise BadRequest(f"the body is not JSON: {error}") from error
        try:
            run_command(engine, command)
        except OptionError as error:
            raise InvalidInput(error.message) from error
        return json_response(await self._take_snapshot(request))

    async def _take_snapshot(self, request: Request) -> dict[str, Any]:
        # In a thread: the first snapshot reads ten thousand records.
        engine = self._choose(request)
        snapshot = await asyncio.to_thread(self._snapshots.take, engine.name)
        more = {"steers": self._may_control(request), "question": self._describe_form(engine)}
        return {**replace_messages(snapshot, self._redact), **more}

    def _describe_form(self, engine: Engine) -> dict[str, Any] | None:
        """Return the data of the try-it form; None while the model is not loaded."""
        if engine.model is None:
            return None
        path = "" if engine is self._engines.first else f"models/{quote(engine.name, safe='')}"
        return {**example(engine.model), "path": path, "token": self._trusted}

    def _choose(self, request: Request) -> Engine:
        return find_engine(request, self._engines) or self._engines.first

    def _may_control(self, request: Request) -> bool:
        headers = read_headers(request.scope)
        origin = headers.get("origin")
        if origin and not is_same_origin(origin, headers.get("host", "")):
            return False
        return self._trusted or (request.client is not None and _is_loopback(request.client.host))


@lru_cache
def _encode_icon() -> str:
    """Return the page's icon as a data URL."""
    return (
        "data:image/svg+xml;base64," + base64.b64encode(read_static("icon.svg").encode()).decode()
    )


def find_engine(request: Request, engines: EngineRegistry) -> Engine | None:
    """Return the engine of the model in the query ``?model=NAME``; None without one."""
    name = request.query_params.get("model")
    return None if name is None else engines[name]


def _is_loopback(address: str) -> bool:
    """Return True for an address of this machine."""
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False
