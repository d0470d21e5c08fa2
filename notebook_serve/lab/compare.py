"""Policies side by side: at each offered load, simulated and, if asked for, measured."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..display import Table, safe_repr
from ..display import duration as in_words
from ..errors import OptionError
from ..extras import require
from ..progress import work_bar
from ..queueing.cost_model import check_cost
from ..queueing.policies import Policy, PolicyLike, label
from ..queueing.policy_kinds import as_policies
from ..simulation.capacity import Capacity, Quantile, capacity, check_objective
from ..simulation.plots import comparison
from ..simulation.report import Report
from ..simulation.simulator import as_seconds, simulate
from ..traffic import Cycle, Empirical, Lengths, Poisson, as_lengths
from ..validation.option_hints import check_forwarded
from ..validation.tracebacks import entry_point
from .load_test import load_test
from .pivot import pivot

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from ..endpoint import Endpoint
    from ..server import Server

Cost = Callable[[Sequence[int]], float]

#: loads to compare at, as multiples of what one request at a time can do
MULTIPLES = (0.25, 0.5, 0.8, 1.0, 1.2, 1.5, 2.0, 3.0)
#: an option of `simulate` that a comparison sets itself, and what to do instead
COMPARED = {"traffic": "give rates=[...]; its traffic is Poisson, and `simulate` takes other"}


@dataclass(frozen=True, eq=False)
class Comparison:
    """Reports of several policies at several loads: a table in a cell, a figure, and advice."""

    #: each with its offered rate, in requests per second
    reports: tuple[tuple[float, Report], ...]
    #: what the simulations went by, which the advice goes by too
    cost: Cost | None = None
    lengths: Lengths | None = None
    policies: tuple[Policy, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.reports)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences on how far to trust it: the notes of its reports, each once."""
        return tuple(dict.fromkeys(note for _, report in self.reports for note in report.notes))

    def rows(self) -> list[dict[str, Any]]:
        """One plain row for each report. Times are seconds, rates per second."""
        return [
            {
                "policy": report.policy,
                "source": report.source,
                "rate": rate,
                "throughput": report.throughput,
                "goodput": report.goodput,
                **{name: getattr(report.latency, name) for name in ("p50", "p95", "p99", "mean")},
                "batch_size": report.mean_batch_size,
                "padding": report.padding,
                "utilisation": report.utilisation,
                "refused": report.shares["rejected"],
                "expired": report.shares["expired"],
                "notes": list(report.notes),
            }
            for rate, report in self.reports
        ]

    def to_frame(self) -> DataFrame:
        """The rows as a pandas data frame."""
        return require("pandas", "notebook").DataFrame(self.rows())

    def to_json(self) -> str:
        """The rows as JSON text; what is not a number is null."""
        rows = [{key: _finite(value) for key, value in row.items()} for row in self.rows()]
        return json.dumps(rows, indent=1)

    def save(self, path: str | Path) -> None:
        """Write the rows to a file, as JSON."""
        Path(path).write_text(self.to_json(), "utf-8")

    def recommendation(
        self, objective: float = 0.25, quantile: Quantile = "p99", progress: bool | None = None
    ) -> str:
        """Which policy holds a latency objective up to which load, the best first, in words.

        Found by simulation (see `capacity`), not read off the loads that were compared.
        """
        if self.cost is None:
            raise OptionError("a recommendation needs a cost model; give compare() one")
        check_objective(objective, quantile)
        goal = f"{quantile} under {in_words(objective)}"
        found = []
        with work_bar(progress, "finding limits", len(self.policies), "policies") as show:
            for done, policy in enumerate(self.policies):
                show(done, label(policy))
                found.append((self._capacity(policy, objective, quantile), label(policy)))
        found.sort(key=lambda pair: -pair[0])
        (best, name), rest = found[0], found[1:]
        said = dict.fromkeys(said for most, _ in found for said in most.warnings)
        faults = dict.fromkeys(f"Policy failed: {most.fault}" for most, _ in found if most.fault)
        doubts = [each for each in said if f"Policy failed: {each}" not in faults]
        if best:
            others = (f"{other} {_up_to(most)}" for most, other in rest)
            advice = "; ".join([f"{name} holds {goal} {_up_to(best, ' requests/s')}", *others])
        else:
            advice = f"none of these holds {goal} at any load"
        if best.factor == 1:
            return ". ".join([*faults, advice, *doubts])
        # One that does not fit is said first: it may be wrong altogether.
        failed = (f"{fault}." for fault in faults)
        return " ".join([*failed, doubts[0], f"According to it, {advice}.", *doubts[1:]])

    def _capacity(self, policy: Policy, objective: float, quantile: Quantile) -> Capacity:
        assert self.cost is not None
        lengths = 1 if self.lengths is None else self.lengths
        return capacity(
            policy,
            self.cost,
            objective,
            quantile=quantile,
            lengths=lengths,
            progress=False,  # the bar is that of all policies
            **self.options,
        )

    def plot(self) -> Figure:
        """Draw latency, answers, batch size and padding against the offered load.

        A cell shows it once, in the colours of its theme, as its value or when it is done.
        """
        return comparison(self.rows(), self.warnings)

    def table(self) -> Table:
        """A table for each figure: the policies below each other, the loads side by side.

        At each load the best has a star, and those within 1% of it, unless all are as good or the
        cost model does not fit. A latency is the best among the policies that lost no more requests
        than the others.
        """
        return pivot(self.reports, self.warnings)

    def __repr__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


