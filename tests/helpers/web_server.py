"""A web server of another kind, which answers each POST as its body asks."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


class WebServer(ThreadingHTTPServer):
    """Server that answers a POST by its body.

    A number is the status of the answer, a JSON object its headers, ``wait`` blocks until
    `release` is set, and ``hang up`` closes the connection.
    """

    daemon_threads = False
    request_queue_size = 100

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.release = threading.Event()
        self.clients: set[Any] = set()
        #: the client's address, the content type, the headers and the body of each POST
        self.addresses: list[Any] = []
        self.posted: list[tuple[str | None, dict[str, str], bytes]] = []


class Handler(BaseHTTPRequestHandler):
    """Handler of one connection."""

    protocol_version = "HTTP/1.1"
    server: WebServer

    def do_GET(self) -> None:
        """Answer with 404."""
        self.server.clients.add(self.client_address)
        self.answer(404)

    def do_POST(self) -> None:
        """Record the request, and answer by its body."""
        self.server.clients.add(self.client_address)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.addresses.append(self.client_address)
        self.server.posted.append((self.headers["Content-Type"], dict(self.headers), body))
        if body == b"wait":
            self.server.release.wait(60)
        if body == b"hang up":
            self.close_connection = True
            return
        headers = json.loads(body) if body.startswith(b'{"Server') else {}
        self.answer(int(body) if body.isdigit() else 200, headers)

    def answer(self, status: int, headers: dict[str, str] | None = None) -> None:
        """Send an answer with an empty JSON object."""
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", "/elsewhere")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *message: object) -> None:
        """Write no log."""


@pytest.fixture(name="web")
def a_web_server() -> Iterator[WebServer]:
    """A running `WebServer`."""
    with WebServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.release.set()
        server.shutdown()
        thread.join()
