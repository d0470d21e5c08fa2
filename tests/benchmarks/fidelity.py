"""Simulated against measured: ``python -m tests.benchmarks.fidelity [SECONDS] [ROUNDS] [FILE]``.

Serves a BERT classifier of 6 layers and 384 units (random weights, one torch thread) in this
process and loads its queue, open loop: four policies, at 50, 80 and 120% of the capacity without
batching, on texts of log-normal length. Simulates the same arrivals with a cost model that is
fitted to *other* traffic, just before and just after each run, with other lengths and under
``LengthAware(16)``. That traffic has a swing from almost idle to twice the capacity and back, which
separates the terms, and a steady part at about the run's load, with batches of a similar size.

The speed of a shared machine changes by 10% and more within 20 seconds, and a queue at 80% of its
capacity magnifies that five times. Probes measure the speed: short texts of one length, four per
second, in separate batches through the same queue. Their time during the run, divided by the time
of probes in the traffic around it, is the slowdown of the simulated machine. The simulation has
probes too; they are left out of the comparison. A simulated figure is the median of several
simulations, because noise is random; every row is the median of several rounds. If the simulated
capacity of a policy is below the load, its latencies depend on the length of the run, and only the
throughput is compared.

At the end of each round a new server serves the traffic of 120% under ``LengthAware``, predicts
``what_if(NoBatching())``, and then serves the same traffic without batching; this runs twice. The
table goes to FILE, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
import time
from bisect import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import fmean, median
from typing import Any

from notebook_serve import (
    BatchRecord,
    CostModel,
    Greedy,
    LengthAware,
    NoBatching,
    Policy,
    Report,
    RequestRecord,
    Server,
    Window,
    aload_test,
    load_test,
    serve,
    simulate,
)
from notebook_serve.queueing.record_log import RequestLog
from notebook_serve.simulation.overheads import with_overheads
from notebook_serve.traffic import LogNormal, Poisson, Ramp, Trace, Traffic, texts
from tests.benchmarks.workload import classifier, machine

LOADS = (0.5, 0.8, 1.2)
SIMULATIONS = 9
#: comparisons with `what_if` in each round
QUESTIONS = 2
#: probes per second, in a run and in the other traffic, and their number of words
PROBES, MORE_PROBES, PROBE = 4.0, 10.0, 14
#: seconds over which probes are averaged
SMOOTH = 0.5
#: fewest probes that measure the speed; with large batches several often share one
FEW = 40
#: lengths of the swing and of the steady part on each side of a run, as shares of its seconds
SWING, STEADY = 0.1, 0.2
POLICIES: tuple[Policy, ...] = (NoBatching(), Window(), Greedy(), LengthAware())
#: lengths in words; a tokenizer adds two
LENGTHS = LogNormal(12, 0.8, 4, 120)
OTHER = LogNormal(20, 1.0, 4, 110, seed=2)
RESULT = Path(__file__).parent / "results" / "fidelity.json"


@dataclass
class Other:
    """Records of other traffic."""

    batches: list[BatchRecord]
    requests: list[RequestRecord]
    probes: Report
    #: lateness of the load generator, which is part of latencies and not of the server's records
    lateness: float

    def __add__(self, more: Other) -> Other:
        late = (self.lateness + more.lateness) / 2
        batches, requests = self.batches + more.batches, self.requests + more.requests
        return Other(batches, requests, self.probes, late)

    def cost(self) -> CostModel:
        """Fit a cost model as `Server.fit_cost` does, and add the lateness of the generator."""
        cost = with_overheads(CostModel.fit(self.batches), self.requests, self.batches)
        return replace(cost, handling=cost.handling + self.lateness)


@dataclass
class Speed:
    """Slowdown of the machine, by the probes of a run and those around it."""

    #: seconds from the start of the run, in order, and logarithms of the slowdown
    seen: list[tuple[float, float]]

    def __call__(self, now: float) -> float:
        """Return the mean of the probes, weighted by nearness in time; 1 if there are too few."""
        if len(self.seen) < FEW:
            return 1.0
        # The weight of a probe beyond six times `SMOOTH` is negligible.
        first, last = (bisect(self.seen, (now + side * 6 * SMOOTH,)) for side in (-1, 1))
        near = self.seen[first:last] or self.seen
        weights = [math.exp(-(((now - at) / SMOOTH) ** 2) / 2) + 1e-9 for at, _ in near]
        pairs = zip(weights, near, strict=True)
        return math.exp(sum(weight * value for weight, (_, value) in pairs) / sum(weights))


@dataclass
class Run:
    """A run of one policy under one load, with the reports of the traffic and of the probes."""

    policy: Policy
    load: float
    rate: float
    report: Report
    probes: Report
    speed: Speed
    limits: dict[str, Any]
    #: cost model of the other traffic around the run
    cost: CostModel
    #: ratio of the seconds of its batches to the prediction by `cost` and `speed`; in the table it
    #: separates errors of the cost model from errors of the simulator
    level: float


def swing(server: Server, seconds: float) -> Other:
    """Send traffic from 5 requests per second to 100 and back, with probes."""
    return other_traffic(server, Ramp(5, 100, period=seconds, seed=1), seconds)


def steady(server: Server, cost: CostModel, load: float, seconds: float, seed: int) -> Other:
    """Send traffic that would keep the worker busy for a share `load` without batching."""
    rate = (load - MORE_PROBES * cost((PROBE + 2,))) / alone(cost, OTHER)
    return other_traffic(server, Poisson(max(1.0, rate), seed=seed), seconds)


def alone(cost: CostModel, lengths: LogNormal) -> float:
    """Return the mean seconds of a text of these lengths in a batch of one."""
    return fmean(cost((length + 2,)) for length in lengths.sample(1000))


def other_traffic(server: Server, traffic: Traffic, seconds: float) -> Other:
    """Send texts of other lengths, with probes; return their records."""
    server.policy = LengthAware(16)
    batches = {batch.id for batch in server.batches()}
    requests = {request.id for request in server.records()}
    inputs = texts(OTHER, 500, seed=1)
    report, probes = asyncio.run(with_probes(server, inputs, traffic, MORE_PROBES, seconds))
    assert report.lateness is not None
    return Other(
        [batch for batch in server.batches() if batch.id not in batches],
        [request for request in server.records() if request.id not in requests],
        probes,
        report.lateness.p50,
    )


async def with_probes(
    server: Server, inputs: Sequence[str], traffic: Traffic, probes: float, seconds: float
) -> tuple[Report, Report]:
    """Send traffic, and a number of probes per second to the same queue; return both reports."""
    return await asyncio.gather(
        aload_test(server, inputs, traffic=traffic, duration=seconds, progress=False),
        aload_test(
            server,
            texts(PROBE, 200, seed=7),
            traffic=Poisson(probes, seed=8),
            duration=seconds,
            parameters={"top_k": 1},  # so that no probe shares a batch with others
            progress=False,
        ),
    )


def seconds_of(
    probes: Report, batches: Sequence[BatchRecord], arrivals: Sequence[float], cost: CostModel
) -> list[tuple[float, float]]:
    """Return the start of each probe in a batch of one, and the logarithm of its seconds.

    The cost of arrivals during the batch is subtracted: it is a term of the cost model.
    """
    ids = set(probes.records.batch_id)
    found = []
    for batch in batches:
        if batch.id in ids and batch.size == 1:
            end = batch.started + batch.seconds
            came = bisect(arrivals, end) - bisect(arrivals, batch.started)
            found.append((batch.started, math.log(batch.seconds - cost.per_arrival * came)))
    return found


def one_round(server: Server, seconds: float, seed: int) -> list[Run]:
    """Run each policy under each load, with other traffic before and after."""
    inputs = texts(LENGTHS, 1000, seed=3)
    runs: list[Run] = []
    for load, policy in product(LOADS, POLICIES):
        swung = swing(server, SWING * seconds)
        cost = swung.cost()
        before = steady(server, cost, load, STEADY * seconds, seed + 100)
        cost = (swung + before).cost()
        rate = (load - PROBES * cost((PROBE + 2,))) / alone(cost, LENGTHS)
        server.policy = policy
        asked = with_probes(server, inputs, Poisson(rate, seed=seed), PROBES, seconds)
        begun = time.monotonic()
        report, probes = asyncio.run(asked)
        after = steady(server, cost, load, STEADY * seconds, seed + 200)
        cost = (swung + before + after + swing(server, SWING * seconds)).cost()
        about = sorted(request.arrived for request in server.records()), cost
        seen = seconds_of(probes, server.batches(), *about)
        usual = [seconds_of(other.probes, other.batches, *about) for other in (before, after)]
        normal = fmean(fmean(value for _, value in found) for found in usual)
        speed = Speed(sorted((at - begun, value - normal) for at, value in seen))
        ran = [batch for batch in server.batches() if begun <= batch.started < begun + seconds]
        took = sum(batch.seconds for batch in ran)
        expected = sum(cost(batch.lengths) * speed(batch.started - begun) for batch in ran)
        level = took / expected
        runs.append(Run(policy, load, rate, report, probes, speed, server.limits, cost, level))
    return runs


def simulated(run: Run, seconds: float, seed: int) -> Report:
    """Simulate the same arrivals, including the probes; return the report of the traffic alone."""
    came = sorted(
        (arrived, length, group)
        for group, report in (("", run.report), ("probe", run.probes))
        for arrived, length in zip(report.records.arrived, report.records.length, strict=True)
    )
    times, lengths, groups = zip(*came, strict=True)
    report = simulate(
        run.policy,
        Trace(times),
        run.cost,
        lengths=lengths,
        groups=groups,
        duration=seconds,
        noise=run.cost.noise,
        slowdown=run.speed,
        seed=seed,
        **run.limits,
    )
    traffic = RequestLog.of(record for record in report.records if not record.group)
    return replace(report, records=traffic)


def compare_run(run: Run, seconds: float) -> dict[str, Any]:
    """Compare a run with its simulations."""
    cost, ran = run.cost, run.report
    simulations = [simulated(run, seconds, seed) for seed in range(SIMULATIONS)]
    lengths = ran.records.length
    swamped = simulate(run.policy, Poisson(5 * run.rate), cost, lengths=lengths, duration=60.0)
    row: dict[str, Any] = {
        "policy": repr(run.policy),
        "load": run.load,
        "rate": run.rate,
        "capacity": swamped.throughput * (1 - PROBES * cost((PROBE + 2,))),
        "cost_error": cost.error,
        "level": run.level,
        "autocorrelation": cost.autocorrelation,
        "correlation_time": cost.correlation_time,
        "turnaround_ms": cost.turnaround * 1e3,
        "handling_ms": cost.handling * 1e3,
        "per_arrival_ms": cost.per_arrival * 1e3,
        "refused": [
            ran.outcomes["rejected"],
            median(report.outcomes["rejected"] for report in simulations),
        ],
    }
    for name, value in MEASURES.items():
        row[name] = [value(ran), median(map(value, simulations))]
        row[f"{name}_off"] = row[name][1] / row[name][0] - 1
    return row


#: figures that are compared
MEASURES: dict[str, Callable[[Report], float]] = {
    "throughput": lambda report: report.throughput,
    "p50_ms": lambda report: report.latency.p50 * 1e3,
    "p95_ms": lambda report: report.latency.p95 * 1e3,
}


def middle(values: Sequence[Any]) -> Any:
    """Return the median of numbers, or of each place of lists; texts are all the same."""
    if isinstance(values[0], str):
        return values[0]
    if isinstance(values[0], list):
        return [middle(each) for each in zip(*values, strict=True)]
    return round(median(values), 3)


def fits(row: dict[str, Any]) -> bool:
    """Return True if throughput is within 10% and, below saturation, latencies within 20%."""
    if abs(row["throughput_off"]) > 0.1:
        return False
    beyond = row["rate"] > row["capacity"]
    return bool(beyond) or max(abs(row["p50_ms_off"]), abs(row["p95_ms_off"])) <= 0.2


def compare_what_if(server: Server, rate: float, seconds: float, seed: int) -> dict[str, float]:
    """Compare ``what_if(NoBatching())`` after a run under `LengthAware` with a real run."""
    server.stop()
    server.start()  # so that `what_if` sees only the records of this run
    inputs, traffic = texts(LENGTHS, 1000, seed=3), Poisson(rate, seed=seed)
    server.policy = LengthAware()
    load_test(server, inputs, traffic=traffic, duration=seconds, progress=False)
    predicted = server.what_if(NoBatching()).throughput
    server.policy = NoBatching()
    ran = load_test(server, inputs, traffic=traffic, duration=seconds, progress=False).throughput
    return {"measured": ran, "predicted": predicted, "off": predicted / ran - 1}


def measure(server: Server, seconds: float, rounds: int) -> dict[str, Any]:
    """Measure all rounds; return their medians, and each round."""
    tables, questions = [], []
    for number in range(rounds):
        runs = one_round(server, seconds, seed=4 + number)
        tables.append([compare_run(run, seconds) for run in runs])
        print([(row["p50_ms_off"], row["p95_ms_off"]) for row in tables[-1]], file=sys.stderr)  # noqa: T201
        for _ in range(QUESTIONS):
            questions.append(compare_what_if(server, runs[-1].rate, seconds, seed=4 + number))
            print(f"round {number + 1} of {rounds}", questions[-1], file=sys.stderr)  # noqa: T201
    rows = [
        {name: middle([each[name] for each in same]) for name in same[0]}
        for same in zip(*tables, strict=True)
    ]
    what_if = {name: middle([each[name] for each in questions]) for name in questions[0]}
    return {
        "fits": sum(map(fits, rows)),
        "rows": rows,
        "what_if": {**what_if, "each": [round(each["off"], 3) for each in questions]},
        "rounds": [[fits(row) for row in table] for table in tables],
        "each": {
            name: [[round(row[name], 3) for row in table] for table in tables]
            for name in ("throughput_off", "p50_ms_off", "p95_ms_off")
        },
    }


def main() -> None:
    """Measure; print and keep the table."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 20.0
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    with serve(loader=classifier, port=0, name="fidelity") as server:
        server.wait_ready()
        swing(server, 3.0)  # the first forward passes are slow
        result: dict[str, Any] = {
            "machine": machine(),
            "seconds": seconds,
            **measure(server, seconds, rounds),
        }
    text = json.dumps(result, indent=1)
    print(text)  # noqa: T201
    path = Path(sys.argv[3]) if len(sys.argv) > 3 else RESULT
    path.parent.mkdir(exist_ok=True)
    path.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
