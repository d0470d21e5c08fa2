"""HTTP clients for a server, with its address, its token and a timeout that suits it."""

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

#: token for a server without one; otherwise the client would send the user's Hugging Face token
NO_TOKEN = "none"  # noqa: S105
#: seconds that a client waits longer than the server, so that the server's 504 arrives first
GRACE = 5.0


def _create(kind: Callable[..., T], options: dict[str, Any]) -> T:
    """Return ``kind(**options)``; raise `WrongCall` for an unknown option."""
    parameters = inspect.signature(kind).parameters
    for name, value in options.items():
        if name not in parameters:
            raise WrongCall(unknown_option(kind.__name__, name, value, parameters))
    return kind(**options)


class Clients:
    """Factory of clients for the server at `url`; its requests time out after `timeout`."""

    def __init__(self, url: str, token: str | None, timeout: float) -> None:
        self._url = url
        self._token = token
        self._timeout = None if timeout == math.inf else timeout + GRACE

    def hub(self, name: str, options: dict[str, Any]) -> InferenceClient:
        """Return a client of huggingface_hub for the model `name`."""
        from huggingface_hub import InferenceClient

        return _create(InferenceClient, {**self._for_hub(name), **options})

    def async_hub(self, name: str, options: dict[str, Any]) -> AsyncInferenceClient:
        """Return an asynchronous client of huggingface_hub for the model `name`."""
        from huggingface_hub import AsyncInferenceClient

        return _create(AsyncInferenceClient, {**self._for_hub(name), **options})

    def httpx(self, options: dict[str, Any]) -> Client:
        """Return a client of httpx; its paths are relative to the server's address."""
        import httpx

        return _create(httpx.Client, self._for_httpx(options))

    def async_httpx(self, options: dict[str, Any]) -> AsyncClient:
        """Return an asynchronous client of httpx, with the same paths."""
        import httpx

        return _create(httpx.AsyncClient, self._for_httpx(options))

    def _for_hub(self, name: str) -> dict[str, Any]:
        return {
            "model": f"{self._url}/models/{quote(name, safe='')}",
            "provider": "hf-inference",
            "token": self._token or NO_TOKEN,
            "timeout": self._timeout,
        }

    def _for_httpx(self, options: dict[str, Any]) -> dict[str, Any]:
        from httpx import Headers

        # As bytes, because httpx encodes a text as ASCII, and a token may have other letters.
        login = f"Bearer {self._token}".encode()
        headers = Headers({} if self._token is None else {b"Authorization": login})
        headers.update(options.get("headers"))
        return {
            "base_url": self._url,
            "timeout": self._timeout,
            # A proxy from the environment cannot reach this machine.
            "trust_env": False,
            **options,
            "headers": headers,
        }