@entry_point
def compare(
    policies: Iterable[PolicyLike],
    *,
    server: Server | Endpoint | None = None,
    cost: Cost | None = None,
    rates: Iterable[float] | None = None,
    lengths: Lengths | Sequence[int] | int | None = None,
    inputs: Sequence[Any] | None = None,
    duration: float = 60.0,
    measured: float = 10.0,
    seed: int = 0,
    progress: bool | None = None,
    **options: Any,
) -> Comparison:
    """Policies under the same Poisson traffic at each of `rates`, simulated and measured.

    Args:
        policies: What to compare.
        server: A server to learn the cost and the lengths from (what it has served), and to
            measure on, if there are `inputs`; its policy is put back afterwards.
        cost: Seconds of a batch, from its lengths; the server's, unless given.
        rates: Requests per second; unless given, from a quarter of what one request at a time can
            do to three times that.
        lengths: Of the inputs; those that the server has served, unless given, or 1.
        inputs: What to send to the server, in turn; without them nothing is measured.
        duration: Seconds of traffic simulated, for each policy and rate; where there is a
            measurement beside it, it is the same traffic as that.
        measured: Seconds of traffic sent to the server, for each policy and rate.
        seed: The same traffic is made of the same one.
        progress: Whether to show a bar while measuring and simulating (which needs tqdm); if not
            given, where a person sees it and the work takes more than a second or two.
        **options: Further options of `simulate`. A server's queue limit, time-out and refusals are
            taken over.

    An interrupt ends the measuring, and what was measured until then is compared. Raises
    `OptionError` without a cost or a server that has served enough to fit one.
    """
    chosen: tuple[Policy, ...] = as_policies(policies)
    check_forwarded(compare, simulate, options, COMPARED)
    if cost is not None:
        check_cost(cost)
    if server is not None and not hasattr(server, "fit_cost"):
        raise OptionError(
            f"server must be a Server or one of its models, got {safe_repr(server)}; "
            "load_test(url, ...) measures at a URL"
        )
    for name, seconds in (("duration", duration), ("measured", measured)):
        if not is_above_nought(seconds):
            raise OptionError(f"{name} must be a number of seconds > 0, got {seconds!r}")
    rates = None if rates is None else _as_rates(rates)
    if not chosen or (rates is not None and not rates):
        raise OptionError("give policies to compare, and rates at which; one of each at least")
    labels = [label(policy) for policy in chosen]
    if len(set(labels)) < len(labels):
        twice = next(text for text in labels if labels.count(text) > 1)
        raise OptionError(
            f"two of the policies read {twice}; leave one out, or give their class a __repr__ "
            "that tells them apart (a dataclass has one)"
        )
    runs: list[tuple[float, Report]] = []
    if server is not None:
        options = {**server.limits, **options}
        if rates is None or inputs is None:
            cost = cost or server.fit_cost()
            lengths = _served(server) if lengths is None else lengths
    elif inputs is not None:
        raise OptionError("inputs are sent to a server; give one to measure on")
    elif cost is None:
        raise OptionError("compare needs a cost model, or a server that has served something")
    if rates is None:
        assert cost is not None
        rates = [multiple * _one_at_a_time(cost, lengths) for multiple in MULTIPLES]
    if server is not None and inputs is not None:
        runs += _measure(server, chosen, rates, inputs, measured, seed, progress, options)
        cost = cost or server.fit_cost()
        lengths = _of_inputs(runs, len(inputs))
        duration = measured
    assert cost is not None
    options = {"noise": getattr(cost, "noise", 0.0), **options}
    asked = as_lengths(1 if lengths is None else lengths)
    pairs = list(product(rates, chosen))
    with work_bar(progress, "simulating", len(pairs), "runs") as show:
        for done, (rate, policy) in enumerate(pairs):
            show(done, f"{label(policy)} at {rate:.3g}/s")
            traffic = Poisson(rate, seed=seed)
            run = simulate(
                policy, traffic, cost, lengths=asked, duration=duration, seed=seed, **options
            )
            runs.append((rate, run))
    places = {label(policy): place for place, policy in enumerate(chosen)}
    runs.sort(key=lambda pair: (pair[0], places.get(pair[1].policy, len(places))))
    return Comparison(tuple(runs), cost, asked, chosen, options)


