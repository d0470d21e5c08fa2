"""Calls of the package for one text request: ``python -m tests.generate.request_trace [--calls]``.

Serves a function model that has a ``length`` (over httptools, which the extra ``test`` installs),
sends warm-up requests, and profiles one more `POST /` with a plain text: every call of a function
of the package, on any thread. Steps of generators and resumptions of coroutines are calls too, as
they are for a profiler. Each of several requests is traced until all threads rest. The usual one is
kept: during some of them the web server's timer ticks, once a second.

A call goes back up if a function calls one of a file above its own, with no frame of another
package between the two. Above means: its room may import the caller's room (by the import table,
directly or through other rooms) or, in the same room, its file imports the caller's file. A call
through a future's callback or the event loop is thus no call back up.
"""

from __future__ import annotations

import http.client
import json
import socket
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from types import FrameType
from typing import Any, NamedTuple

from notebook_serve import Server, serve

from ..helpers.imports import OWN, Package, room, rooms_below

WARMUP, TRACED = 20, 9
#: seconds without a call after which a request is over on every thread
QUIET = 0.1
REQUEST = (
    b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\n"
    b"a text"
)


class Call(NamedTuple):
    """A function of the package that was called."""

    thread: str
    module: str
    name: str
    line: int
    #: the module and name of the calling function, if that is of the package too
    caller: str | None
    caller_name: str

    @property
    def functions(self) -> tuple[str, str]:
        """Caller and callee."""
        return f"{self.caller}.{self.caller_name}", f"{self.module}.{self.name}"

    def __str__(self) -> str:
        caller, callee = self.functions
        back = f"  <- {caller}" if self.caller else ""
        return f"{self.thread:>10}  {callee}:{self.line}{back}"


class Profile:
    """Calls of the package, as they happen."""

    def __init__(self, package: Package = OWN) -> None:
        self.calls: list[Call] = []
        self.recording = False
        self._package = package
        self._modules: dict[str, str | None] = {}

    def hook(self, frame: FrameType, event: str, argument: object) -> None:
        """Record a call; a function for `threading.setprofile`."""
        if event != "call" or not self.recording:
            return
        module = self._module(frame)
        if module is not None:
            code, back = frame.f_code, frame.f_back
            thread = threading.current_thread().name.rpartition(" ")[2]
            caller = None if back is None else self._module(back)
            function = "" if back is None else back.f_code.co_name
            line = frame.f_lineno
            self.calls.append(Call(thread, module, code.co_name, line, caller, function))

    def _module(self, frame: FrameType) -> str | None:
        path = frame.f_code.co_filename
        if path not in self._modules:
            self._modules[path] = self._package.module_of(path)
        return self._modules[path]


class Counts(NamedTuple):
    """Figures of one traced request."""

    calls: int
    files: int
    changes_of_file: int
    threads: int
    changes_of_thread: int
    #: pairs of functions, of which one calls another in a room above its own
    back_up: int
    #: the same inside a room, where the caller's file is imported by the other's
    back_up_in_room: int


def is_back_up(call: Call) -> bool:
    """Return True for a call from a room to one above it."""
    own, caller = room(call.module), room(call.caller or call.module)
    return own != caller and caller in rooms_below(own)


def is_back_up_in_room(call: Call, package: Package = OWN) -> bool:
    """Return True for a call, inside one room, from a file to one that imports it."""
    if call.caller is None or room(call.module) != room(call.caller):
        return False
    if call.name == "<genexpr>":  # an argument of the caller, which is not called back
        return False
    return call.module != call.caller and call.caller in package.reachable[call.module]


def count(calls: Sequence[Call]) -> Counts:
    """Count a request's calls."""
    return Counts(
        calls=len(calls),
        files=len({call.module for call in calls}),
        changes_of_file=sum(one.module != other.module for one, other in pairwise(calls)),
        threads=len({call.thread for call in calls}),
        changes_of_thread=sum(one.thread != other.thread for one, other in pairwise(calls)),
        back_up=len({call.functions for call in calls if is_back_up(call)}),
        back_up_in_room=len({call.functions for call in calls if is_back_up_in_room(call)}),
    )


def echo(inputs: list[str]) -> list[str]:
    """Return the inputs; the model of the trace."""
    return inputs


@contextmanager
def profiled_server(profile: Profile) -> Iterator[Server]:
    """Serve `echo` on threads that are profiled."""
    model: Any = echo
    model.length = len
    threading.setprofile(profile.hook)
    try:
        with serve(model, port=0, name="trace") as server:
            yield server
    finally:
        threading.setprofile(None)


def trace() -> list[Call]:
    """Return the calls of one request after warm-up requests: the usual of several traces."""
    profile, traces = Profile(), []
    with profiled_server(profile) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            for _ in range(WARMUP):
                post(connection)
            for _ in range(TRACED):
                wait_for_rest(profile.calls)
                profile.calls, profile.recording = [], True
                post(connection)
                wait_for_rest(profile.calls)
                profile.recording = False
                traces.append(profile.calls)
    usual = statistics.mode(map(len, traces))
    return next(calls for calls in traces if len(calls) == usual)


def post(connection: socket.socket) -> None:
    """Send a plain text in one segment, and check the answer."""
    connection.sendall(REQUEST)
    response = http.client.HTTPResponse(connection)
    response.begin()
    if (answer := response.read()) != b'"a text"':
        raise RuntimeError(f"the server answered {answer!r}")


def wait_for_rest(calls: Sequence[Call]) -> None:
    """Wait until no thread calls anything."""
    seen = -1
    while seen != len(calls):
        seen = len(calls)
        time.sleep(QUIET)


def main() -> None:
    """Print the figures as JSON, or every call."""
    calls = trace()
    if "--calls" in sys.argv[1:]:
        for call in calls:
            mark = "UP" if is_back_up(call) else "up" if is_back_up_in_room(call) else "  "
            print(mark, call)  # noqa: T201
    print(json.dumps(count(calls)._asdict()))  # noqa: T201


if __name__ == "__main__":
    main()
