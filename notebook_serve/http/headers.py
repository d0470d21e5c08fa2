"""A request's headers by name, looked through once for all who ask."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

_KNOWN = "notebook_serve.headers"


def header(scope: MutableMapping[str, Any], name: bytes) -> str:
    """The header `name` (in lower case) of an ASGI `scope`; empty if it is not there."""
    found: dict[bytes, bytes] | None = scope.get(_KNOWN)
    if found is None:
        found = scope[_KNOWN] = dict(scope["headers"])
    return found.get(name, b"").decode("latin-1")


def is_own_page(origin: str, host: str) -> bool:
    """Whether a page from `origin` is one of the server that was asked as `host`."""
    return origin.partition("://")[2].lower() == host.lower()