def is_above_nought(value: Any) -> bool:
    """Return True for a finite number above 0."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    return number and 0 < value < math.inf


def _as_rates(rates: Any) -> list[float]:
    """Return the rates of any iterable. Raises `OptionError` if one is no rate."""
    if isinstance(rates, (str, bytes)) or not isinstance(rates, Iterable):
        raise OptionError(
            f"rates must be a list of requests per second, got {safe_repr(rates)}; "
            "write rates=[10, 20]"
        )
    kept = list(rates)
    for rate in kept:
        if not is_above_nought(rate):
            raise OptionError(
                f"rates must be numbers of requests per second > 0, got {safe_repr(rate)}"
            )
    return kept


def _measure(
    server: Server | Endpoint,
    policies: Sequence[Policy],
    rates: Sequence[float],
    inputs: Sequence[Any],
    seconds: float,
    seed: int,
    progress: bool | None,
    options: Mapping[str, Any],
) -> list[tuple[float, Report]]:
    """Each policy at each rate on the server, one after another."""
    deadline = options.get("deadline", options["timeout"])
    runs: list[tuple[float, Report]] = []
    before = server.policy
    try:
        # All policies at one rate before the next, so that a machine that slows down slows all.
        pairs = list(product(rates, policies))
        with work_bar(progress, f"measuring, {seconds:g} s each", len(pairs), "runs") as show:
            for done, (rate, policy) in enumerate(pairs):
                show(done, f"{label(policy)} at {rate:.3g}/s")
                server.policy = policy
                run = load_test(
                    server,
                    inputs,
                    traffic=Poisson(rate, seed=seed),
                    duration=seconds,
                    deadline=deadline,
                    progress=False,
                )
                # Only an interrupt ends it early, or takes back what is in flight.
                if run.duration < seconds or run.outcomes["cancelled"]:
                    break
                runs.append((rate, run))
    finally:
        server.policy = before
    if not runs:
        raise KeyboardInterrupt
    return runs


def _served(server: Server | Endpoint) -> Empirical:
    """The lengths that a server has served."""
    lengths = [max(1, item.length) for item in server.records() if item.started is not None]
    if not lengths:
        raise OptionError("the server has served nothing yet; let it serve some requests")
    return Empirical(lengths)


def _of_inputs(runs: Sequence[tuple[float, Report]], count: int) -> Cycle:
    """The lengths of `count` inputs that were sent in turn, as the runs show them."""
    found: dict[int, int] = {}
    for log in (run.records for _, run in runs):
        for number, (length, started) in enumerate(zip(log.length, log.started, strict=True)):
            if started is not None:
                found.setdefault(number % count, max(1, length))
    if not found:
        raise OptionError("the server answered none of the inputs, so there is nothing to compare")
    # An input that never ran counts as one that did.
    some = list(found.values())
    return Cycle([found.get(n, some[n % len(some)]) for n in range(count)])


def _one_at_a_time(cost: Cost, lengths: Lengths | Sequence[int] | int | None) -> float:
    """Requests per second without batching."""
    sample = as_lengths(1 if lengths is None else lengths).sample(1000)
    seconds = sum(as_seconds(cost((length,))) for length in sample)
    if not 0 < seconds < math.inf:
        raise OptionError(f"no rates follow from {cost}; give rates")
    return len(sample) / seconds


def _up_to(most: Capacity, unit: str = "") -> str:
    """A load as advice says it."""
    if not 0 < most < math.inf:
        return f"at {most.in_words}"
    return "up to " + most.in_words.replace("/s", "") + unit


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
