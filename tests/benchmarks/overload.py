"""Goodput under overload: ``python -m tests.benchmarks.overload [SECONDS]``.

A model of known cost sleeps 80 ms per batch and 20 ms per request, so batches of 16 make 40/s. It
gets its capacity and then three times that over HTTP, open loop, from another process. Each request
has a timeout of two seconds; goodput is answers within that time, per second. Then the same
overload meets a queue that admits every request, and such a queue whose policy drops jobs that
waited too long. Latency counts from the scheduled send time.
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
    """Sleep for the cost of the batch."""
    time.sleep(0.080 + 0.020 * len(inputs))
    return inputs


def resident() -> int:
    """Return the memory of this process in bytes."""
    return int(psutil.Process().memory_info().rss)


def offer(rate: float, seconds: float, **options: Any) -> dict[str, Any]:
    """Serve, load from another process, and return the figures."""
    options = {"policy": Greedy(16), **options}
    server = serve(model, port=0, timeout=DEADLINE, name="overload", **options)
    code = f"from tests.benchmarks.overload import send; send({server.url!r}, {rate}, {seconds})"
    for _ in range(20):
        server.predict("warm")  # warm-up of the cost model and the memory
    before = resident()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    grown = resident() - before
    server.stop()
    sent = json.loads(done.stdout)
    good = [late for status, late in sent if status == 200 and late <= DEADLINE]
    rejected = sorted(late for status, late in sent if status == 503)
    return {
        "offered_per_second": round(len(sent) / seconds, 1),
        "goodput_per_second": round(len(good) / seconds, 1),
        "status": {code: sum(s == code for s, _ in sent) for code in sorted({s for s, _ in sent})},
        "rejection_p99_ms": round(rejected[int(0.99 * len(rejected))] * 1e3, 1)
        if rejected
        else None,
        "memory_grown_mb": round(grown / 1e6, 1),
    }


def send(url: str, rate: float, seconds: float) -> None:
    """Post at a constant rate, independently of answers; print each status and its lateness."""
    asyncio.run(_send(url, rate, seconds))


async def _send(url: str, rate: float, seconds: float) -> None:
    async def one(client: httpx.AsyncClient, meant: float) -> tuple[int, float]:
        await asyncio.sleep(meant - time.perf_counter())
        status = (await client.post(url, content="x")).status_code
        return status, time.perf_counter() - meant

    # A pool searches its idle connections for every request: many small pools are faster.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with AsyncExitStack() as stack:
        # Certificates take long to load and are not needed here.
        pools = [httpx.AsyncClient(limits=limits, timeout=60, verify=False) for _ in range(32)]
        for pool in pools:
            await stack.enter_async_context(pool)
        started = time.perf_counter() + 0.5
        meant = [started + n / rate for n in range(int(rate * seconds))]
        sent = [one(pools[n % len(pools)], at) for n, at in enumerate(meant)]
        print(json.dumps(await asyncio.gather(*sent)))  # noqa: T201


def main() -> None:
    """Run all overloads, and print the result as JSON."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    unbounded: dict[str, Any] = {"refuse_late": False, "max_queue_size": 10_000_000}
    result: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {sys.version.split()[0]}",
        "seconds": seconds,
        "capacity_per_second": round(CAPACITY, 1),
        "at_capacity": offer(CAPACITY, seconds),
        "at_three_times": offer(3 * CAPACITY, seconds),
        "at_three_times_admitting_all": offer(3 * CAPACITY, seconds, **unbounded),
        "at_three_times_under_codel": offer(
            3 * CAPACITY, seconds, policy=CoDel(Greedy(16), 0.5, 1.0), **unbounded
        ),
    }
    goodput = "goodput_per_second"
    result["ratio"] = round(result["at_three_times"][goodput] / result["at_capacity"][goodput], 3)
    print(json.dumps(result, indent=2))  # noqa: T201


if __name__ == "__main__":
    main()
