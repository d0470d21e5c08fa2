"""How much a policy can take: the highest load at an objective, and the replicas for a load."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .display import duration as in_words
from .errors import OptionError
from .policies import PolicyLike, label
from .progress import work_bar
from .report import Report
from .simulator import Dispatch, simulate
from .stats import Distribution
from .tracebacks import entry_point
from .traffic import Lengths, Poisson

#: which part of the latencies an objective holds for
Quantile = Literal["p50", "p90", "p95", "p99", "mean"]

#: requests of one simulation: a hundred of them are above the p99
REQUESTS = 10_000
#: the highest load is known to within this factor
CLOSE = 1.02
#: most replicas that a plan may come to
MOST_REPLICAS = 1024


def holds(report: Report, objective: float, quantile: Quantile = "p99") -> bool:
    """Whether all were answered, and the `quantile` of their latencies was within `objective`."""
    everybody = report.outcomes["ok"] == len(report.records)
    return everybody and getattr(report.latency, quantile) <= objective


@entry_point
def capacity(
    policy: PolicyLike,
    cost: Callable[[Sequence[int]], float],
    objective: float,
    *,
    quantile: Quantile = "p99",
    lengths: Lengths | Sequence[int] | int = 1,
    requests: int = REQUESTS,
    seed: int = 0,
    progress: bool | None = None,
    **options: Any,
) -> float:
    """The highest load, in requests per second, at which `policy` holds a latency objective.

    Found by bisection over simulations of Poisson traffic, `requests` long, to within 2%; 0 if it
    does not hold where hardly any two meet, infinity if it does where all come at once.
    `objective` is in seconds, for the `quantile` of the latencies, with nobody refused. A queue
    takes time to grow: for an objective of many seconds give more `requests`, ten times as many as
    arrive within it or more. `options` are those of `simulate`. `progress` shows a bar, which needs
    tqdm; by itself, where a person sees it and the search takes more than a second.

    >>> from notebook_serve import CostModel, Greedy, NoBatching
    >>> cost = CostModel(fixed=0.008, per_token=0.0002)
    >>> one, many = (capacity(p, cost, 0.1, lengths=20) for p in (NoBatching(), Greedy(16)))
    >>> round(one), round(many)
    (60, 164)
    """
    _check_objective(objective, quantile)

    with work_bar(progress, "searching the capacity") as show:

        def fits(rate: float) -> bool:
            show(text=f"{label(policy)} at {rate:.3g}/s")
            traffic = Poisson(rate, seed=seed, n=requests)
            report = simulate(policy, traffic, cost, lengths=lengths, seed=seed, **options)
            return holds(report, objective, quantile)

        return _highest(fits, objective)


def _highest(fits: Callable[[float], bool], objective: float) -> float:
    """Find the highest rate that `fits`, to within `CLOSE`."""
    # No load can be faster served than at once, so start from one request per objective.
    low = 0.01 / objective
    if not fits(low):
        return 0.0
    high = 1.0 / objective
    while fits(high):
        low, high = high, 2 * high
        if high > 1e9:
            return math.inf
    while high > CLOSE * low:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


@dataclass(frozen=True, eq=False)
class Plan:
    """How many replicas a load needs, and what is to be expected of them."""

    #: how many hold the objective; None if no number of them does
    replicas: int | None
    rate: float
    objective: float
    quantile: str
    dispatch: str
    #: the simulation with so many replicas
    report: Report

    def __repr__(self) -> str:
        policy, load = self.report.policy, f"{self.rate:g} requests/s"
        goal = f"{self.quantile} under {in_words(self.objective)}"
        if self.replicas is None:
            return f"no number of replicas of {policy} holds {goal} at {load}"
        latency: Distribution = self.report.latency
        return (
            f"{self.replicas} x {policy} ({self.dispatch}) for {load} with {goal}: "
            f"{self.quantile} {in_words(getattr(latency, self.quantile))}, "
            f"{self.report.utilisation:.0%} busy"
        )


@entry_point
def plan(
    policy: PolicyLike,
    cost: Callable[[Sequence[int]], float],
    rate: float,
    objective: float,
    *,
    quantile: Quantile = "p99",
    dispatch: Dispatch = "shared",
    lengths: Lengths | Sequence[int] | int = 1,
    requests: int = REQUESTS,
    seed: int = 0,
    progress: bool | None = None,
    **options: Any,
) -> Plan:
    """The fewest replicas that hold a latency objective at `rate` requests per second.

    Each number of replicas is simulated under the same Poisson traffic: doubled until it is
    enough, then bisected. The arguments are those of `capacity`.

    >>> from notebook_serve import CostModel, LengthAware
    >>> cost = CostModel(fixed=0.008, per_token=0.0002)
    >>> plan(LengthAware(), cost, 500.0, 0.1, lengths=20).replicas
    3
    """
    _check_objective(objective, quantile)
    traffic = Poisson(rate, seed=seed, n=requests)

    with work_bar(progress, "planning") as show:

        def trial(replicas: int) -> Report:
            show(text=f"{replicas} x {label(policy)}")
            return simulate(
                policy,
                traffic,
                cost,
                lengths=lengths,
                replicas=replicas,
                dispatch=dispatch,
                seed=seed,
                **options,
            )

        found, best = _fewest(trial, lambda report: holds(report, objective, quantile))
    return Plan(found, rate, objective, quantile, dispatch, best)


def _fewest(
    trial: Callable[[int], Report], enough: Callable[[Report], bool]
) -> tuple[int | None, Report]:
    """Find the fewest replicas that are enough, and their report; None if no number is."""
    low, high = 0, 1
    best = trial(high)
    while not enough(best):
        low, high = high, 2 * high
        if high > MOST_REPLICAS:
            return None, best
        best = trial(high)
    while high - low > 1:
        middle = (low + high) // 2
        report = trial(middle)
        if enough(report):
            high, best = middle, report
        else:
            low = middle
    return high, best


def _check_objective(objective: float, quantile: str) -> None:
    number = isinstance(objective, (int, float)) and not isinstance(objective, bool)
    if not number or not 0 < objective < math.inf:
        raise OptionError(f"objective is a number of seconds above 0, not {objective!r}")
    if quantile not in Distribution.__dataclass_fields__:
        names = ", ".join(Distribution.__dataclass_fields__)
        raise OptionError(f"quantile is one of {names}, not {quantile!r}")
