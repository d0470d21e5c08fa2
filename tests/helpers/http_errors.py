"""Errors of the HTTP interface, read with a check of their form."""

from __future__ import annotations

import httpx


def error_of(response: httpx.Response) -> tuple[int, str]:
    """Return the status and the type of an error; check the form of its body."""
    body = response.json()
    assert isinstance(body["error"], str)
    assert body["error"]
    assert set(body) <= {"error", "type", "index"}
    return response.status_code, body["type"]
