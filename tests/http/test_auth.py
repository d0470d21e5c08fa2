"""Authorization: the token, the login page, the Host header, and the origin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urljoin

import httpx

from notebook_serve import Server

from ..helpers.http_errors import error_of

Make = Callable[..., Server]


def echo(inputs: list[Any]) -> list[Any]:
    return inputs


# -- token ----------------------------------------------------------------------------------


def test_every_route_but_health_needs_the_token(make: Make, client: httpx.Client) -> None:
    """Without the token only /health answers; with it every route does."""
    server = make(echo, token="s3cret")
    looking = ["/", "/stats", "/ready", "/live", "/static/dashboard.js", "/info", "/v1/models"]
    looking += ["/models/default/info", "/models/default/health", "/v1/models/default"]
    looking += ["/metrics", "/models", "/models/default", "/openapi.json"]
    for method, path in [("POST", "/"), *(("GET", path) for path in looking)]:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic s3cret"}):
            response = client.request(method, server.url + path, headers=headers)
            assert response.status_code == 401
            if not path.startswith("/v1/"):
                assert error_of(response) == (401, "Unauthorized")
            assert response.headers["www-authenticate"] == "Bearer"
        good = {"authorization": "Bearer s3cret"}
        body = b"x" if method == "POST" else None
        response = client.request(method, server.url + path, headers=good, content=body)
        assert response.status_code == 200
    assert client.get(server.url + "/health").status_code == 200
    assert client.get(server.url + "/nowhere").status_code == 401


def test_a_token_may_be_any_text(make: Make, client: httpx.Client) -> None:
    """A token beyond ASCII is compared as the bytes that clients send."""
    server = make(echo, token="schlüssel")

    def status(token: bytes) -> int:
        headers = {b"authorization": b"Bearer " + token}
        return client.post(server.url, content="x", headers=headers).status_code

    assert status("schlüssel".encode()) == 200
    with server.httpx() as own:
        assert own.post("/", content="x").status_code == 200
    assert status(b"schl\xfcssel") == status(b"\xff") == 401
    assert client.get(server.url, params={"token": "schlüss"}).status_code == 401
    assert client.get(server.url, params={"token": "schlüssel"}).status_code == 303


def test_a_browser_shows_the_token_once(make: Make, client: httpx.Client) -> None:
    """``?token=`` sets a strict cookie without the token in it, and redirects to a clean URL."""
    server = make(echo, token="s3cret")
    assert client.get(server.url + "/?token=wrong").status_code == 401
    response = client.get(server.url + "/?token=s3cret")
    assert response.status_code == 303
    assert response.headers["location"] == "./"
    cookie = response.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "s3cret" not in cookie
    assert client.get(server.url + "/").status_code == 200  # the client keeps cookies
    with httpx.Client() as other:
        assert other.post(server.url + "/?token=s3cret", content="x").status_code == 401


def test_a_redirect_stays_on_its_host_and_prefix(make: Make, client: httpx.Client) -> None:
    """A redirect is relative, so it keeps a proxy's prefix and never leads to another host."""
    url = make(echo, token="s3cret").url.rstrip("/")
    for path in ("/", "/stats", "/models/default", "//evil.test/stats"):
        response = client.get(f"{url}{path}?token=s3cret")
        assert response.status_code == 303
        location = response.headers["location"]
        assert location.startswith("./")
        # Python joins "//" to "/", which a browser does not.
        assert urljoin(f"{url}{path}?token=s3cret", location) == url + path.replace("//", "/")


BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


def test_a_browser_without_the_token_gets_a_login_page(make: Make, client: httpx.Client) -> None:
    """The page has a form and no script, and shows neither the token nor the request."""
    url = make(echo, token="s3cret").url
    pages = [
        client.get(url, headers={"accept": accept, **more}, params=asked)
        for accept in (BROWSER, "text/html")
        for more in (
            {},
            {"authorization": "Bearer wrong<b>"},
            {"cookie": "notebook_serve=wrong<b>"},
        )
        for asked in ({}, {"token": "wrong<b>"}, {"model": "other"})
    ]

    assert len({page.text for page in pages}) == 1
    page = pages[0]
    assert {one.status_code for one in pages} == {401}
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["www-authenticate"] == "Bearer"
    assert page.headers["cache-control"] == "no-store"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "<script" not in page.text
    for text in ("wrong", "s3cret"):
        assert text not in page.text


def test_other_clients_and_paths_get_json(make: Make, client: httpx.Client) -> None:
    """Only a browser's GET / gets the page; the JSON message names the URL to open."""
    url = make(echo, token="s3cret").url.rstrip("/")
    html = {"accept": BROWSER}
    for method, path, headers in [
        ("GET", "/", {"accept": "*/*"}),
        ("GET", "/", {"accept": "application/json"}),
        ("POST", "/", html),
        ("GET", "/stats", html),
        ("GET", "/static/page.css", html),
    ]:
        response = client.request(method, url + path, headers=headers)
        assert error_of(response) == (401, "Unauthorized")
        said = response.json()["error"]
        assert "Authorization: Bearer TOKEN" in said
        assert "/?token=TOKEN" in said


def test_a_page_from_elsewhere_may_not_ask(make: Make, client: httpx.Client) -> None:
    """A cross-origin request is rejected, unless its origin is in `allow_origins`."""
    server = make(echo, allow_origins=["https://good.example"])
    for origin in ("https://evil.example", "null", "http://localhost:1"):
        response = client.post(server.url, content="x", headers={"Origin": origin})
        assert error_of(response) == (403, "Forbidden")
    for origin in (server.url, "https://good.example"):
        response = client.post(server.url, content="x", headers={"Origin": origin})
        assert response.json() == "x"
    assert response.headers["access-control-allow-origin"] == "https://good.example"
    assert server.stats().outcomes["ok"] == 2


def test_a_preflight_request_is_answered(make: Make, client: httpx.Client) -> None:
    """The preflight of an allowed origin is answered, even if a token is set."""
    server = make(echo, token="t", allow_origins=["https://good.example"])
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-a"}
    good = client.options(server.url, headers={"Origin": "https://good.example", **asked})
    assert good.status_code == 200
    assert good.headers["access-control-allow-origin"] == "https://good.example"
    bad = client.options(server.url, headers={"Origin": "https://evil.example", **asked})
    assert "access-control-allow-origin" not in bad.headers


def test_a_name_that_is_not_this_servers_is_refused(make: Make, client: httpx.Client) -> None:
    """An unknown host name that points to this machine (DNS rebinding) is rejected."""
    server = make(echo, allow_hosts=["mine.example"])
    for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "[::2]:80"):
        for method in ("GET", "POST"):
            response = client.request(method, server.url, headers={"Host": host})
            assert error_of(response) == (403, "Forbidden")
    for host in ("localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]", "[::1]:80", "mine.example"):
        response = client.post(server.url, content="x", headers={"Host": host})
        assert response.json() == "x"
