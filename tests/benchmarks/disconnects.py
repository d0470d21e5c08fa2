"""Clients that connect, ask and leave: ``python -m tests.benchmarks.disconnects [CLIENTS]``.

While one forward runs, thousands of clients each send a complete request and hang up at once: one
after the other, or some hundred together; every other one in good order, the rest with a reset.
Those who find the queue full are refused, the others leave it. They must cost no forward, no
thread, no open file, and no memory but for their records, of which a server keeps the newest
10,000; so many are there before. The exit status is 1 if anything of that is not so.
"""

from __future__ import annotations

import gc
import json
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import httpx
import psutil

from notebook_serve import NoBatching, Server, serve
from notebook_serve.queueing.stats import KEEP_REQUESTS

from ..helpers.blocking_model import Gate, eventually

#: how many may wait; fewer than a burst, so that some are refused and not cancelled
QUEUE = 100
#: how many clients come before the server is let catch up
BURST = 200
#: what a record of one who left may hold that one of those before does not: a time of arrival that
#: it shares with nobody, and the client's address
BLOCKS_EACH = 2
#: blocks, of some hundred thousand, that may be there by chance at one moment and not at another
BLOCKS_SLACK = 2000
#: MB for that, and for the allocator's own ways
MEMORY_SLACK = 4.0
REQUEST = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nleft"
#: on close, discard what is unsent and send a reset
RESET = struct.pack("ii", 1, 0)


class Sample(NamedTuple):
    """What this process holds once so many clients have left."""

    left: int
    #: resident, in MB
    memory: float
    #: of memory, that Python has allocated for objects
    blocks: int
    threads: int
    files: int

    @classmethod
    def now(cls, left: int) -> Sample:
        """Look."""
        gc.collect()
        me = psutil.Process()
        memory = me.memory_info().rss / 1e6
        return cls(left, memory, sys.getallocatedblocks(), me.num_threads(), me.num_fds())


def cost(early: Sample, late: Sample) -> list[str]:
    """What those who left between two samples have cost, in words; nothing if all is well."""
    found = []
    if late.memory > early.memory + MEMORY_SLACK:
        found.append(f"{late.memory - early.memory:.1f} MB")
    blocks = late.blocks - early.blocks
    if blocks > (late.left - early.left) * BLOCKS_EACH + BLOCKS_SLACK:
        found.append(f"{blocks} blocks of memory")
    if late.threads > early.threads:
        found.append(f"{late.threads - early.threads} threads")
    if late.files > early.files:
        found.append(f"{late.files - early.files} open files")
    return found


@dataclass
class Departures:
    """What became of clients that left while a forward ran, and what they cost."""

    clients: int
    samples: list[Sample]
    #: how the requests ended in the server
    outcomes: Counter[str]
    #: what the model was called with
    calls: list[list[Any]]
    seconds: float

    def faults(self) -> list[str]:
        """All that is not as it must be: the first fifth is for warming up."""
        first, *rest = self.samples
        found = [
            f"{self.clients - first.left} clients cost {what}" for what in cost(first, rest[-1])
        ]
        counted = self.outcomes["cancelled"] + self.outcomes["rejected"]
        if counted != self.clients:
            found.append(f"{self.clients} clients left, and {counted} are accounted for")
        if self.calls != [["runs"], ["after"]]:
            found.append(f"the model was called with {self.calls[:10]}")
        return found


def ask(address: tuple[str, int], sent: bytes = REQUEST) -> socket.socket:
    """Connect, and send a request."""
    connection = socket.create_connection(address)
    connection.sendall(sent)
    return connection


def hang_up(connection: socket.socket, reset: bool) -> None:
    """Leave, in good order or with a reset."""
    if reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    connection.close()


def visit(server: Server, clients: int, together: bool) -> None:
    """Have some clients come and leave, one after the other or all together."""
    assert server._address is not None
    if together:
        # stats() sorts 10,000 records each time
        outcomes = server._engine._requests.recorder.outcomes
        refused = outcomes["rejected"] + clients - QUEUE
        connections = [ask(server._address) for _ in range(clients)]
        eventually(lambda: outcomes["rejected"] == refused, "the others are refused")
        for number, connection in enumerate(connections):
            hang_up(connection, reset=number % 2 == 0)
    else:
        for number in range(clients):
            hang_up(ask(server._address), reset=number % 2 == 0)


def fill(server: Server, gate: Gate) -> None:
    """Leave as many records as are ever kept, and open what a first client does."""
    gate.opened.set()
    for _ in range(KEEP_REQUESTS // QUEUE):
        server.predict(["fill"] * QUEUE)
    httpx.get(server.url + "/health").raise_for_status()
    gate.opened.clear()
    gate.begun.clear()
    gate.calls.clear()


def depart(clients: int) -> Departures:
    """Let `clients`, whole thousands, come and go at a server of its own while a forward runs."""
    gate = Gate()
    options: dict[str, Any] = {"max_queue_size": QUEUE, "timeout": 600.0, "port": 0}
    server = serve(gate, policy=NoBatching(), name="departures", **options)
    try:
        fill(server, gate)
        return _depart(server, gate, clients)
    finally:
        gate.opened.set()
        server.stop()


def _depart(server: Server, gate: Gate, clients: int) -> Departures:
    before = server.stats().outcomes
    running = server._engine.submit(["runs"], {})
    assert gate.begun.wait(30)
    samples, began = [], time.monotonic()
    for left in range(BURST, clients + 1, BURST):
        visit(server, BURST, together=left % (2 * BURST) == 0)
        _catch_up(server)
        if left % (clients // 5) == 0:
            _catch_up(server)  # once more, so that what ended just now is let go of
            samples.append(Sample.now(left))
    seconds = time.monotonic() - began
    gate.opened.set()
    assert running[0].result(30).value == "runs"
    assert server.predict("after") == "after"
    outcomes = Counter(server.stats().outcomes)
    outcomes.subtract(before)
    return Departures(clients, samples, outcomes, gate.calls, seconds)


def _catch_up(server: Server) -> None:
    """Wait until the server has noticed that everybody has gone."""
    # Connections are accepted in the order they were made: once this one is, all before it are.
    httpx.get(server.url + "/health").raise_for_status()
    http = server._listener._server.server_state  # type: ignore[union-attr]
    eventually(lambda: not http.connections and not http.tasks, "every connection is closed")
    eventually(lambda: len(server._engine._requests) == 1, "only what runs is open")


def as_lines(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Samples, each as it is printed."""
    return [{**sample._asdict(), "memory": round(sample.memory, 2)} for sample in samples]


def main() -> None:
    """Let them come and go, and print what it cost as JSON."""
    made = depart(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
    faults = made.faults()
    result = {
        "clients": made.clients,
        "seconds": round(made.seconds, 1),
        "outcomes": dict(made.outcomes),
        "calls_of_the_model": made.calls[:10],
        "samples": as_lines(made.samples),
        "faults": faults,
    }
    print(json.dumps(result, indent=2))  # noqa: T201
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
