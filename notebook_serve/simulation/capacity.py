"""Capacity of a policy: the highest load at an objective, and the replicas for a load."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any, Literal

from ..display import duration as in_words
from ..display import format_rough, make_bundle, per_second, percent
from ..errors import OptionError
from ..progress import work_bar
from ..queueing.cost_model import CostModel, check_cost, sentences
from ..queueing.policies import PolicyLike, label
from ..queueing.policy_kinds import as_policy
from ..queueing.stats import Distribution
from ..traffic import Lengths, Poisson
from ..validation.option_hints import check_further
from ..validation.tracebacks import entry_point
from .report import Report
from .simulator import Dispatch, simulate

#: which part of the latencies an objective holds for
Quantile = Literal["p50", "p90", "p95", "p99", "mean"]

#: requests of one simulation: a hundred of them are above the p99
REQUESTS = 10_000
#: the highest load is known to within this factor
CLOSE = 1.02
#: most replicas that a plan may come to
MOST_REPLICAS = 1024
#: a run is long enough if it lasts so many objectives
LONG = 10
#: by how much a rate that is found in such a run may be above the one at which requests run
SPARE = 1.25
#: options of `simulate` that a search sets itself, and what to do instead
SEARCHED = {
    "traffic": "it searches over Poisson traffic; `simulate` takes other traffic",
    "duration": "the length of a run is requests=10_000",
}
PLANNED = {
    **SEARCHED,
    "traffic": "its traffic is Poisson, of the rate; `simulate` takes other traffic",
    "replicas": "it finds them; `simulate` takes a number of replicas",
}


class Capacity(float):
    """Requests per second that hold an objective: a number, with what makes it doubtful.

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
        """Make a capacity from a rate, and what is known of it."""
        _check_factor(factor)
        made = super().__new__(cls, rate)
        made._factor, made._warnings, made._fault = factor, sentences(warnings), fault
        return made

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences on how far to trust it, the gravest first."""
        return self._warnings

    @property
    def factor(self) -> float:
        """By how many times it may be too high or too low; 1 if the cost model fits."""
        return self._factor

    @property
    def fault(self) -> str:
        """How the policy broke its contract, so that `Greedy` decided; empty if it did not."""
        return self._fault

    @property
    def in_words(self) -> str:
        """With as many digits as are known, and the range if that is one: ``164/s``."""
        if self.factor == 1 or not 0 < self < math.inf:
            return "no load" if not self else "any load" if self == math.inf else per_second(self)
        low, high = self / self.factor, self * self.factor
        return f"{format_rough(self, per_second)} ({_two_digits(low)} to {_two_digits(high)})"

    def _lines(self) -> list[str]:
        failed = [f"policy failed: {self.fault}"] if self.fault else []
        warnings = (f"warning: {said}" for said in self.warnings if said != self.fault)
        return [*failed, self.in_words, *warnings]

    def __str__(self) -> str:
        return "\n".join(self._lines())

    __repr__ = __str__

    def _repr_mimebundle_(self, **options: Any) -> dict[str, str]:
        return make_bundle(*self._lines())


def _check_factor(factor: Any) -> None:
    number = isinstance(factor, Real) and not isinstance(factor, bool)
    if not number or not 1 <= factor < math.inf:
        raise OptionError(f"factor must be a number >= 1, got {factor!r}")


def _two_digits(rate: float) -> str:
    return per_second(float(f"{rate:.2g}"))


def holds(report: Report, objective: float, quantile: Quantile = "p99") -> bool:
    """Return True if all were answered, and the `quantile` of latencies was within `objective`."""
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
    """The highest load, in requests per second, at which `policy` holds a latency objective.

    It is a number that shows what makes it doubtful: the `warnings` of a fitted cost model.

    Found by bisection over simulations of Poisson traffic, `requests` long, to within 2%; 0 if it
    does not hold where hardly any two meet, infinity if it does where all come at once.
    `objective` is in seconds, for the `quantile` of the latencies, with no request rejected. A
    queue takes time to grow: for an objective of many seconds give more `requests`, ten times as
    many as arrive within it or more. `options` are those of `simulate`. `progress` shows a bar,
    which needs tqdm; by itself, where a person sees it and the search takes more than a second.

    >>> from notebook_serve import CostModel, Greedy, NoBatching
    >>> cost = CostModel(fixed=0.008, per_token=0.0002)
    >>> one, many = (capacity(p, cost, 0.1, lengths=20) for p in (NoBatching(), Greedy(16)))
    >>> round(one), round(many)
    (60, 164)
    """
    check_objective(objective, quantile)
    _check_requests(requests)
    check_further(capacity, simulate, options, SEARCHED)
    check_cost(cost)
    chosen = as_policy(policy)
    runs: dict[float, tuple[float, tuple[str, ...], str]] = {}

    with work_bar(progress, "searching the capacity") as show:

        def fits(rate: float) -> bool:
            show(text=f"{label(chosen)} at {rate:.3g}/s")
            traffic = Poisson(rate, seed=seed, n=requests)
            report = simulate(chosen, traffic, cost, lengths=lengths, seed=seed, **options)
            runs[rate] = report.latency.p99, report.notes, report.fault
            return holds(report, objective, quantile)

        rate, tried = _highest(fits, objective)
    factor = cost.factor if isinstance(cost, CostModel) and not cost.fits else 1.0
    slowest, notes, fault = runs[tried]
    # If no load is too high, that at which all at once are answered shows how long a run must be.
    most = min(rate, SPARE * requests / slowest) if slowest > 0 else 0.0
    doubts = _too_short(requests, most, objective)
    return Capacity(rate, factor=factor, warnings=(*notes, *doubts), fault=fault)


def _too_short(requests: int, rate: float, objective: float) -> tuple[str, ...]:
    """A sentence, if so many requests end before a queue could outgrow the objective."""
    if requests >= LONG * objective * rate:
        return ()
    seconds = requests / rate
    return (
        f"A run of {requests} requests lasts {in_words(seconds)}, too short for an objective of "
        f"{in_words(objective)}: a longer one may show less. Give "
        f"requests={math.ceil(LONG * objective * rate)}, and the objective in seconds, not "
        "milliseconds.",
    )


def _check_requests(requests: Any) -> None:
    if isinstance(requests, bool) or not isinstance(requests, Integral) or requests < 1:
        raise OptionError(f"requests must be a whole number >= 1, got {requests!r}")


def _highest(fits: Callable[[float], bool], objective: float) -> tuple[float, float]:
    """Return the highest rate that `fits`, to within `CLOSE`, and the one that was tried for it."""
    # No load can be faster served than at once, so start from one request per objective.
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
    """Replicas that a load needs, and what is to be expected of them."""

    #: how many hold the objective; None if no number of them does
    replicas: int | None
    rate: float
    objective: float
    quantile: str
    dispatch: str
    #: the simulation with so many replicas
    report: Report

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences on how far to trust it, the gravest first."""
        return self.report.notes

    def __repr__(self) -> str:
        fault = self.report.fault
        failed = [f"policy failed: {fault}"] if fault else []
        warnings = (f"warning: {said}" for said in self.warnings if said != fault)
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
    """The fewest replicas that hold a latency objective at `rate` requests per second.

    Each number of replicas is simulated under the same Poisson traffic: doubled until it is
    enough, then bisected. The arguments are those of `capacity`. Its `warnings` say what makes the
    cost model doubtful.

    >>> from notebook_serve import CostModel, LengthAware
    >>> cost = CostModel(fixed=0.008, per_token=0.0002)
    >>> plan(LengthAware(), cost, 500.0, 0.1, lengths=20).replicas
    3
    """
    check_objective(objective, quantile)
    _check_requests(requests)
    check_further(plan, simulate, options, PLANNED)
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
    notes = (*best.notes, *_too_short(requests, rate, objective))
    best = replace(best, notes=notes)
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


def check_objective(objective: float, quantile: str) -> None:
    """Raise `OptionError` for an objective that is no time, or a quantile that is not known."""
    number = isinstance(objective, (int, float)) and not isinstance(objective, bool)
    if not number or not 0 < objective < math.inf:
        raise OptionError(f"objective is a number of seconds above 0, not {objective!r}")
    if quantile not in Distribution.__dataclass_fields__:
        names = ", ".join(Distribution.__dataclass_fields__)
        raise OptionError(f"quantile is one of {names}, not {quantile!r}")
