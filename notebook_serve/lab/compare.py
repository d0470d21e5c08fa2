"""Comparison of policies at several offered loads, simulated and optionally measured."""

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
from ..queueing.policy_registry import as_policies
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

#: default loads, as multiples of the throughput without batching
MULTIPLES = (0.25, 0.5, 0.8, 1.0, 1.2, 1.5, 2.0, 3.0)
#: options of `simulate` that a comparison sets itself, and the alternative
COMPARED = {"traffic": "give rates=[...]; its traffic is Poisson, and `simulate` takes other"}


@dataclass(frozen=True, eq=False)
class Comparison:
    """Reports of several policies at several loads, with a table, a figure and a recommendation."""

    #: pairs of an offered rate, in requests per second, and its report
    reports: tuple[tuple[float, Report], ...]
    #: cost model, lengths, policies and options of the simulations and of `recommendation`
    cost: Cost | None = None
    lengths: Lengths | None = None
    policies: tuple[Policy, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.reports)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences on the limits of the comparison: the notes of its reports, each once."""
        return tuple(dict.fromkeys(note for _, report in self.reports for note in report.notes))

    def rows(self) -> list[dict[str, Any]]:
        """Return a row of plain values for each report. Times are seconds, rates per second."""
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
        """Return the rows as a pandas data frame."""
        return require("pandas", "notebook").DataFrame(self.rows())

    def to_json(self) -> str:
        """Return the rows as JSON text, with null for not-a-number."""
        rows = [{key: _to_json(value) for key, value in row.items()} for row in self.rows()]
        return json.dumps(rows, indent=1)

    def save(self, path: str | Path) -> None:
        """Write the rows to a file, as JSON."""
        Path(path).write_text(self.to_json(), "utf-8")

    def recommendation(
        self, objective: float = 0.25, quantile: Quantile = "p99", progress: bool | None = None
    ) -> str:
        """Return a sentence on the load up to which each policy meets a latency objective.

        The best policy comes first. The loads are found by simulation (see `capacity`), and are not
        limited to those of the comparison.
        """
        if self.cost is None:
            raise OptionError("a recommendation needs a cost model; pass cost=... to compare()")
        check_objective(objective, quantile)
        goal = f"{quantile} under {in_words(objective)}"
        found = []
        with work_bar(progress, "finding limits", len(self.policies), "policies") as show:
            for done, policy in enumerate(self.policies):
                show(done, label(policy))
                found.append((self._find_capacity(policy, objective, quantile), label(policy)))
        found.sort(key=lambda pair: -pair[0])
        (best, name), rest = found[0], found[1:]
        warnings = dict.fromkeys(text for most, _ in found for text in most.warnings)
        faults = dict.fromkeys(f"Policy failed: {most.fault}" for most, _ in found if most.fault)
        doubts = [text for text in warnings if f"Policy failed: {text}" not in faults]
        if best:
            first = f"{name} holds {goal} {_format_capacity(best, ' requests/s')}"
            others = (f"{other} {_format_capacity(most)}" for most, other in rest)
            advice = "; ".join([first, *others])
        else:
            advice = f"no policy holds {goal} at any load"
        if best.factor == 1:
            return ". ".join([*faults, advice, *doubts])
        # A cost model that does not fit comes first: the whole advice may be wrong.
        failed = (f"{fault}." for fault in faults)
        return " ".join([*failed, doubts[0], f"According to it, {advice}.", *doubts[1:]])

    def _find_capacity(self, policy: Policy, objective: float, quantile: Quantile) -> Capacity:
        assert self.cost is not None
        lengths = 1 if self.lengths is None else self.lengths
        return capacity(
            policy,
            self.cost,
            objective,
            quantile=quantile,
            lengths=lengths,
            progress=False,  # there is one bar for all policies
            **self.options,
        )

    def plot(self) -> Figure:
        """Draw latency, throughput, batch size and padding against the offered load.

        A cell shows the figure once, as its value or at its end, in the colours of its theme.
        """
        return comparison(self.rows(), self.warnings)

    def table(self) -> Table:
        """Return a table with a section for each figure, a row for each policy and load columns.

        At each load a star marks the best figure and those within 1% of it. There is no star if all
        are equally good or the cost model does not fit. A latency can be best only if its policy
        lost no more requests than the others.
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
    """Compare policies under the same Poisson traffic at each of `rates`.

    Args:
        policies: The policies.
        server: A server, for the cost model and the lengths of its records. If there are `inputs`,
            the policies are also measured on it, and its own policy is restored afterwards.
        cost: A function from the lengths of a batch to its seconds; by default the server's.
        rates: Offered loads in requests per second. By default, multiples of the throughput without
            batching, from 0.25 to 3.
        lengths: Lengths of the inputs; by default those of the server's records, or 1.
        inputs: Inputs to send to the server in turn. Without them nothing is measured.
        duration: Seconds of simulated traffic for each policy and rate. Beside a measurement, the
            simulation uses the same traffic as the measurement.
        measured: Seconds of traffic sent to the server for each policy and rate.
        seed: Seed of the traffic.
        progress: True shows a progress bar, which needs tqdm. By default it is shown if the work
            takes more than a second or two and the output is a notebook or a terminal.
        **options: Further options of `simulate`. The queue limit, timeout and rejection of late
            requests default to those of the server.

    An interrupt ends the measurement; the comparison then has the runs measured so far. Raises
    `OptionError` without a cost model, or if the server's records are too few to fit one.
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
        if not is_positive(seconds):
            raise OptionError(f"{name} must be a number of seconds > 0, got {seconds!r}")
    rates = None if rates is None else _as_rates(rates)
    if not chosen or (rates is not None and not rates):
        empty = "rates" if chosen else "policies"
        raise OptionError(
            f"{empty} must not be empty, for example compare([Greedy(8)], rates=[20])"
        )
    labels = [label(policy) for policy in chosen]
    if len(set(labels)) < len(labels):
        twice = next(text for text in labels if labels.count(text) > 1)
        raise OptionError(
            f"two policies have the same repr {twice}; remove one, or give their class a __repr__ "
            "with its options (a dataclass has one)"
        )
    runs: list[tuple[float, Report]] = []
    if server is not None:
        options = {**server.limits, **options}
        if rates is None or inputs is None:
            cost = cost or server.fit_cost()
            lengths = _list_served_lengths(server) if lengths is None else lengths
    elif inputs is not None:
        raise OptionError("inputs need a server to measure on: pass server=...")
    elif cost is None:
        raise OptionError("compare needs cost=..., or server=... with a server that has records")
    if rates is None:
        assert cost is not None
        rates = [multiple * _compute_unbatched_rate(cost, lengths) for multiple in MULTIPLES]
    if server is not None and inputs is not None:
        runs += _measure(server, chosen, rates, inputs, measured, seed, progress, options)
        cost = cost or server.fit_cost()
        lengths = _list_input_lengths(runs, len(inputs))
        duration = measured
    assert cost is not None
    options = {"noise": getattr(cost, "noise", 0.0), **options}
    lengths = as_lengths(1 if lengths is None else lengths)
    pairs = list(product(rates, chosen))
    with work_bar(progress, "simulating", len(pairs), "runs") as show:
        for done, (rate, policy) in enumerate(pairs):
            show(done, f"{label(policy)} at {rate:.3g}/s")
            traffic = Poisson(rate, seed=seed)
            run = simulate(
                policy, traffic, cost, lengths=lengths, duration=duration, seed=seed, **options
            )
            runs.append((rate, run))
    places = {label(policy): place for place, policy in enumerate(chosen)}
    runs.sort(key=lambda pair: (pair[0], places.get(pair[1].policy, len(places))))
    return Comparison(tuple(runs), cost, lengths, chosen, options)


def is_positive(value: Any) -> bool:
    """Return True for a finite number above 0."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    return number and 0 < value < math.inf


