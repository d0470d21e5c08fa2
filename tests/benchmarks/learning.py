"""Policies that learn, against fixed ones, simulated: ``python -m tests.benchmarks.learning``.

For two laws of what a batch costs, mixed and short inputs, and loads from idle to far too many:
the figures of each policy, and wherever one that learns is behind the best of the fixed ones.
Takes some minutes. ``python -m tests.benchmarks.learning first-mixed`` is one case only.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from notebook_serve import (
    Adaptive,
    CostAware,
    CostModel,
    Distribution,
    Greedy,
    LengthAware,
    NoBatching,
    Policy,
    Report,
    Window,
    simulate,
)
from notebook_serve.traffic import LogNormal, Poisson, Uniform

#: seconds in which an answer is good, and after which nobody waits any more
OBJECTIVE, TIMEOUT = 0.2, 5.0
#: how much batches vary around the law
NOISE = 0.1
#: a policy that learns is behind if its answers, its p99 or its answers in time are, by more
RATE, LATENCY = 0.99, 1.03

FIXED: tuple[Policy, ...] = (
    NoBatching(),
    Greedy(8),
    Greedy(16),
    Window(16, 0.005),
    LengthAware(16),
    LengthAware(32),
)
LEARNING: tuple[Policy, ...] = (CostAware(), Adaptive(OBJECTIVE))


@dataclass(frozen=True)
class Case:
    """A law, what comes, and how much of it."""

    cost: CostModel
    lengths: LogNormal | Uniform
    #: requests per second
    rates: tuple[float, ...]

    def seeded(self, seed: int) -> LogNormal | Uniform:
        """Other lengths of the same distribution."""
        return replace(self.lengths, seed=seed)


#: of a small model, which the length costs most; and of one with much to do for each call
SMALL, LARGE = CostModel(0.0065, 0.0004, 0.00017), CostModel(0.03, 0.0002, 0.00002)
MIXED, SHORT = LogNormal(22, 0.9, 4, 128), Uniform(4, 12)
CASES = {
    "first-mixed": Case(SMALL, MIXED, (20, 40, 60, 80, 100, 120, 140, 160, 180, 200)),
    "first-short": Case(SMALL, SHORT, (20, 50, 100, 150, 200, 300, 400, 500, 700)),
    "second-mixed": Case(LARGE, MIXED, (10, 20, 50, 100, 200, 300, 400, 500, 600, 800)),
    "second-short": Case(LARGE, SHORT, (10, 20, 50, 100, 200, 400, 600, 800, 1200)),
}


@dataclass(frozen=True)
class Figures:
    """What a policy made of some traffic, over several runs; rates per second, times in seconds."""

    policy: str
    throughput: float
    goodput: float
    p50: float
    p99: float
    #: the share that ran out of time
    lost: float

    @classmethod
    def of(cls, reports: Sequence[Report]) -> Figures:
        """The means of the rates, and the percentiles of all answers after the warm-ups."""
        count = len(reports)
        latency = Distribution.of(chain.from_iterable(map(latencies, reports)))
        return cls(
            policy=reports[0].policy,
            throughput=sum(report.throughput for report in reports) / count,
            goodput=sum(report.goodput for report in reports) / count,
            p50=latency.p50,
            p99=latency.p99,
            lost=sum(report.shares["expired"] for report in reports) / count,
        )


def latencies(report: Report) -> Iterator[float]:
    """Of each answer to what arrived after the warm-up."""
    log = report.records
    for arrived, finished, outcome in zip(log.arrived, log.finished, log.outcome, strict=True):
        if outcome == "ok" and arrived >= report.start:
            yield finished - arrived


def figures(policy: Policy, case: Case, rate: float, seeds: int, seconds: float) -> Figures:
    """A policy at one load, in `seeds` runs of `seconds` each."""
    return Figures.of(
        [
            simulate(
                policy,
                Poisson(rate, seed=seed),
                case.cost,
                lengths=case.seeded(seed),
                duration=seconds,
                timeout=TIMEOUT,
                deadline=OBJECTIVE,
                noise=NOISE,
                seed=seed,
            )
            for seed in range(seeds)
        ]
    )


def behind(learned: Figures, fixed: Sequence[Figures]) -> list[str]:
    """In what a policy that learns is behind the best of the fixed ones.

    `CostAware` claims the answers, and the p99 where one loses nobody; `Adaptive` those in time.
    """
    if learned.policy.startswith("Adaptive"):
        best = max(fixed, key=lambda one: one.goodput)
        late = learned.goodput < RATE * best.goodput
        return [f"goodput {learned.goodput:.4g}, {best.goodput:.4g} {best.policy}"] if late else []
    said = []
    most = max(fixed, key=lambda one: one.throughput)
    if learned.throughput < RATE * most.throughput:
        said.append(f"throughput {learned.throughput:.4g}, {most.throughput:.4g} {most.policy}")
    least = min(fixed, key=lambda one: math.inf if one.lost else one.p99)
    if not least.lost and (learned.lost or learned.p99 > LATENCY * least.p99):
        said.append(f"p99 {learned.p99:.4g}, {least.p99:.4g} {least.policy}")
    return said


def race(case: Case, rate: float, seeds: int, seconds: float) -> tuple[list[Figures], list[str]]:
    """Every policy at one load; and in what those that learn are behind."""
    fixed = [figures(policy, case, rate, seeds, seconds) for policy in FIXED]
    learned = [figures(policy, case, rate, seeds, seconds) for policy in LEARNING]
    said = [f"{one.policy} at {rate}/s: {word}" for one in learned for word in behind(one, fixed)]
    return [*fixed, *learned], said


def plain(one: Figures) -> dict[str, Any]:
    """As JSON knows it, to four digits."""
    numbers = {name: value for name, value in vars(one).items() if name != "policy"}
    return {
        "policy": one.policy,
        **{n: float(f"{v:.4g}") if math.isfinite(v) else None for n, v in numbers.items()},
    }


def main() -> None:
    """Race them all, and print the result as JSON."""
    chosen = sys.argv[1:] or list(CASES)
    result: dict[str, Any] = {"objective": OBJECTIVE, "timeout": TIMEOUT, "behind": []}
    for name in chosen:
        case = CASES[name]
        loads = result[name] = {}
        for rate in case.rates:
            # As many answers at every load: some ten thousand.
            seconds = min(600.0, max(60.0, 3000 / rate))
            found, said = race(case, rate, 4, seconds)
            loads[rate] = [plain(one) for one in found]
            result["behind"] += [f"{name}: {word}" for word in said]
    print(json.dumps(result, indent=1))  # noqa: T201


if __name__ == "__main__":
    main()
