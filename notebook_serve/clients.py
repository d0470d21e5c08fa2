"""Clients that are ready to ask a server: its address, its token, and patience enough."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from .errors import WrongCall
from .validation.option_hints import unknown_option

if TYPE_CHECKING:
    from httpx import AsyncClient, Client
    from huggingface_hub import AsyncInferenceClient, InferenceClient

T = TypeVar("T")

#: what is sent where no token is asked for, so that no other token of the user's is sent instead
NO_TOKEN = "none"  # noqa: S105
#: seconds that a client waits longer than the server, whose own words come first then
GRACE = 5.0


def _made(kind: Callable[..., T], options: dict[str, Any]) -> T:
    """Return ``kind(**options)``; raise `WrongCall` for an option that `kind` does not have."""
    parameters = inspect.signature(kind).parameters
    for name, value in options.items():
        if name not in parameters:
            raise WrongCall(unknown_option(kind.__name__, name, value, parameters))
    return kind(**options)


class Clients:
    """Makes clients for the server at `url`, which gives up after `timeout` seconds."""

    def __init__(self, url: str, token: str | None, timeout: float) -> None:
        self._url = url
        self._token = token
        self._timeout = None if timeout == math.inf else timeout + GRACE

    def hub(self, name: str, options: dict[str, Any]) -> InferenceClient:
        """A client of huggingface_hub's for the model of this name."""
        from huggingface_hub import InferenceClient

        return _made(InferenceClient, {**self._for_hub(name), **options})

    def async_hub(self, name: str, options: dict[str, Any]) -> AsyncInferenceClient:
        """The same, to be awaited."""
        from huggingface_hub import AsyncInferenceClient

        return _made(AsyncInferenceClient, {**self._for_hub(name), **options})

    def httpx(self, options: dict[str, Any]) -> Client:
        """A client of httpx's; paths are the server's."""
        import httpx

        return _made(httpx.Client, self._for_httpx(options))

    def async_httpx(self, options: dict[str, Any]) -> AsyncClient:
        """The same, to be awaited."""
        import httpx

        return _made(httpx.AsyncClient, self._for_httpx(options))

    def _for_hub(self, name: str) -> dict[str, Any]:
        return {
            "model": f"{self._url}/models/{quote(name, safe='')}",
            "provider": "hf-inference",
            "token": self._token or NO_TOKEN,
            "timeout": self._timeout,
        }

    def _for_httpx(self, options: dict[str, Any]) -> dict[str, Any]:
        from httpx import Headers

        # As bytes: as text a header is ASCII, and a token need not be.
        login = f"Bearer {self._token}".encode()
        headers = Headers({} if self._token is None else {b"Authorization": login})
        headers.update(options.get("headers"))
        return {
            "base_url": self._url,
            "timeout": self._timeout,
            # A proxy of the environment's does not lead to this machine.
            "trust_env": False,
            **options,
            "headers": headers,
        }
