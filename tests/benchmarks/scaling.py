"""What grows with what: ``python -m tests.benchmarks.scaling [ROUNDS]``.

- CPU seconds of the scheduler for each request, where 10 to 10,000 wait, under each policy; beside
  that at 10 waiting;
- CPU seconds of the whole server for each answer of a function that does nothing, for 1 to 1,000
  clients straight into the queue; beside that at 10 clients;
- CPU seconds of the simulator for each request, for 10^4 to 10^6 of them; beside that at 10^4.

A cost that does not grow has a ratio near one. Nothing else should run meanwhile. The result, the
medians of several rounds, goes to ``results/scaling.json``.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from notebook_serve import (
    BatchRecord,
    CostAware,
    CostModel,
    Greedy,
    LengthAware,
    Policy,
    Scheduler,
    serve,
    simulate,
)
from notebook_serve.queueing.jobs import Job
from notebook_serve.traffic import LogNormal, Poisson

RESULT = Path(__file__).parent / "results" / "scaling.json"
COST = CostModel(fixed=0.008, per_token=0.0002)
LENGTHS = LogNormal(22, 0.9, 4, 128)
POLICIES: dict[str, Callable[[], Policy]] = {
    "Greedy": Greedy,
    "LengthAware": LengthAware,
    "CostAware": CostAware,
}


def scheduling(make: Callable[[], Policy], waiting: int, requests: int = 5000) -> float:
    """CPU seconds of the scheduler for each request, where so many wait all the time."""
    lengths = LENGTHS.sample(waiting + requests + 1000)
    scheduler = Scheduler(make())
    number, now = 0, 0.0

    def offer(count: int) -> None:
        nonlocal number
        for _ in range(count):
            scheduler.offer(Job(number, now, lengths[number % len(lengths)], now + 1e6))
            number += 1

    offer(waiting)
    spent, done = 0.0, -1000  # the first teach a policy that learns
    while done < requests:
        begun = time.thread_time()
        batch = scheduler.poll(now)
        assert batch is not None
        taken = tuple(job.length for job in batch.jobs)
        seconds = COST(taken)
        now += seconds
        scheduler.finish(BatchRecord(batch.id, batch.reason, taken, now, seconds, batch.waiting, 0))
        offer(len(taken))
        if done >= 0:
            spent += time.thread_time() - begun
        done += len(taken)
    return spent / done


async def _asked(server: Any, clients: int, requests: int) -> None:
    left = iter(range(requests))

    async def client() -> None:
        for _ in left:
            await server.apredict(1)

    await asyncio.gather(*(client() for _ in range(clients)))


def serving(clients: int, requests: int = 5000) -> float:
    """CPU seconds of everything for each answer of a function that does nothing."""
    with serve(lambda xs: xs, port=0, name="scale", max_queue_size=2000) as server:
        asyncio.run(_asked(server, clients, 1000))
        begun = time.process_time()
        asyncio.run(_asked(server, clients, requests))
        return (time.process_time() - begun) / requests


def simulating(make: Callable[[], Policy], requests: int) -> float:
    """CPU seconds of the simulator for each request, at a load that it can take."""
    traffic = Poisson(60.0, n=requests)
    gc.collect()
    begun = time.process_time()
    simulate(make(), traffic, COST, lengths=LENGTHS)
    return (time.process_time() - begun) / requests


def measures() -> dict[str, dict[int, Callable[[], float]]]:
    """What is measured, by name and by size, the one to compare with first."""
    found: dict[str, dict[int, Callable[[], float]]] = {}
    for name, make in POLICIES.items():
        found[f"scheduling under {name}, by waiting"] = {
            waiting: partial(scheduling, make, waiting) for waiting in (10, 100, 1000, 10_000)
        }
    found["serving, by clients"] = {
        clients: partial(serving, clients) for clients in (10, 1, 100, 1000)
    }
    for name in ("Greedy", "LengthAware"):
        found[f"simulating {name}, by requests"] = {
            requests: partial(simulating, POLICIES[name], requests)
            for requests in (10**4, 10**5, 10**6)
        }
    return found


def main() -> None:
    """Measure, print and keep."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    raw: dict[str, dict[int, list[float]]] = {}
    for _ in range(rounds):
        for name, sizes in measures().items():
            for size, measure in sizes.items():
                raw.setdefault(name, {}).setdefault(size, []).append(measure())
    table = {
        name: {
            size: {
                "microseconds": round(1e6 * median(values), 1),
                "ratio": round(median(values) / median(next(iter(sizes.values()))), 2),
            }
            for size, values in sizes.items()
        }
        for name, sizes in raw.items()
    }
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}",
        "table": table,
        "rounds": raw,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(json.dumps(table, indent=1))  # noqa: T201


if __name__ == "__main__":
    main()
