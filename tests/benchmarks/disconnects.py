"""Clients that disconnect at once: ``python -m tests.benchmarks.disconnects [CLIENTS]``.

While one forward pass runs, thousands of clients each send a complete request and disconnect: one
after the other or 200 together, half of them with a reset. If the queue is full, the request is
rejected; otherwise it is cancelled. None may cost a forward pass, a thread, an open file or memory
other than its record. A server keeps the newest 10,000 records, and has as many at the start. The
exit status is 1 if one of these rules does not hold.
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

#: queue size; smaller than a burst, so that some requests are rejected instead of cancelled
QUEUE = 100
#: clients until the server gets time to catch up
BURST = 200
#: blocks of a record that an earlier record does not have: its own time of arrival, and the
#: client's address
BLOCKS_EACH = 2
#: random difference of two samples, of some hundred thousand blocks
BLOCKS_SLACK = 2000
#: MB of that difference, and of the allocator
MEMORY_SLACK = 4.0
REQUEST = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nleft"
#: on close, discard what is unsent and send a reset
RESET = struct.pack("ii", 1, 0)


class Sample(NamedTuple):
    """Resources of this process after a number of clients."""

    left: int
    #: resident, in MB
    memory: float
    #: blocks of memory that Python has allocated for objects
    blocks: int
    threads: int
    files: int

    @classmethod
    def now(cls, left: int) -> Sample:
        """Take a sample."""
        gc.collect()
        me = psutil.Process()
        memory = me.memory_info().rss / 1e6
        return cls(left, memory, sys.getallocatedblocks(), me.num_threads(), me.num_fds())


def cost(early: Sample, late: Sample) -> list[str]:
    """Return messages about growth between two samples; none if all is well."""
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
    """Results and cost of clients that disconnected during a forward pass."""

    clients: int
    samples: list[Sample]
    #: outcomes of the requests in the server
    outcomes: Counter[str]
    #: batches of the model
    calls: list[list[Any]]
    seconds: float

    def faults(self) -> list[str]:
        """Return the rules that do not hold; the first fifth is the warm-up."""
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
    """Close a connection, normally or with a reset."""
    if reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    connection.close()


def visit(server: Server, clients: int, together: bool) -> None:
    """Connect and disconnect some clients, one after the other or all together."""
    assert server._address is not None
    if together:
        # stats() sorts 10,000 records each time
        outcomes = server._engine.requests.recorder.outcomes
        rejected = outcomes["rejected"] + clients - QUEUE
        connections = [ask(server._address) for _ in range(clients)]
        eventually(lambda: outcomes["rejected"] == rejected, "the others are rejected")
        for number, connection in enumerate(connections):
            hang_up(connection, reset=number % 2 == 0)
    else:
        for number in range(clients):
            hang_up(ask(server._address), reset=number % 2 == 0)


def fill(server: Server, gate: Gate) -> None:
    """Fill the record log, and open the resources of a first client."""
    gate.opened.set()
    for _ in range(KEEP_REQUESTS // QUEUE):
        server.predict(["fill"] * QUEUE)
    httpx.get(server.url + "/health").raise_for_status()
    gate.opened.clear()
    gate.begun.clear()
    gate.calls.clear()


def depart(clients: int) -> Departures:
    """Disconnect `clients`, whole thousands, from a new server while a forward pass runs."""
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
            _catch_up(server)  # once more, so that the last requests are freed
            samples.append(Sample.now(left))
    seconds = time.monotonic() - began
    gate.opened.set()
    assert running[0].result(30).value == "runs"
    assert server.predict("after") == "after"
    outcomes = Counter(server.stats().outcomes)
    outcomes.subtract(before)
    return Departures(clients, samples, outcomes, gate.calls, seconds)


def _catch_up(server: Server) -> None:
    """Wait until the server has noticed all disconnects."""
    # Connections are accepted in the order they were made: once this one is, all before it are.
    httpx.get(server.url + "/health").raise_for_status()
    http = server._listener._server.server_state  # type: ignore[union-attr]
    eventually(lambda: not http.connections and not http.tasks, "every connection is closed")
    eventually(lambda: len(server._engine.requests) == 1, "only the running request is open")


def as_lines(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Return the samples in the form that is printed."""
    return [{**sample._asdict(), "memory": round(sample.memory, 2)} for sample in samples]


def main() -> None:
    """Disconnect the clients, and print the cost as JSON."""
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
