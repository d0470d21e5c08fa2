from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import httpx
import pytest

from notebook_serve import Server
from notebook_serve.clients import GRACE, Clients
from notebook_serve.errors import OptionError

Make = Callable[..., Server]


def test_paths_are_the_servers(make: Make) -> None:
    """A client of httpx, synchronous or not, uses relative paths and sends the token."""
    server = make(lambda inputs: inputs, token="s3cret")
    with server.httpx() as client:
        assert client.post("/", content="x").json() == "x"
        assert client.get("/stats").json()["outcomes"]["ok"] == 1

    async def ask() -> object:
        async with server.ahttpx() as client:
            return (await client.post("/", content="y")).json()

    assert asyncio.run(ask()) == "y"


def test_options_are_the_clients_own(make: Make) -> None:
    """An explicit option wins over the server's value; headers match in any case."""
    server = make(lambda inputs: inputs, token="s3cret")
    with server.httpx(headers={"authorization": "Bearer wrong", "x-request-id": "a-1"}) as client:
        response = client.post("/", content="x")
        assert (response.status_code, response.headers["x-request-id"]) == (401, "a-1")
    with server.httpx(timeout=1.5) as client:
        assert client.timeout == httpx.Timeout(1.5)
    assert server.client(timeout=1.5).timeout == 1.5
    server.add("other", lambda inputs: inputs)
    assert server.aclient("other").model == server.url + "/models/other"


@pytest.mark.parametrize(("timeout", "patience"), [(2.0, 2.0 + GRACE), (math.inf, None)])
def test_a_client_waits_longer_than_the_server(timeout: float, patience: float | None) -> None:
    """The server's 504 arrives first; without a timeout of the server, the client has none."""
    clients = Clients("http://127.0.0.1:1", None, timeout)
    assert clients.hub("default", {}).timeout == patience
    with clients.httpx({}) as client:
        assert client.timeout == httpx.Timeout(patience)


def test_no_proxy_is_used_for_this_machine(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies of the environment are ignored."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    with make(lambda inputs: inputs).httpx() as client:
        assert client.post("/", content="x").json() == "x"


def test_there_is_no_client_before_there_is_an_address(make: Make) -> None:
    """The error is that of `url`."""
    with pytest.raises(OptionError, match=r"call start\(\)"):
        make(lambda inputs: inputs, start=False).client()
