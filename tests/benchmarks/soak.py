"""Every fault at random, for as long as you like: ``python -m tests.benchmarks.soak [SECONDS]``.

64 clients send good, poisoned, slow, large, deadly, malformed and abandoned requests over HTTP,
while the policy is swapped all the time and a dead worker is started again. Every request must be
answered, and rightly; from the second sample on memory, threads and sockets must not grow.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx
import psutil

from notebook_serve import Greedy, LengthAware, NoBatching, Server, Window, serve
from notebook_serve.testing import Faulty

CLIENTS = 64
POLICIES = (NoBatching(), Greedy(4), Greedy(16), Window(8, 0.002), LengthAware(16))
REFUSED = {503, 504}
#: what each kind of request may be answered with
RIGHT = {
    "good": {200} | REFUSED,
    "list": {200} | REFUSED,
    "poison": {500} | REFUSED,
    "miscount": {500} | REFUSED,
    "slow": {200} | REFUSED,
    "large": {500} | REFUSED,
    "death": REFUSED,
    "hasty": {200} | REFUSED,
    "malformed": {400} | REFUSED,
}


def shout(texts: list[str]) -> list[str]:
    """What the model does."""
    return [text.upper() for text in texts]


shout.length = len  # type: ignore[attr-defined]


@dataclass
class Soak:
    """What was sent, and what came back."""

    seed: int
    sent: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    samples: list[tuple[float, int, int]] = field(default_factory=list)

    def sample(self) -> None:
        """Note this process's memory (MB), threads and open files."""
        me = psutil.Process()
        self.samples.append((me.memory_info().rss / 1e6, me.num_threads(), me.num_fds()))


async def one_request(client: httpx.AsyncClient, url: str, rng: random.Random, soak: Soak) -> None:
    """Send a request of a random kind and check what comes back."""
    kinds = ["good"] * 20 + ["list"] * 3 + sorted(set(RIGHT) - {"good", "list", "death"})
    kind = "death" if rng.random() < 0.001 else rng.choice(kinds)
    text = f"{kind} {rng.randrange(10**6)} " + "x" * rng.randrange(100 if kind == "list" else 300)
    content: str | bytes = text + "x" * 20_000 if kind == "large" else text
    headers = {"X-Request-Timeout": "0.001"} if kind == "hasty" else {}
    if kind in ("list", "malformed"):
        headers["content-type"] = "application/json"
        content = json.dumps({"inputs": [text] * 3}) if kind == "list" else b'{"inputs": '
    soak.sent[kind] += 1
    if rng.random() < 0.05:
        soak.answered["abandoned"] += 1
        try:
            await asyncio.wait_for(client.post(url, content=content, headers=headers), 0.001)
        except asyncio.TimeoutError:
            return
        return
    response = await client.post(url, content=content, headers=headers)
    soak.answered[f"{kind} {response.status_code}"] += 1
    expected = [text.upper()] * 3 if kind == "list" else text.upper()
    right = response.status_code in RIGHT[kind]
    if response.status_code == 200:
        right = right and response.json() == expected
    if not right:
        soak.wrong.append(f"{kind}: {response.status_code} {response.text[:200]}")


async def disturb(server: Server, rng: random.Random, until: float, soak: Soak) -> None:
    """Swap the policy, start a dead worker again, and take samples."""
    every = max(0.1, (until - time.monotonic()) / 10)
    sampled = time.monotonic()
    while time.monotonic() < until:
        await asyncio.sleep(min(1.0, every))
        server.policy = rng.choice(POLICIES)
        if server.state == "dead":
            await asyncio.to_thread(server.start)
        if time.monotonic() - sampled >= every:
            sampled = time.monotonic()
            soak.sample()


async def run(server: Server, seconds: float, soak: Soak) -> None:
    """Load `server` for some seconds."""
    until = time.monotonic() + seconds
    limits = httpx.Limits(max_connections=CLIENTS)

    async def client_of(rng: random.Random, client: httpx.AsyncClient) -> None:
        while time.monotonic() < until:
            await one_request(client, server.url, rng, soak)

    async with httpx.AsyncClient(limits=limits, timeout=60) as client:
        rngs = [random.Random(soak.seed + n) for n in range(CLIENTS + 1)]
        await asyncio.gather(
            *(client_of(rng, client) for rng in rngs[1:]), disturb(server, rngs[0], until, soak)
        )


def soak(seconds: float, seed: int) -> tuple[Soak, Any]:
    """Run a soak on a server of its own; what came of it, and the server's last statistics."""
    model = Faulty(
        shout,
        fail_on="poison",
        miscount_on="miscount",
        slow_on="slow",
        seconds=0.02,
        out_of_memory_over=10_000,
        die_on="death",
    )
    made = Soak(seed)
    server = serve(model, port=0, timeout=5.0, max_queue_size=200, name="soak")
    try:
        asyncio.run(run(server, seconds, made))
        server.start()  # if the last of it was the worker's death
        assert server.predict("still there") == "STILL THERE"
    finally:
        server.stop()
    return made, server.stats()


def main() -> None:
    """Soak, and print what came of it as JSON."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 300.0
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(2**32)
    made, stats = soak(seconds, seed)
    result = {
        "seed": seed,
        "seconds": seconds,
        "sent": sum(made.sent.values()),
        "answered": sum(made.answered.values()),
        "by_status": dict(sorted(made.answered.items())),
        "wrong": made.wrong[:10],
        "memory_mb_threads_files": made.samples,
        "outcomes_since_the_last_start": dict(stats.outcomes),
    }
    print(json.dumps(result, indent=2))  # noqa: T201
    sys.exit(bool(made.wrong) or result["sent"] != result["answered"])


if __name__ == "__main__":
    main()
