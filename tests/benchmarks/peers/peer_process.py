"""A peer that runs, and who asks it."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.benchmarks.peers.client import TURNS, Client, Load, end, free_port
from tests.benchmarks.peers.setups import NO_SETTING, Peer, Setting
from tests.benchmarks.workload import inputs_of


class Asker:
    """Asks a running peer for texts of a kind."""

    def __init__(self, peer: Peer, process: subprocess.Popen[bytes], port: int) -> None:
        self._peer, self._process = peer, process
        self._url = f"http://127.0.0.1:{port}{peer.path}"

    def ready(self) -> None:
        """Wait until it answers."""
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
        """So many users."""
        return asyncio.run(self._client(kind).closed(clients, seconds, warmup, turns))

    def open(self, kind: str, rate: float, seconds: float, seed: int) -> Load:
        """Texts at a rate."""
        return asyncio.run(self._client(kind).open(rate, seconds, seed))

    def _client(self, kind: str) -> Client:
        bodies = [self._peer.body(text) for text in inputs_of(kind)]
        return Client(self._process.pid, self._url, bodies)


@contextmanager
def running(
    peer: Peer, setting: Setting = NO_SETTING, threads: int = 1, size: str = "small"
) -> Iterator[Asker]:
    """A peer that answers."""
    port = free_port()
    process = peer.start(port, setting, threads, size)
    try:
        asker = Asker(peer, process, port)
        asker.ready()
        yield asker
    finally:
        end(process)
