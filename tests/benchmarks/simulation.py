"""Cost of a simulated request: ``python -m tests.benchmarks.simulation [REQUESTS]``.

Measures the CPU seconds for a number of requests (a million by default) of log-normal length under
two policies, each at 80% of its capacity. Then simulates the same queue here, in simpy and in ciw:
Poisson arrivals, one server, one request at a time, constant or exponential service times. A
quarter as many requests run in turn in each of several rounds, and the mean latency must agree with
queueing theory. This package runs twice, the second time with a queue limit that is never reached:
without a limit the simulator leaves some events out. Needs the extra ``bench``. Run nothing else
meanwhile.
"""

from __future__ import annotations

import gc
import json
import math
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Generator, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

import ciw  # type: ignore[import-not-found,import-untyped,unused-ignore]
import simpy  # type: ignore[import-not-found,unused-ignore]

from notebook_serve import CostModel, Greedy, LengthAware, NoBatching, Policy, simulate
from notebook_serve.traffic import LogNormal, Poisson

ROUNDS = 3
#: utilisation with one request at a time and a mean service time of one second
LOAD = 0.8
COST = CostModel(fixed=0.008, per_token=0.0002)
LENGTHS = LogNormal(20, 0.8, high=128)

Latencies = Sequence[float]


def capacity(policy: Policy) -> float:
    """Return the answers per second of a policy at saturation."""
    return simulate(policy, [0.0] * 20_000, COST, lengths=LENGTHS, warmup=0.0, duration=60).goodput


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Return the CPU seconds of a call, and its result."""
    gc.collect()  # garbage of earlier calls does not count
    started = time.process_time()
    result = run()
    return time.process_time() - started, result


def policies(requests: int) -> dict[str, Any]:
    """Measure the seconds for a number of requests under each policy."""
    found = {}
    for policy in (Greedy(16), LengthAware(16)):
        rate = 0.8 * capacity(policy)
        seconds, report = timed(
            partial(simulate, policy, Poisson(rate, n=requests), COST, lengths=LENGTHS)
        )
        found[repr(policy)] = {
            "offered_per_second": round(rate, 1),
            "seconds": round(seconds, 3),
            "microseconds_per_request": round(seconds / requests * 1e6, 3),
            "mean_batch_size": round(report.mean_batch_size, 2),
        }
    return found


def here(requests: int, exponential: bool, seed: int, **options: Any) -> Latencies:
    """Simulate the queue in this package; return the latencies."""
    draw = random.Random(seed)

    def cost(lengths: Sequence[int]) -> float:
        return draw.expovariate(1.0) if exponential else 1.0

    log = simulate(NoBatching(), Poisson(LOAD, seed=seed, n=requests), cost, **options).records
    return [end - at for at, end in zip(log.arrived, log.finished, strict=True)]


def in_simpy(requests: int, exponential: bool, seed: int) -> Latencies:
    """Simulate the queue in simpy: a process for each customer, and one resource."""
    draw = random.Random(seed)
    environment = simpy.Environment()
    server = simpy.Resource(environment)
    latencies = []

    def customer() -> Generator[Any, Any, None]:
        arrived = environment.now
        with server.request() as turn:
            yield turn
            yield environment.timeout(draw.expovariate(1.0) if exponential else 1.0)
        latencies.append(environment.now - arrived)

    def source() -> Generator[Any, Any, None]:
        for _ in range(requests):
            yield environment.timeout(draw.expovariate(LOAD))
            environment.process(customer())

    environment.process(source())
    environment.run()
    return latencies


def in_ciw(requests: int, exponential: bool, seed: int) -> Latencies:
    """Simulate the queue in ciw: a network of one node with one server."""
    service = ciw.dists.Exponential(1.0) if exponential else ciw.dists.Deterministic(1.0)
    network = ciw.create_network(
        arrival_distributions=[ciw.dists.Exponential(LOAD)],
        service_distributions=[service],
        number_of_servers=[1],
    )
    ciw.seed(seed)
    simulation = ciw.Simulation(network)
    simulation.simulate_until_max_customers(requests)
    return [record.exit_date - record.arrival_date for record in simulation.get_all_records()]


CANDIDATES: dict[str, Callable[[int, bool, int], Latencies]] = {
    "notebook_serve": here,
    "notebook_serve_limited": partial(here, max_queue_size=1e9),
    "simpy": in_simpy,
    "ciw": in_ciw,
}


def compare(requests: int, exponential: bool) -> dict[str, Any]:
    """Measure microseconds per request of each simulator, and their ratio to this package."""
    theory = 1 + LOAD / (1 - LOAD) * (1.0 if exponential else 0.5)
    seconds: dict[str, list[float]] = {name: [] for name in CANDIDATES}
    means: dict[str, list[float]] = {name: [] for name in CANDIDATES}
    for candidate in CANDIDATES.values():
        candidate(1000, exponential, 0)
    for number in range(ROUNDS):
        for name, candidate in CANDIDATES.items():
            took, latencies = timed(partial(candidate, requests, exponential, number))
            seconds[name].append(took)
            means[name].append(check_mean(name, latencies, theory))
    each = {name: statistics.median(took) / requests * 1e6 for name, took in seconds.items()}
    ours = seconds["notebook_serve"]
    return {
        "mean_latency_by_theory": round(theory, 3),
        "mean_latency": {name: round(statistics.fmean(found), 3) for name, found in means.items()},
        "microseconds_per_request": {name: round(took, 3) for name, took in each.items()},
        "times_ours": {
            name: [round(other / own, 1) for other, own in zip(took, ours, strict=True)]
            for name, took in seconds.items()
            if name != "notebook_serve"
        },
    }


def check_mean(name: str, latencies: Latencies, theory: float) -> float:
    """Return the mean after a warm-up of a tenth; fail at five standard errors from the theory."""
    kept = latencies[len(latencies) // 10 :]
    size = len(kept) // 20
    means = [statistics.fmean(kept[n * size : (n + 1) * size]) for n in range(20)]
    error = statistics.stdev(means) / math.sqrt(len(means))
    mean = statistics.fmean(kept)
    if abs(mean - theory) > 5 * error:
        raise SystemExit(f"{name}: the mean is {mean:.4f} ± {error:.4f}, by theory {theory:.4f}")
    return mean


def main() -> None:
    """Measure, and print the result as JSON."""
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    few = max(10_000, requests // 4)
    result: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {sys.version.split()[0]}",
        "versions": {name: version(name) for name in ("notebook-serve", "simpy", "ciw")},
        "requests": requests,
        "policies": policies(requests),
        "requests_beside_others": few,
        "deterministic_service": compare(few, exponential=False),
        "exponential_service": compare(few, exponential=True),
    }
    print(json.dumps(result, indent=2))  # noqa: T201


if __name__ == "__main__":
    main()
