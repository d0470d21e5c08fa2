"""Simulated against measured: ``python -m tests.benchmarks.fidelity [SECONDS] [ROUNDS] [FILE]``.

A BERT classifier of 6 layers and 384 units (random weights, one torch thread) is served in this
process and loaded into its queue, open loop: four policies, at 50, 80 and 120% of what one request
at a time can do, on texts of log-normal length. The same arrivals are simulated, with a cost model
that was fitted to *other* traffic, just before and just after each run, of other lengths and under
``LengthAware(16)``: a swing from next to nothing to twice too much and back, which tells the terms
apart, and a steady part of about the run's load, whose batches are about as large as the run's.

The speed of a shared machine wanders, by 10% and more from one 20 seconds to the next, and a queue
at 80% of its capacity magnifies that five times. So a few probes (other traffic too: short texts of
one length, four a second, in batches of their own) go through the same queue during the run, and
how much longer or shorter they took than their like in the traffic around it is how slow or fast
the simulated machine is then. The simulation has them too; only the rest is compared.
A simulated figure is the median of several simulations, because how slow spells fall is chance, and
every row is the median of several rounds. Where a policy's capacity (what it answers when swamped,
simulated) is below the load, its latencies say how long the run was, and only the throughput is
compared.

At the end of each round, twice, a server that has served nothing else serves the traffic of
120% under ``LengthAware``, is asked ``what_if(NoBatching())``, and then really serves it so. The
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
#: how often each round asks what if
QUESTIONS = 2
#: probes a second, in a run and in the other traffic, and their words
PROBES, MORE_PROBES, PROBE = 4.0, 10.0, 14
#: seconds over which probes are averaged
SMOOTH = 0.5
#: fewer probes than this tell nothing; where batches are large, they often ride together
FEW = 40
#: the swing and the steady part before a run, and again after it, as shares of its seconds
SWING, STEADY = 0.1, 0.2
POLICIES: tuple[Policy, ...] = (NoBatching(), Window(), Greedy(), LengthAware())
#: in words; a tokenizer adds two
LENGTHS = LogNormal(12, 0.8, 4, 120)
OTHER = LogNormal(20, 1.0, 4, 110, seed=2)
RESULT = Path(__file__).parent / "results" / "fidelity.json"


@dataclass
class Other:
    """What ran of other traffic."""

    batches: list[BatchRecord]
    requests: list[RequestRecord]
    probes: Report
    #: how late the generator was, of which a server knows nothing and a latency tells
    lateness: float

    def __add__(self, more: Other) -> Other:
        late = (self.lateness + more.lateness) / 2
        batches, requests = self.batches + more.batches, self.requests + more.requests
        return Other(batches, requests, self.probes, late)

    def cost(self) -> CostModel:
        """As `Server.fit_cost`, of these, and what the generator adds."""
        cost = with_overheads(CostModel.fit(self.batches), self.requests, self.batches)
        return replace(cost, handling=cost.handling + self.lateness)


@dataclass
class Speed:
    """How much slower the machine was, by the probes of a run beside those around it."""

    #: seconds from the start of the run, in order, and logarithms
    seen: list[tuple[float, float]]

    def __call__(self, now: float) -> float:
        """The mean of the probes, each weighted by how near it is; 1 where too few can tell."""
        if len(self.seen) < FEW:
            return 1.0
        # Further off than that, none counts beside one that is near.
        first, last = (bisect(self.seen, (now + side * 6 * SMOOTH,)) for side in (-1, 1))
        near = self.seen[first:last] or self.seen
        weights = [math.exp(-(((now - at) / SMOOTH) ** 2) / 2) + 1e-9 for at, _ in near]
        pairs = zip(weights, near, strict=True)
        return math.exp(sum(weight * value for weight, (_, value) in pairs) / sum(weights))


@dataclass
class Run:
    """One policy under one load: what it did, to the traffic and to the probes."""

    policy: Policy
    load: float
    rate: float
    report: Report
    probes: Report
    speed: Speed
    limits: dict[str, Any]
    #: fitted to the other traffic around it
    cost: CostModel
    #: the seconds that its batches took beside those that `cost` and `speed` say; nothing uses it
    #: but the table, where it tells a law that is off from a simulator that is
    level: float


def swing(server: Server, seconds: float) -> Other:
    """From 5 requests a second to 100 and back, and probes."""
    return other_traffic(server, Ramp(5, 100, period=seconds, seed=1), seconds)


def steady(server: Server, cost: CostModel, load: float, seconds: float, seed: int) -> Other:
    """As much as keeps the worker busy for a share `load` of the time, were each alone."""
    rate = (load - MORE_PROBES * cost((PROBE + 2,))) / alone(cost, OTHER)
    return other_traffic(server, Poisson(max(1.0, rate), seed=seed), seconds)


def alone(cost: CostModel, lengths: LogNormal) -> float:
    """The mean seconds of a text of these lengths."""
    return fmean(cost((length + 2,)) for length in lengths.sample(1000))


def other_traffic(server: Server, traffic: Traffic, seconds: float) -> Other:
    """Texts of other lengths, and probes."""
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
    """What becomes of the traffic, and of so many probes a second in the same queue."""
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
    """When each probe that rode alone ran, and the logarithm of its seconds.

    Without what others took from it that came meanwhile: that is for the cost model to say.
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
    """Each policy under each load, with other traffic before and after."""
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
    """The same arrivals, probes among them, through the simulator; of the traffic alone."""
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


