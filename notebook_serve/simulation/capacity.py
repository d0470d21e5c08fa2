"""Capacity of a policy: the highest load that holds an objective, and the replicas for a load."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ..display import duration as in_words
from ..display import format_rough, make_bundle, per_second, percent
from ..errors import OptionError
from ..progress import work_bar
from ..queueing.cost_model import CostModel, as_warnings, check_cost
from ..queueing.policies import PolicyLike, label
from ..queueing.policy_registry import as_policy
from ..queueing.stats import Distribution
from ..traffic import Lengths, Poisson
from ..validation.numbers import TINY, as_number, as_whole_number
from ..validation.option_hints import check_forwarded
from ..validation.tracebacks import entry_point
from .report import Report
from .simulator import Dispatch, simulate

#: the statistic of latencies that an objective bounds
Quantile = Literal["p50", "p90", "p95", "p99", "mean"]

#: requests of one simulation: a hundred of them are above the p99
REQUESTS = 10_000
#: the search stops when the highest load is known to within this factor
CLOSE = 1.02
#: the most replicas of a plan
MOST_REPLICAS = 1024
#: a run must last at least so many times the objective
LONG = 10
#: a rate found in a run that long exceeds the rate at which requests run by at most this factor
SPARE = 1.25
#: options of `simulate` that a search sets itself, and what to do instead
SEARCHED = {
    "traffic": "it searches over Poisson traffic; `simulate` takes other traffic",
    "duration": "set the length of a run by requests=10_000",
}
PLANNED = {
    **SEARCHED,
    "traffic": "its traffic is Poisson with the given rate; `simulate` takes other traffic",
    "replicas": "it searches for the replicas; `simulate` takes a number of them",
}


class Capacity(float):
    """The highest requests per second that hold an objective: a number with warnings.

    >>> from notebook_serve import CostModel
    >>> CostModel(fixed=0.01, error=0.69).doubts()[0]
    'The cost model does not fit: its typical error is 69%, so these figures may be off by a \
factor of 2.'
    >>> print(Capacity(42.0, factor=2.0, warnings=["The cost model does not fit."]))
    ≈40/s (21/s to 84/s)
    warning: The cost model does not fit.
    >>> Capacity(42.0) / 2
    21.0
    """

    _warnings: tuple[str, ...]
    _factor: float
    _fault: str

    def __new__(
        cls, rate: float, *, factor: float = 1.0, warnings: Iterable[str] = (), fault: str = ""
    ) -> Capacity:
        """Create a capacity from a rate, its uncertainty, warnings and a policy fault."""
        made = super().__new__(cls, rate)
        made._factor = as_number("factor", factor, "a number >= 1", least=1.0)
        made._warnings, made._fault = as_warnings(warnings), fault
        return made

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons to doubt the number, the most serious first."""
        return self._warnings

    @property
    def factor(self) -> float:
        """Factor by which the number may be too high or too low; 1 if the cost model fits."""
        return self._factor

    @property
    def fault(self) -> str:
        """The way in which the policy broke its contract, so that `Greedy` decided; else empty."""
        return self._fault

    @property
    def in_words(self) -> str:
        """The number as text, such as ``164/s``; rounded and with its range if it is uncertain."""
        if self.factor == 1 or not 0 < self < math.inf:
            return "no load" if not self else "any load" if self == math.inf else per_second(self)
        low, high = self / self.factor, self * self.factor
        return f"{format_rough(self, per_second)} ({_two_digits(low)} to {_two_digits(high)})"

    def _lines(self) -> list[str]:
        failed = [f"policy failed: {self.fault}"] if self.fault else []
        warnings = (f"warning: {text}" for text in self.warnings if text != self.fault)
        return [*failed, self.in_words, *warnings]

    def __str__(self) -> str:
        return "\n".join(self._lines())

    __repr__ = __str__

    def _repr_mimebundle_(self, **options: Any) -> dict[str, str]:
        return make_bundle(*self._lines())


def _two_digits(rate: float) -> str:
    return per_second(float(f"{rate:.2g}"))


def holds(report: Report, objective: float, quantile: Quantile = "p99") -> bool:
    """Return True if all requests were answered, with a latency `quantile` within `objective`."""
    all_answered = report.outcomes["ok"] == len(report.records)
    return all_answered and getattr(report.latency, quantile) <= objective


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
) -> Capacity:
    """Find the highest load, in requests per second, at which `policy` holds a latency objective.

    The result is a number with `warnings`, such as those of a fitted cost model.

    The search bisects over simulations of Poisson traffic with `requests` requests, to within 2%.
    The result is 0 if the objective fails even for single requests, and infinity if it holds even
    if all requests arrive at once. `objective` is in seconds, for the `quantile` of the latencies,
    with no request rejected. A queue takes time to grow, so a long objective needs more `requests`:
    at least ten times as many as arrive within it. `options` are those of `simulate`. `progress`
    shows a bar, which needs tqdm; by default in a terminal or notebook, after one second.

    >>> from notebook_serve import CostModel, Greedy, NoBatching
    >>> cost = CostModel(fixed=0.008, per_token=0.0002)
    >>> one, many = (capacity(p, cost, 0.1, lengths=20) for p in (NoBatching(), Greedy(16)))
    >>> round(one), round(many)
    (60, 164)
    """
    check_objective(objective, quantile)
    as_whole_number("requests", requests)
    check_forwarded(capacity, simulate, options, SEARCHED)
    check_cost(cost)
    chosen = as_policy(policy)
    runs: dict[float, tuple[float, tuple[str, ...], str]] = {}

    with work_bar(progress, "searching for the capacity") as show:

        def fits(rate: float) -> bool:
            show(text=f"{label(chosen)} at {rate:.3g}/s")
            traffic = Poisson(rate, seed=seed, n=requests)
            report = simulate(chosen, traffic, cost, lengths=lengths, seed=seed, **options)
            runs[rate] = report.latency.p99, report.notes, report.fault
            return holds(report, objective, quantile)

        rate, tried = _highest(fits, objective)
    factor = cost.factor if isinstance(cost, CostModel) and not cost.fits else 1.0
    slowest, notes, fault = runs[tried]
    # If no load is too high, the run with all requests at once shows the rate of answers.
    most = min(rate, SPARE * requests / slowest) if slowest > 0 else 0.0
    doubts = _warn_if_short(requests, most, objective)
    return Capacity(rate, factor=factor, warnings=(*notes, *doubts), fault=fault)


