"""A running peer, and the load on it."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.benchmarks.peers.client import TURNS, Client, Load, end, free_port
from tests.benchmarks.peers.setups import NO_SETTING, Peer, Setting
from tests.benchmarks.workload import inputs_of


class PeerProcess:
    """A running peer, which can be loaded with texts of a kind."""

    def __init__(self, peer: Peer, process: subprocess.Popen[bytes], port: int) -> None:
        self._peer, self._process = peer, process
        self._url = f"http://127.0.0.1:{port}{peer.path}"

    def ready(self) -> None:
        """Wait until the peer answers."""
        asyncio.run(self._client("short").ready())

    def closed(
        self,
        kind: str,
        clients: int,
        seconds: float,
        *,
        warmup: float = 1.0,
        turns: int = TURNS,
    ) -> Load:
        """Load the peer in a closed loop with a number of clients."""
        return asyncio.run(self._client(kind).closed(clients, seconds, warmup, turns))

    def open(self, kind: str, rate: float, seconds: float, seed: int) -> Load:
        """Load the peer in an open loop with texts at a rate."""
        return asyncio.run(self._client(kind).open(rate, seconds, seed))

    def _client(self, kind: str) -> Client:
        bodies = [self._peer.body(text) for text in inputs_of(kind)]
        return Client(self._process.pid, self._url, bodies)


@contextmanager
def running(
    peer: Peer, setting: Setting = NO_SETTING, threads: int = 1, size: str = "small"
) -> Iterator[PeerProcess]:
    """Start a peer, and wait until it answers."""
    port = free_port()
    process = peer.start(port, setting, threads, size)
    try:
        running = PeerProcess(peer, process, port)
        running.ready()
        yield running
    finally:
        end(process)
