"""The dashboard's page: what a browser is given, and what its controls may do."""

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

from ..dashboard.assets import script, source
from ..dashboard.snapshot import steer, told
from ..dashboard.snapshots import Lives
from ..display import render
from ..engine.engine import Engine
from ..engine.registry import EngineRegistry
from ..errors import BadRequest, Forbidden, InvalidInput, OptionError
from .examples import example
from .request import is_same_origin, read_body, read_headers
from .responses import json_response

#: most bytes that a control has to say
MOST_ASKED = 4000
#: everything comes from this server, and no other page may put this one into a frame
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src data:; "
    "media-src data:; connect-src 'self'; frame-ancestors 'self'; base-uri 'none'; "
    "form-action 'none'"
)
#: what the page needs, by name
PARTS: dict[str, tuple[str, Callable[[], str]]] = {
    "dashboard.js": ("text/javascript", script),
    "dashboard.css": ("text/css", lambda: source("dashboard.css")),
    "page.js": ("text/javascript", lambda: source("page.js")),
    "page.css": ("text/css", lambda: source("page.css")),
    "tryit.js": ("text/javascript", lambda: source("tryit.js")),
}


class Page:
    """The endpoints behind the dashboard's page.

    `said` is what may be told of an error (see `serve`), and `trusted` whether whoever gets here
    has shown a token.
    """

    def __init__(self, engines: EngineRegistry, said: Callable[[str], str], trusted: bool) -> None:
        self._engines = engines
        self._lives = Lives(engines)
        self._said = said
        self._trusted = trusted
        self.routes = [
            Route("/live", self.live),
            Route("/control", self.control, methods=["POST"]),
            Route("/static/{name}", self.part),
        ]

    async def page(self, request: Request) -> Response:
        """The page itself."""
        engine, url = self._chosen(request), str(request.base_url)
        if engine is not self._engines.first:
            url += f"models/{quote(engine.name, safe='')}"
        shown = ' -H "Authorization: Bearer $TOKEN"' if self._trusted else ""
        # It goes into a line for a shell.
        values = {"name": engine.name, "url": shlex.quote(url), "header": shown, "icon": _icon()}
        text = render("page.html", **values)
        return HTMLResponse(text, headers={"Content-Security-Policy": POLICY})

    async def part(self, request: Request) -> Response:
        """A script or a style sheet."""
        name = request.path_params["name"]
        if name not in PARTS:
            raise HTTPException(404)
        kind, text = PARTS[name]
        return Response(text(), media_type=kind, headers={"Cache-Control": "no-cache"})

    async def live(self, request: Request) -> Response:
        """What happens just now."""
        return json_response(await self._picture(request))

    async def control(self, request: Request) -> Response:
        """Pause, resume, or set a policy; answered with what happens then."""
        if not self._may_steer(request):
            raise Forbidden("the controls work on this machine only, or with a token")
        engine = self._chosen(request)
        body = await read_body(request, MOST_ASKED, engine.timeout)
        try:
            action = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise BadRequest(f"the body is not JSON: {error}") from error
        try:
            steer(engine, action)
        except OptionError as error:
            raise InvalidInput(error.message) from error
        return json_response(await self._picture(request))

    async def _picture(self, request: Request) -> dict[str, Any]:
        # The first has ten thousand records to go through, which is not for the event loop.
        engine = self._chosen(request)
        picture = await asyncio.to_thread(self._lives.picture, engine.name)
        more = {"steers": self._may_steer(request), "question": self._question(engine)}
        return {**told(picture, self._said), **more}

    def _question(self, engine: Engine) -> dict[str, Any] | None:
        """Return what the form that asks a model needs to know; None while it is not loaded."""
        if engine.model is None:
            return None
        path = "" if engine is self._engines.first else f"models/{quote(engine.name, safe='')}"
        return {**example(engine.model), "path": path, "token": self._trusted}

    def _chosen(self, request: Request) -> Engine:
        return chosen(request, self._engines) or self._engines.first

    def _may_steer(self, request: Request) -> bool:
        headers = read_headers(request.scope)
        origin = headers.get("origin")
        if origin and not is_same_origin(origin, headers.get("host", "")):
            return False
        return self._trusted or (request.client is not None and _is_here(request.client.host))


@lru_cache
def _icon() -> str:
    """Return the page's icon as an address that needs no request."""
    return "data:image/svg+xml;base64," + base64.b64encode(source("icon.svg").encode()).decode()


def chosen(request: Request, engines: EngineRegistry) -> Engine | None:
    """The engine of the model that a query names, as ``?model=NAME``; None if it names none."""
    name = request.query_params.get("model")
    return None if name is None else engines[name]


def _is_here(address: str) -> bool:
    """Whether an address is of this machine."""
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False