def _warn_if_short(requests: int, rate: float, objective: float) -> tuple[str, ...]:
    """Return a warning if the run ends before a queue could exceed the objective."""
    if requests >= LONG * objective * rate:
        return ()
    seconds = requests / rate
    return (
        f"A run of {requests} requests lasts {in_words(seconds)}, too short for an objective of "
        f"{in_words(objective)}: a longer run may find a lower capacity. Pass "
        f"requests={math.ceil(LONG * objective * rate)}, and the objective in seconds, not "
        "milliseconds.",
    )


def _highest(fits: Callable[[float], bool], objective: float) -> tuple[float, float]:
    """Return the highest rate that `fits`, to within `CLOSE`, and the rate of its simulation."""
    # One request per objective is the scale; at a hundredth of it, requests hardly ever meet.
    low = 0.01 / objective
    if not fits(low):
        return 0.0, low
    high = 1.0 / objective
    while fits(high):
        low, high = high, 2 * high
        if high > 1e9:
            return math.inf, low
    while high > CLOSE * low:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low, low


@dataclass(frozen=True, eq=False)
class Plan:
    """Replicas for a load, with the simulation that found them."""

    #: the fewest that hold the objective; None if no number does
    replicas: int | None
    rate: float
    objective: float
    quantile: str
    dispatch: str
    #: the simulation with these replicas
    report: Report

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons to doubt the plan, the most serious first."""
        return self.report.notes

    def __repr__(self) -> str:
        fault = self.report.fault
        failed = [f"policy failed: {fault}"] if fault else []
        warnings = (f"warning: {text}" for text in self.warnings if text != fault)
        return "\n".join([*failed, self._answer(), *warnings])

    def _answer(self) -> str:
        policy, load = self.report.policy, f"{self.rate:g} requests/s"
        goal = f"{self.quantile} under {in_words(self.objective)}"
        if self.replicas is None:
            return f"no number of replicas of {policy} holds {goal} at {load}"
        latency = getattr(self.report.latency, self.quantile)
        if self.report.is_rough:
            count, took = f"about {self.replicas}", format_rough(latency, in_words)
            busy = format_rough(self.report.utilisation, percent)
        else:
            count, took = str(self.replicas), in_words(latency)
            busy = percent(self.report.utilisation)
        return (
            f"{count} x {policy} ({self.dispatch}) for {load} with {goal}: "
            f"{self.quantile} {took}, {busy} busy"
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
    """Find the fewest replicas that hold a latency objective at `rate` requests per second.

    The search simulates the same Poisson traffic with each number of replicas: it doubles the
    number until the objective holds, then bisects. The arguments are those of `capacity`. The
    `warnings` of the result include those of the cost model.

    >>> from notebook_serve import CostModel, LengthAware
    >>> cost = CostModel(fixed=0.008, per_token=0.0002)
    >>> plan(LengthAware(), cost, 500.0, 0.1, lengths=20).replicas
    3
    """
    check_objective(objective, quantile)
    as_whole_number("requests", requests)
    check_forwarded(plan, simulate, options, PLANNED)
    check_cost(cost)
    chosen = as_policy(policy)
    traffic = Poisson(rate, seed=seed, n=requests)

    with work_bar(progress, "planning") as show:

        def trial(replicas: int) -> Report:
            show(text=f"{replicas} x {label(chosen)}")
            return simulate(
                chosen,
                traffic,
                cost,
                lengths=lengths,
                replicas=replicas,
                dispatch=dispatch,
                seed=seed,
                **options,
            )

        found, best = _fewest(trial, lambda report: holds(report, objective, quantile))
    notes = (*best.notes, *_warn_if_short(requests, rate, objective))
    best = replace(best, notes=notes)
    return Plan(found, rate, objective, quantile, dispatch, best)


def _fewest(
    trial: Callable[[int], Report], enough: Callable[[Report], bool]
) -> tuple[int | None, Report]:
    """Return the fewest replicas that are enough, or None, and the last report."""
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


def check_objective(objective: float, quantile: str) -> None:
    """Raise `OptionError` for an objective that is not a time, or an unknown quantile."""
    as_number("objective", objective, "a positive number of seconds", least=TINY)
    if quantile not in Distribution.__dataclass_fields__:
        names = ", ".join(Distribution.__dataclass_fields__)
        raise OptionError(f"quantile must be one of {names}, got {quantile!r}")
