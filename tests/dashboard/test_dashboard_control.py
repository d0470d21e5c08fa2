"""The dashboard's endpoints over HTTP: who may look, and who may steer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from notebook_serve import Greedy, Server
from notebook_serve.http.app import create_app
from notebook_serve.http.options import HttpOptions

Make = Callable[..., Server]
PAUSE = {"do": "pause"}


def echo(inputs: list[Any]) -> list[Any]:
    return inputs


def test_the_page_has_all_it_needs_from_here(make: Make, client: httpx.Client) -> None:
    """Its script, its style and its figures; and nothing may come from elsewhere."""
    server = make(echo, name="<b>mine")
    page = client.get(server.url)

    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "frame-ancestors 'self'" in page.headers["content-security-policy"]
    assert "<b>mine" not in page.text
    script = client.get(server.url + "/static/dashboard.js")
    assert script.headers["content-type"].startswith("text/javascript")
    assert "render" in script.text
    assert "sourceMappingURL" not in script.text
    style = client.get(server.url + "/static/dashboard.css")
    assert style.headers["content-type"].startswith("text/css")
    assert client.get(server.url + "/static/page.js").status_code == 200
    assert client.get(server.url + "/static/..%2Fserver.py").status_code == 404
    assert client.get(server.url + "/live").json()["steers"] is True


def test_the_controls_act_on_the_server(make: Make, client: httpx.Client) -> None:
    """And are answered with what happens then."""
    server = make(echo)
    control = server.url + "/control"
    assert client.post(control, json=PAUSE).json()["state"] == "paused"
    assert client.post(control, json={"do": "resume"}).json()["state"] == "ready"
    answer = client.post(control, json={"do": "policy", "policy": "Greedy(5)"}).json()

    assert answer["policy"]["options"] == {"max_batch_size": "5"}
    assert server.policy == Greedy(5)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"do": "policy", "policy": "Greedy(-1)"}', 422),
        (b'{"do": "policy", "policy": "__import__(\'os\').abort()"}', 422),
        (b'{"do": "explode"}', 422),
        (b"[1]", 422),
        (b"no json", 400),
        (b"[" * 3000, 400),
        (b'{"do": "policy", "policy": "' + b"9" * 5000 + b'"}', 413),
    ],
)
def test_a_control_that_makes_no_sense_is_refused(
    make: Make, client: httpx.Client, body: bytes, status: int
) -> None:
    """With a sentence, and the server is as before."""
    server = make(echo, policy=Greedy(3))
    answer = client.post(server.url + "/control", content=body)

    assert answer.status_code == status
    assert answer.json()["error"]
    assert (server.policy, server.state) == (Greedy(3), "ready")


def test_another_page_may_not_steer(make: Make, client: httpx.Client) -> None:
    """Not even one whose scripts may ask the model."""
    server = make(echo, allow_origins=["https://friend.example"])
    for origin in ("https://friend.example", "https://foe.example", "null"):
        answer = client.post(server.url + "/control", json=PAUSE, headers={"Origin": origin})
        assert answer.status_code == 403
    friend = {"Origin": "https://friend.example"}

    assert server.state == "ready"
    assert client.get(server.url + "/live", headers=friend).json()["steers"] is False
    own = client.post(server.url + "/control", json=PAUSE, headers={"Origin": server.url})
    assert own.json()["state"] == "paused"


@pytest.mark.parametrize(
    ("client_address", "token", "status"),
    [
        (("127.0.0.1", 1), None, 200),
        (("::1", 1), None, 200),
        (("192.0.2.7", 1), None, 403),
        (("testclient", 1), None, 403),
        (None, None, 403),
        (("192.0.2.7", 1), "secret", 200),
    ],
)
def test_who_may_steer(
    make: Make, client_address: tuple[str, int] | None, token: str | None, status: int
) -> None:
    """Whoever is on this machine, and whoever has shown the token."""
    server = make(echo)
    app = create_app(server._engines, HttpOptions(token=token))
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    async def steer() -> httpx.Response:
        transport = httpx.ASGITransport(app, client=client_address)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            live = await client.get("/live", headers=headers)
            assert live.json()["steers"] is (status == 200)
            return await client.post("/control", json=PAUSE, headers=headers)

    assert asyncio.run(steer()).status_code == status


def test_what_is_wrong_is_told_as_it_may_be(make: Make, client: httpx.Client) -> None:
    """A policy's fault is read on the page, unless errors are not to be exposed."""

    class Broken:
        def decide(self, waiting: Any, now: float) -> Any:
            raise RuntimeError("a secret of /home/somebody/notes.txt")

    for exposed, said in ((True, "secret of …/notes.txt"), (False, "see the server's log")):
        server = make(echo, policy=Broken(), expose_errors=exposed)
        server.predict("x")
        error = client.get(server.url + "/live").json()["error"]
        assert said in error
        assert "/home" not in error
