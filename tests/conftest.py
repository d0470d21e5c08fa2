"""Fixtures of all tests: no network, a check for leaked threads and sockets, and servers."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator

import httpx
import psutil
import pytest
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

from notebook_serve import Server, serve, stop_all

# The time of an example depends on the load of the machine.
settings.register_profile("notebook_serve", deadline=None)
settings.load_profile("notebook_serve")


def listening() -> set[int]:
    """Return the ports that this process listens on."""
    connections = psutil.Process().net_connections(kind="tcp")
    return {item.laddr.port for item in connections if item.status == psutil.CONN_LISTEN}


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """Fail a test that leaves a thread or a listening socket, showing where the thread is."""
    threads, ports = set(threading.enumerate()), listening()
    yield
    stop_all(drain=False)
    left = [item for item in threading.enumerate() if item not in threads and item.is_alive()]
    # A thread that is about to end may need a moment.
    deadline = time.monotonic() + 10
    for item in left:
        item.join(max(0.0, deadline - time.monotonic()))
    left = [item for item in left if item.is_alive()]
    stacks = [
        f"{item.name}:\n" + "".join(traceback.format_stack(sys._current_frames()[item.ident]))
        for item in left
        if item.ident in sys._current_frames()
    ]
    assert not left, "threads left behind:\n" + "\n".join(stacks)
    assert listening() <= ports, f"sockets left listening: {listening() - ports}"
    # It changes asyncio for every later test: apply it in a separate process.
    assert not hasattr(asyncio, "_nest_patched"), "nest_asyncio was applied in this process"


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    """A client that keeps its connections."""
    with httpx.Client(timeout=30) as client:
        yield client


@pytest.fixture
def one_torch_thread() -> Iterator[None]:
    """Set one torch thread: results must not depend on free cores, and more threads are slower."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make() -> Iterator[Callable[..., Server]]:
    """Return `serve` on any free port; its servers are stopped at the end."""
    made: list[Server] = []

    def make(*arguments: object, **options: object) -> Server:
        options.setdefault("port", 0)
        options.setdefault("name", f"test {len(made)}")
        server = serve(*arguments, **options)  # type: ignore[arg-type]
        made.append(server)
        return server

    yield make
    for server in made:
        server.stop(drain=False)
