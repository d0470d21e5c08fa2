"""A server in the foreground: it prints its address, and stops when it is interrupted."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shlex
import signal
import threading
import webbrowser
from collections.abc import Callable, Mapping
from types import FrameType, TracebackType
from typing import Any
from urllib.parse import quote

from ..errors import ServeError, StartError
from ..http.examples import example
from ..server import Server

#: seconds after which a waiting thread wakes up, so that Python can handle an interrupt
INTERRUPT_POLL = 0.5
#: the signals that end a server, where the system has them
SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: outcomes of requests other than an answer, in words
OUTCOMES = {
    "rejected": "rejected",
    "failed": "failed",
    "expired": "timed out",
    "cancelled": "cancelled",
    "invalid": "invalid",
}

PrintLine = Callable[[str], None]


class Interrupts:
    """A handler of Ctrl+C and SIGTERM: the first requests a stop, the second exits at once."""

    def __init__(self) -> None:
        # A queue, not an event: the handler may run while this thread holds the lock of an event.
        self._requests: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._number = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        self._before = {each: signal.signal(each, self._interrupt) for each in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def request_stop(self) -> None:
        """Request a stop, from any thread."""
        self._requests.put(None)

    def wait(self, seconds: float = float("inf")) -> bool:
        """Wait for a request to stop, at most so many seconds; return True if there was one."""
        # Python handles an interrupt that comes just before a wait only when the wait ends.
        while seconds > 0:
            with contextlib.suppress(queue.Empty):
                self._requests.get(timeout=min(seconds, INTERRUPT_POLL))
                return True
            seconds -= INTERRUPT_POLL
        return False

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._number:
            os.write(2, b"interrupted again: exiting at once\n")
            os._exit(128 + number)
        self._number = number
        self.request_stop()


def run(
    server: Server, print_line: PrintLine, *, token: str | None = None, browse: bool = False
) -> int:
    """Start `server`, wait for an interrupt, stop it, and return the exit status.

    With `browse` its page opens once it is ready. Raises `StartError` if it cannot load the model.
    """
    with Interrupts() as interrupts, server:
        print_line(f"loading; will answer at {server.url}")
        arguments = (server, interrupts, print_line, token, browse)
        threading.Thread(target=_announce, args=arguments, daemon=True).start()
        interrupts.wait()
        if server.state == "failed":
            raise StartError(f"the model cannot be loaded: {_load_error(server)}")
        stop(server, print_line)
    return 0


def _load_error(server: Server) -> str:
    """Return the error that kept the model of `server` from being loaded, in words."""
    try:
        server.wait_ready()
    except ServeError as error:
        cause = error.__cause__
        return error.message if cause is None else f"{type(cause).__name__}: {cause}"
    return "it is loaded now"


def _announce(
    server: Server, interrupts: Interrupts, print_line: PrintLine, token: str | None, browse: bool
) -> None:
    """Wait until the model is loaded, and print how to call it; request a stop if that fails."""
    try:
        server.wait_ready()
    except ServeError:
        interrupts.request_stop()
        return
    print_line(f"ready: {example_command(server, token)}   (Ctrl+C stops)")
    print_line(f"page: {server.url}{'' if token is None else '/?token=...'}")
    if browse:
        open_page(server.url, token, print_line)


def example_command(server: Server, token: str | None) -> str:
    """Return a curl command that sends an example input to `server`."""
    login = "" if token is None else '-H "Authorization: Bearer TOKEN" '
    return f"curl -X POST {login}{_body(server)} {server.url}"


def _body(server: Server) -> str:
    """Return curl's options for an example input of the kind that the model takes."""
    model = server._engine.model
    assert model is not None  # the caller has waited for it
    request = example(model)
    inputs, parameters = request["inputs"], request["parameters"]
    if request["way"] == "text" and not parameters:
        return f"-d {shlex.quote(inputs)}"
    if request["way"] == "bytes":
        return "-H 'Content-Type: application/octet-stream' --data-binary @FILE"
    body = {"inputs": inputs, **({"parameters": parameters} if parameters else {})}
    return f"-H 'Content-Type: application/json' -d {shlex.quote(json.dumps(body))}"


def open_page(url: str, token: str | None, print_line: PrintLine) -> None:
    """Open the page of the server at `url` in a browser, or print its address."""
    if not webbrowser.open(url if token is None else f"{url}/?token={quote(token, safe='')}"):
        address = url if token is None else f"{url}/?token=..."
        print_line(f"no browser can be opened here; open {address}")


def stop(server: Server, print_line: PrintLine) -> None:
    """Stop `server`, and print the outcomes of the requests that it had."""
    before, port = server.stats().outcomes, server.url.rpartition(":")[2]
    print_line("stopping: accepted requests are answered first; Ctrl+C again exits at once")
    server.stop()
    after = server.stats().outcomes
    since = {name: after[name] - before[name] for name in after}
    summary = f"{describe_drain(since)}; port {port} is free"
    print_line(f"stopped: {summary}; {after['ok']} answered since the start")


def describe_drain(outcomes: Mapping[str, int]) -> str:
    """Return the outcomes of the requests that a stop found, in words; takes their numbers."""
    others = [f"{outcomes[name]} {word}" for name, word in OUTCOMES.items() if outcomes[name]]
    noun = "request" if outcomes["ok"] == 1 else "requests"
    first = f"{outcomes['ok']} {noun} drained"
    return ", ".join([first, *(others or ["0 rejected"])])