def _as_rates(rates: Any) -> list[float]:
    """Return a list of rates. Raises `OptionError` for a rate that is not a positive number."""
    if isinstance(rates, (str, bytes)) or not isinstance(rates, Iterable):
        raise OptionError(
            f"rates must be a list of requests per second, got {safe_repr(rates)}; "
            "write rates=[10, 20]"
        )
    kept = list(rates)
    for rate in kept:
        if not is_positive(rate):
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
    """Measure each policy at each rate on the server, one after another."""
    deadline = options.get("deadline", options["timeout"])
    runs: list[tuple[float, Report]] = []
    before = server.policy
    try:
        # All policies at one rate before the next rate: a machine that slows down affects all.
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
                # Only an interrupt ends a run early or cancels requests.
                if run.duration < seconds or run.outcomes["cancelled"]:
                    break
                runs.append((rate, run))
    finally:
        server.policy = before
    if not runs:
        raise KeyboardInterrupt
    return runs


def _list_served_lengths(server: Server | Endpoint) -> Empirical:
    """Return the lengths of a server's records."""
    lengths = [max(1, item.length) for item in server.records() if item.started is not None]
    if not lengths:
        raise OptionError("the server has no records yet; send it some requests first")
    return Empirical(lengths)


def _list_input_lengths(runs: Sequence[tuple[float, Report]], count: int) -> Cycle:
    """Return the lengths of `count` inputs that were sent in turn, from the runs' records."""
    found: dict[int, int] = {}
    for log in (run.records for _, run in runs):
        for number, (length, started) in enumerate(zip(log.length, log.started, strict=True)):
            if started is not None:
                found.setdefault(number % count, max(1, length))
    if not found:
        raise OptionError("the server answered none of the inputs; see server.errors()")
    # Replace the unknown length of an input that never ran by a known one.
    known = list(found.values())
    return Cycle([found.get(n, known[n % len(known)]) for n in range(count)])


def _compute_unbatched_rate(cost: Cost, lengths: Lengths | Sequence[int] | int | None) -> float:
    """Return the requests per second without batching."""
    sample = as_lengths(1 if lengths is None else lengths).sample(1000)
    seconds = sum(as_seconds(cost((length,))) for length in sample)
    if not 0 < seconds < math.inf:
        raise OptionError(f"cannot derive rates from {cost}; pass rates=[...]")
    return len(sample) / seconds


def _format_capacity(most: Capacity, unit: str = "") -> str:
    """Format a capacity for `Comparison.recommendation`."""
    if not 0 < most < math.inf:
        return f"at {most.in_words}"
    return "up to " + most.in_words.replace("/s", "") + unit


def _to_json(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
