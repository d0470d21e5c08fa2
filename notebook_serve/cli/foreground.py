"""A server in the foreground: it says where it answers, and ends when it is interrupted."""

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

#: seconds after which a thread that waits for an interrupt looks up, to see it
LOOK_UP = 0.5
#: the signals that end a server, where the system has them
SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: how requests end while a server stops, in words
ENDS = {
    "rejected": "rejected",
    "failed": "failed",
    "expired": "timed out",
    "cancelled": "withdrawn",
    "invalid": "invalid",
}

Tell = Callable[[str], None]


class Interrupts:
    """Ctrl+C and a terminate while entered: the first asks for an end, the second is the end."""

    def __init__(self) -> None:
        # A queue and no event: a handler may run while this very thread holds the event's lock.
        self._asked: queue.SimpleQueue[None] = queue.SimpleQueue()
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

    def ask(self) -> None:
        """Ask for the end, from any thread."""
        self._asked.put(None)

    def wait(self, seconds: float = float("inf")) -> bool:
        """Wait until the end is asked for, at most so many seconds; return True if it was."""
        # Python does not see an interrupt that comes just before a wait begins until the wait ends.
        while seconds > 0:
            with contextlib.suppress(queue.Empty):
                self._asked.get(timeout=min(seconds, LOOK_UP))
                return True
            seconds -= LOOK_UP
        return False

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._number:
            os.write(2, b"interrupted again: ended at once\n")
            os._exit(128 + number)
        self._number = number
        self.ask()


def run(server: Server, tell: Tell, *, token: str | None = None, browse: bool = False) -> int:
    """Start `server`, wait for an interrupt, and stop it; returns the exit status.

    With `browse` its page is opened once it is ready. Raises `StartError` if it cannot be loaded.
    """
    with Interrupts() as interrupts, server:
        tell(f"loading; will answer at {server.url}")
        arguments = (server, interrupts, tell, token, browse)
        threading.Thread(target=_watch, args=arguments, daemon=True).start()
        interrupts.wait()
        if server.state == "failed":
            raise StartError(f"the model cannot be loaded: {_cause(server)}")
        stop(server, tell)
    return 0


def _cause(server: Server) -> str:
    """Return the reason for which the model of a server could not be loaded."""
    try:
        server.wait_ready()
    except ServeError as error:
        cause = error.__cause__
        return error.message if cause is None else f"{type(cause).__name__}: {cause}"
    return "it is loaded now"


def _watch(
    server: Server, interrupts: Interrupts, tell: Tell, token: str | None, browse: bool
) -> None:
    """Wait until the model is loaded and say so; ask for the end if it cannot be."""
    try:
        server.wait_ready()
    except ServeError:
        interrupts.ask()
        return
    tell(f"ready: {command(server, token)}   (Ctrl+C stops)")
    tell(f"page: {server.url}{'' if token is None else '/?token=...'}")
    if browse:
        open_page(server.url, token, tell)


def command(server: Server, token: str | None) -> str:
    """Return a command that asks `server`, for the kind of input that its model takes."""
    login = "" if token is None else '-H "Authorization: Bearer TOKEN" '
    return f"curl -X POST {login}{_body(server)} {server.url}"


def _body(server: Server) -> str:
    """Return the part of a command that sends an input which the model of `server` takes."""
    model = server._engine.model
    assert model is not None  # it was waited for
    asked = example(model)
    inputs, parameters = asked["inputs"], asked["parameters"]
    if asked["way"] == "text" and not parameters:
        return f"-d {shlex.quote(inputs)}"
    if asked["way"] == "bytes":
        return "-H 'Content-Type: application/octet-stream' --data-binary @FILE"
    body = {"inputs": inputs, **({"parameters": parameters} if parameters else {})}
    return f"-H 'Content-Type: application/json' -d {shlex.quote(json.dumps(body))}"


def open_page(url: str, token: str | None, tell: Tell) -> None:
    """Open the page of the server at `url` in a browser, or say how to."""
    if not webbrowser.open(url if token is None else f"{url}/?token={quote(token, safe='')}"):
        tell(f"no browser can be opened here; open {url}{'' if token is None else '/?token=...'}")


def stop(server: Server, tell: Tell) -> None:
    """Stop `server`, and say what became of the requests that it had."""
    before, port = server.stats().outcomes, server.url.rpartition(":")[2]
    tell("stopping: accepted requests are answered first; Ctrl+C again ends at once")
    server.stop()
    after = server.stats().outcomes
    since = {name: after[name] - before[name] for name in after}
    tell(f"stopped: {drained(since)}; port {port} is free; {after['ok']} answered since the start")


def drained(ended: Mapping[str, int]) -> str:
    """Say in words how the requests `ended` that a stop found, by their number for each outcome."""
    others = [f"{ended[name]} {word}" for name, word in ENDS.items() if ended[name]]
    many = "request" if ended["ok"] == 1 else "requests"
    first = f"{ended['ok']} {many} drained"
    return ", ".join([first, *(others or ["0 rejected"])])