def beside(run: Run, seconds: float) -> dict[str, Any]:
    """The run and its simulations, and how far the one is from the others."""
    cost, ran = run.cost, run.report
    simulations = [simulated(run, seconds, seed) for seed in range(SIMULATIONS)]
    lengths = ran.records.length
    swamped = simulate(run.policy, Poisson(5 * run.rate), cost, lengths=lengths, duration=60.0)
    said: dict[str, Any] = {
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
        said[name] = [value(ran), median(map(value, simulations))]
        said[f"{name}_off"] = said[name][1] / said[name][0] - 1
    return said


#: what is compared
MEASURES: dict[str, Callable[[Report], float]] = {
    "throughput": lambda report: report.throughput,
    "p50_ms": lambda report: report.latency.p50 * 1e3,
    "p95_ms": lambda report: report.latency.p95 * 1e3,
}


def middle(values: Sequence[Any]) -> Any:
    """The median, of each place where the values are lists; texts are all the same."""
    if isinstance(values[0], str):
        return values[0]
    if isinstance(values[0], list):
        return [middle(each) for each in zip(*values, strict=True)]
    return round(median(values), 3)


def fits(row: dict[str, Any]) -> bool:
    """Throughput within 10%; the latencies within 20%, where the policy can take the load."""
    if abs(row["throughput_off"]) > 0.1:
        return False
    beyond = row["rate"] > row["capacity"]
    return bool(beyond) or max(abs(row["p50_ms_off"]), abs(row["p95_ms_off"])) <= 0.2


def asked(server: Server, rate: float, seconds: float, seed: int) -> dict[str, float]:
    """What ``what_if(NoBatching())`` says of what LengthAware served, and what then runs."""
    server.stop()
    server.start()  # only what is served from here on is asked about
    inputs, traffic = texts(LENGTHS, 1000, seed=3), Poisson(rate, seed=seed)
    server.policy = LengthAware()
    load_test(server, inputs, traffic=traffic, duration=seconds, progress=False)
    said = server.what_if(NoBatching()).throughput
    server.policy = NoBatching()
    ran = load_test(server, inputs, traffic=traffic, duration=seconds, progress=False).throughput
    return {"measured": ran, "predicted": said, "off": said / ran - 1}


def measure(server: Server, seconds: float, rounds: int) -> dict[str, Any]:
    """Everything that the module says: the medians of the rounds, and the rounds."""
    tables, questions = [], []
    for number in range(rounds):
        runs = one_round(server, seconds, seed=4 + number)
        tables.append([beside(run, seconds) for run in runs])
        print([(row["p50_ms_off"], row["p95_ms_off"]) for row in tables[-1]], file=sys.stderr)  # noqa: T201
        for _ in range(QUESTIONS):
            questions.append(asked(server, runs[-1].rate, seconds, seed=4 + number))
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
    """Run it, print the table and keep it."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 20.0
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    with serve(loader=classifier, port=0, name="fidelity") as server:
        server.wait_ready()
        swing(server, 3.0)  # the first forwards are slow
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
