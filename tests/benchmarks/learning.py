"""Adaptive policies against fixed ones, simulated: ``python -m tests.benchmarks.learning``.

Simulates each policy with two cost models, mixed and short inputs, and loads from idle to far above
saturation. Prints the figures, and every case in which an adaptive policy is behind the best of the
fixed ones. Takes some minutes; ``python -m tests.benchmarks.learning first-mixed`` is one case.
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

#: latency objective and timeout, in seconds
OBJECTIVE, TIMEOUT = 0.2, 5.0
#: noise of the seconds of a batch
NOISE = 0.1
#: an adaptive policy is behind if its throughput or goodput, or its p99, is beyond these ratios
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
    """A cost model, the lengths of inputs, and arrival rates."""

    cost: CostModel
    lengths: LogNormal | Uniform
    #: requests per second
    rates: tuple[float, ...]

    def seeded(self, seed: int) -> LogNormal | Uniform:
        """Return the same distribution of lengths with another seed."""
        return replace(self.lengths, seed=seed)


#: cost of a small model, dominated by length; and of one with a large cost per call
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
    """Figures of a policy over several runs; rates per second, times in seconds."""

    policy: str
    throughput: float
    goodput: float
    p50: float
    p99: float
    #: share of requests that timed out
    lost: float

    @classmethod
    def of(cls, reports: Sequence[Report]) -> Figures:
        """Return the means of the rates, and the percentiles of all answers after the warm-up."""
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
    """Yield the latency of each answer to a request that arrived after the warm-up."""
    log = report.records
    for arrived, finished, outcome in zip(log.arrived, log.finished, log.outcome, strict=True):
        if outcome == "ok" and arrived >= report.start:
            yield finished - arrived


def figures(policy: Policy, case: Case, rate: float, seeds: int, seconds: float) -> Figures:
    """Simulate a policy at one load, in `seeds` runs of `seconds` each."""
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
    """Return the figures in which an adaptive policy is behind the best of the fixed ones.

    `CostAware` is compared by throughput, and by p99 if the best policy times out no request;
    `Adaptive` by goodput.
    """
    if learned.policy.startswith("Adaptive"):
        best = max(fixed, key=lambda one: one.goodput)
        late = learned.goodput < RATE * best.goodput
        return [f"goodput {learned.goodput:.4g}, {best.goodput:.4g} {best.policy}"] if late else []
    messages = []
    most = max(fixed, key=lambda one: one.throughput)
    if learned.throughput < RATE * most.throughput:
        messages.append(f"throughput {learned.throughput:.4g}, {most.throughput:.4g} {most.policy}")
    least = min(fixed, key=lambda one: math.inf if one.lost else one.p99)
    if not least.lost and (learned.lost or learned.p99 > LATENCY * least.p99):
        messages.append(f"p99 {learned.p99:.4g}, {least.p99:.4g} {least.policy}")
    return messages


def race(case: Case, rate: float, seeds: int, seconds: float) -> tuple[list[Figures], list[str]]:
    """Simulate every policy at one load; return its figures, and the gaps of adaptive policies."""
    fixed = [figures(policy, case, rate, seeds, seconds) for policy in FIXED]
    learned = [figures(policy, case, rate, seeds, seconds) for policy in LEARNING]
    late = [f"{one.policy} at {rate}/s: {word}" for one in learned for word in behind(one, fixed)]
    return [*fixed, *learned], late


def plain(one: Figures) -> dict[str, Any]:
    """Return the figures for JSON, with four digits."""
    numbers = {name: value for name, value in vars(one).items() if name != "policy"}
    return {
        "policy": one.policy,
        **{n: float(f"{v:.4g}") if math.isfinite(v) else None for n, v in numbers.items()},
    }


def main() -> None:
    """Simulate all cases, and print the result as JSON."""
    chosen = sys.argv[1:] or list(CASES)
    result: dict[str, Any] = {"objective": OBJECTIVE, "timeout": TIMEOUT, "behind": []}
    for name in chosen:
        case = CASES[name]
        loads = result[name] = {}
        for rate in case.rates:
            # As many answers at every load: some ten thousand.
            seconds = min(600.0, max(60.0, 3000 / rate))
            found, late = race(case, rate, 4, seconds)
            loads[rate] = [plain(one) for one in found]
            result["behind"] += [f"{name}: {word}" for word in late]
    print(json.dumps(result, indent=1))  # noqa: T201


if __name__ == "__main__":
    main()
