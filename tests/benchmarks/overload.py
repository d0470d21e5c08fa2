"""Goodput under overload: ``python -m tests.benchmarks.overload [SECONDS]``.

A model of known cost (it sleeps: 80 ms a batch and 20 ms a request, so 16 at once make 40/s)
is offered its capacity and then three times that over HTTP, open loop, from another process; each
request has two seconds. Goodput is answers within them, per second. Then the same overload on a
queue that refuses nobody at the door, and on one that does not but whose policy gives up what has
waited too long. Latency counts from the time a request was meant to be sent.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from typing import Any

import httpx
import psutil

from notebook_serve import CoDel, Greedy, serve

CAPACITY = 16 / (0.080 + 16 * 0.020)
DEADLINE = 2.0


def model(inputs: list[str]) -> list[str]:
    """Take the time that the module says."""
    time.sleep(0.080 + 0.020 * len(inputs))
    return inputs


def resident() -> int:
    """This process's memory in bytes."""
    return int(psutil.Process().memory_info().rss)


def offer(rate: float, seconds: float, **options: Any) -> dict[str, Any]:
    """Serve, load from another process, and say what came of it."""
    options = {"policy": Greedy(16), **options}
    server = serve(model, port=0, timeout=DEADLINE, name="overload", **options)
    code = f"from tests.benchmarks.overload import send; send({server.url!r}, {rate}, {seconds})"
    for _ in range(20):
        server.predict("warm")  # so that the cost is known, and the memory is what it will be
    before = resident()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    grown = resident() - before
    server.stop()
    sent = json.loads(done.stdout)
    good = [late for status, late in sent if status == 200 and late <= DEADLINE]
    refused = sorted(late for status, late in sent if status == 503)
    return {
        "offered_per_second": round(len(sent) / seconds, 1),
        "goodput_per_second": round(len(good) / seconds, 1),
        "status": {code: sum(s == code for s, _ in sent) for code in sorted({s for s, _ in sent})},
        "refusal_p99_ms": round(refused[int(0.99 * len(refused))] * 1e3, 1) if refused else None,
        "memory_grown_mb": round(grown / 1e6, 1),
    }


def send(url: str, rate: float, seconds: float) -> None:
    """Post at a constant rate, whatever the answers; print each status and its lateness."""
    asyncio.run(_send(url, rate, seconds))


async def _send(url: str, rate: float, seconds: float) -> None:
    async def one(client: httpx.AsyncClient, meant: float) -> tuple[int, float]:
        await asyncio.sleep(meant - time.perf_counter())
        status = (await client.post(url, content="x")).status_code
        return status, time.perf_counter() - meant

    # A pool looks at each of its idle connections for every request: many small ones are quicker.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with AsyncExitStack() as stack:
        # Certificates take long to read, and there are none here.
        pools = [httpx.AsyncClient(limits=limits, timeout=60, verify=False) for _ in range(32)]
        for pool in pools:
            await stack.enter_async_context(pool)
        started = time.perf_counter() + 0.5
        meant = [started + n / rate for n in range(int(rate * seconds))]
        sent = [one(pools[n % len(pools)], at) for n, at in enumerate(meant)]
        print(json.dumps(await asyncio.gather(*sent)))  # noqa: T201


def main() -> None:
    """Run the three, and print the result as JSON."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    unbounded: dict[str, Any] = {"refuse_late": False, "max_queue_size": 10_000_000}
    result: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {sys.version.split()[0]}",
        "seconds": seconds,
        "capacity_per_second": round(CAPACITY, 1),
        "at_capacity": offer(CAPACITY, seconds),
        "at_three_times": offer(3 * CAPACITY, seconds),
        "at_three_times_refusing_nobody": offer(3 * CAPACITY, seconds, **unbounded),
        "at_three_times_under_codel": offer(
            3 * CAPACITY, seconds, policy=CoDel(Greedy(16), 0.5, 1.0), **unbounded
        ),
    }
    goodput = "goodput_per_second"
    result["ratio"] = round(result["at_three_times"][goodput] / result["at_capacity"][goodput], 3)
    print(json.dumps(result, indent=2))  # noqa: T201


if __name__ == "__main__":
    main()
