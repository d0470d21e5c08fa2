from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import uvicorn

from notebook_serve.listener import KEEP_ALIVE, _Uvicorn


def test_a_connection_in_use_is_not_hung_up_on() -> None:
    """Idle whenever looked at, but with new requests in between, it stays; silent, it goes."""
    closed: list[str] = []

    def connection(name: str) -> Any:
        transport = SimpleNamespace(close=lambda: closed.append(name))
        return type("Connection", (), {"cycle": None, "transport": transport})()

    server = _Uvicorn(uvicorn.Config("app:app", log_config=None), lambda: None)
    busy, silent = connection("busy"), connection("silent")
    server.server_state.connections = {busy, silent}
    for tick in range(int(KEEP_ALIVE) + 2):
        busy.cycle = SimpleNamespace(response_complete=True)
        server.hang_up_on_the_silent(1000.0 + tick)

    assert closed == ["silent"]
