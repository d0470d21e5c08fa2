"""Reports: the results of a run of requests, whether simulated, measured or recorded."""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property, partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..display import Table, cell, duration, per_second, percent, roughly
from ..errors import OptionError
from ..extras import require
from ..queueing.cost_model import MOST_ERROR
from ..queueing.policy_history import policies_in_words, policy_at
from ..queueing.record_log import RequestLog
from ..queueing.stats import Distribution
from ..records import OUTCOMES, BatchRecord, PolicyChange
from ..validation.numbers import as_number, as_whole_number
from ..validation.tracebacks import entry_point
from . import plots

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

#: a run is divided into this many sections, to compare their figures
SECTIONS = 10
#: Student's t for a two-sided interval from `SECTIONS` values (9 degrees of freedom), by its level
STUDENT = {0.8: 1.383, 0.9: 1.833, 0.95: 2.262, 0.98: 2.821, 0.99: 3.250}
#: the answers that each section must have; a percentile needs some answers above it
NEEDED = {"mean": 10, "p50": 10, "p95": 20, "p99": 100}
#: the half-width of an interval is shown if it is more than this share of the value
SHOWN = 0.05
#: the version of the JSON form
FORMAT = 1

Interval = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Report:
    """Results of a run of requests; times in seconds, rates per second, shares from 0 to 1.

    Statistics exclude a warm-up, the first ``warmup * duration`` seconds. Latencies, their parts
    and `shares` cover the requests that arrived after it. Rates, `mean_batch_size`, `padding`,
    `utilisation` and `mean_waiting` cover the time from then until ``duration``, and so exclude the
    end of the run, when the queue drains. `outcomes` counts all requests. A figure without data is
    not-a-number.
    """

    #: all offered requests, in the order of arrival; times are relative to the start of the traffic
    records: RequestLog
    #: in the order in which they started
    batches: Sequence[BatchRecord]
    #: seconds during which requests were offered
    duration: float
    #: the policy's ``repr``; the first one if there are `changes`
    policy: str = ""
    #: ``simulated``, ``measured`` or ``recorded``
    source: str = "measured"
    #: seconds within which an answer counts as goodput
    deadline: float = math.inf
    #: the share of the duration, from its start, that statistics exclude
    warmup: float = 0.1
    #: number of workers
    replicas: int = 1
    #: the delays of the load generator itself
    lateness: Distribution | None = None
    #: warnings, in whole sentences
    notes: tuple[str, ...] = ()
    #: the policies that took effect during the run; times are relative to the start of the traffic
    changes: tuple[PolicyChange, ...] = ()
    #: the typical error of the cost model of a simulation; not-a-number if there is none
    error: float = math.nan
    #: the way in which a simulated policy broke its contract, so that `Greedy` replaced it
    fault: str = ""

    def __post_init__(self) -> None:
        as_number("duration", self.duration, "a number of seconds >= 0")
        as_number("warmup", self.warmup, "a share >= 0 and < 1", most=math.nextafter(1.0, 0.0))
        as_whole_number("replicas", self.replicas)
        object.__setattr__(self, "records", RequestLog.of(self.records))
        object.__setattr__(self, "batches", _sequence(self.batches))
        object.__setattr__(self, "changes", tuple(self.changes))

    @property
    def is_rough(self) -> bool:
        """True if the cost model fits badly, so that figures show only one digit."""
        return self.error > MOST_ERROR

    @property
    def start(self) -> float:
        """End of the warm-up."""
        return self.warmup * self.duration

    @property
    def span(self) -> float:
        """Seconds from the end of the warm-up to the end of the traffic."""
        return self.duration - self.start

    # -- times ----------------------------------------------------------------------------

    @cached_property
    def latency(self) -> Distribution:
        """Seconds from arrival to answer."""
        answers = self._answers(self.start)
        return Distribution.of(finished - arrived for arrived, _, finished in answers)

    @cached_property
    def queue_time(self) -> Distribution:
        """Seconds from arrival until the batch started, if the batch is known."""
        answers = self._answers(self.start)
        return Distribution.of(at - arrived for arrived, at, _ in answers if at is not None)

    @cached_property
    def inference_time(self) -> Distribution:
        """Seconds from the start of the batch until the answer, if the batch is known."""
        answers = self._answers(self.start)
        return Distribution.of(finished - at for _, at, finished in answers if at is not None)

    def _answers(self, since: float = -math.inf) -> Iterator[tuple[float, float | None, float]]:
        """Return arrival, start and end of each answered request that arrived after `since`."""
        log = self.records
        return (
            (arrived, started, finished)
            for arrived, started, finished, outcome in zip(
                log.arrived, log.started, log.finished, log.outcome, strict=True
            )
            if outcome == "ok" and arrived >= since
        )

    # -- counts and rates -----------------------------------------------------------------

    @cached_property
    def outcomes(self) -> dict[str, int]:
        """Number of requests by outcome, over all requests."""
        return {name: self.records.outcome.count(name) for name in OUTCOMES}

    @cached_property
    def shares(self) -> dict[str, float]:
        """Share of requests by outcome, over those that arrived after the warm-up."""
        since = self.start
        arrivals = zip(self.records.arrived, self.records.outcome, strict=True)
        ended = [outcome for arrived, outcome in arrivals if arrived >= since]
        total = len(ended) or math.nan
        return {name: ended.count(name) / total for name in OUTCOMES}

    @cached_property
    def offered(self) -> float:
        """Arrivals per second."""
        start, end = self.start, self.duration
        return self._per_second(sum(start <= arrived < end for arrived in self.records.arrived))

    @cached_property
    def throughput(self) -> float:
        """Answers per second."""
        return self._answered_within(math.inf)

    @cached_property
    def goodput(self) -> float:
        """Answers within the deadline, per second."""
        return self._answered_within(self.deadline)

    def _answered_within(self, seconds: float) -> float:
        start, end = self.start, self.duration
        return self._per_second(
            sum(
                start <= finished < end and finished - arrived <= seconds
                for arrived, _, finished in self._answers()
            )
        )

    def _per_second(self, amount: float) -> float:
        return amount / self.span if self.span else math.nan

    # -- batches and the queue ------------------------------------------------------------

    @property
    def mean_batch_size(self) -> float:
        """Mean number of requests in a batch.

        If the batches are not known, it is computed from the batch sizes in the answers.
        """
        totals = self._totals if self.batches else self._totals_of_answers()
        return totals.requests / totals.batches if totals.batches else math.nan

    @property
    def padding(self) -> float:
        """Share of computed tokens that was padding."""
        totals = self._totals
        return 1 - totals.tokens / totals.padded_tokens if totals.padded_tokens else math.nan

    @property
    def utilisation(self) -> float:
        """Share of time in which a worker ran a batch, on average over the replicas."""
        return self._per_second(self._totals.busy) / self.replicas if self.batches else math.nan

    @cached_property
    def _totals(self) -> BatchTotals:
        start, end = self.start, self.duration
        batches = requests = tokens = padded_tokens = 0
        busy = 0.0
        for batch in self.batches:
            began = batch.started
            busy += max(0.0, min(began + batch.seconds, end) - max(began, start))
            if start <= began < end:
                batches += 1
                requests += batch.size
                tokens += sum(batch.lengths)
                padded_tokens += batch.padded_tokens
        return BatchTotals(batches, requests, tokens, padded_tokens, busy)

    def _totals_of_answers(self) -> BatchTotals:
        # Each of the n requests of a batch counts as 1/n of a batch.
        log, start, end = self.records, self.start, self.duration
        sizes = [
            size
            for began, size in zip(log.started, log.batch_size, strict=True)
            if size and began is not None and start <= began < end
        ]
        return BatchTotals(math.fsum(1 / size for size in sizes), len(sizes))

    @cached_property
    def mean_waiting(self) -> float:
        """Mean length of the queue over time: the L of Little's law, L = λW.

        Not-a-number if the start of a batch is unknown for any answer.
        """
        log, start, end = self.records, self.start, self.duration
        waited = 0.0
        for arrived, started, finished, outcome in zip(
            log.arrived, log.started, log.finished, log.outcome, strict=True
        ):
            if started is None and outcome == "ok":
                return math.nan
            left = finished if started is None else started
            waited += max(0.0, min(left, end) - max(arrived, start))
        return self._per_second(waited)

    # -- confidence intervals -------------------------------------------------------------

    def intervals(self, level: float = 0.95) -> dict[str, Interval]:
        """Compute confidence intervals of the throughput and the latency.

        Their names are ``throughput``, ``latency_mean``, ``latency_p50``, ``latency_p95`` and
        ``latency_p99``.

        The run after its warm-up is divided into ten sections of equal length. The variation of a
        figure between them gives the width (batch means: A. M. Law, *Simulation Modeling and
        Analysis*, chapter 9). The figure of the whole run is the centre (sectioning: S. Asmussen
        and P. W. Glynn, *Stochastic Simulation*, chapter III). The method assumes that a section is
        long compared with the time in which a queue fills and empties. A drifting load makes wide
        intervals.

        Both ends are not-a-number if a section has fewer than 10 answers; for p95 20, for p99 100.
        `level` is 0.8, 0.9, 0.95, 0.98 or 0.99.
        """
        if level not in STUDENT:
            raise OptionError(f"level must be one of {', '.join(map(str, STUDENT))}, got {level!r}")
        t = STUDENT[level]
        answered = self._divide((finished, 1.0) for _, _, finished in self._answers())
        rates = [self._per_second(SECTIONS * len(section)) for section in answered]
        few = min(map(len, answered)) < NEEDED["mean"]
        found = {"throughput": UNKNOWN if few else _interval(self.throughput, rates, t)}
        latencies = self._divide((since, end - since) for since, _, end in self._answers())
        each = [Distribution.of(section) for section in latencies]
        for name, needed in NEEDED.items():
            few = min(map(len, latencies)) < needed
            whole, values = getattr(self.latency, name), (getattr(one, name) for one in each)
            found[f"latency_{name}"] = UNKNOWN if few else _interval(whole, values, t)
        return found

    def _divide(self, points: Iterable[tuple[float, float]]) -> list[list[float]]:
        """Group the values of (time, value) by section."""
        sections: list[list[float]] = [[] for _ in range(SECTIONS)]
        start, end, span = self.start, self.duration, self.span
        for at, value in points:
            if start <= at < end:
                # Rounding may move the last moment to the end.
                number = min(int((at - start) / span * SECTIONS), SECTIONS - 1)
                sections[number].append(value)
        return sections

    # -- as a table -----------------------------------------------------------------------

    def summary(self) -> Table:
        """Return the figures as a table, with half-widths of wide 95% confidence intervals."""
        return self._summary

    @cached_property
    def _summary(self) -> Table:
        replicas = f", {self.replicas} replicas" if self.replicas > 1 else ""
        failed = [("policy failed", self.fault)] if self.fault else []
        rows: list[tuple[str, object]] = [
            *failed,
            ("policy", policies_in_words(self.policy, self.changes) if self.policy else "–"),
            ("source", f"{self.source}{replicas}"),
            ("duration", f"{duration(self.duration)}, warm-up {duration(self.start)}"),
            ("requests", _in_words(self.outcomes, str)),
            *self._figures(),
        ]
        if self.lateness is not None:
            rows.append(("generator delay", _percentiles(self.lateness, duration)))
        text = "".join(str(value) for _, value in rows)
        rows.extend((sign, meaning) for sign, meaning in MEANINGS.items() if sign in text)
        rows.extend(("note", note) for note in self.notes if note != self.fault)
        return Table("", ("", ""), rows)

    def _figures(self) -> Iterator[tuple[str, str]]:
        """Yield the rows that depend on the cost model: one digit if the model fits badly."""
        show = _to_one_digit if self.is_rough else _unchanged
        rate, seconds, share, number = show(per_second), show(duration), show(_share), show(cell)
        intervals = {} if self.is_rough else self.intervals()
        endless = self.deadline == math.inf
        within = "without a deadline" if endless else f"within {duration(self.deadline)}"
        latency = (
            f"{name} "
            + _with_interval(getattr(self.latency, name), intervals.get(f"latency_{name}"), seconds)
            for name in NEEDED
        )
        yield "after warm-up", _in_words(self.shares, share)
        yield "offered", per_second(self.offered)
        yield "throughput", _with_interval(self.throughput, intervals.get("throughput"), rate)
        yield "goodput", f"{rate(self.goodput)} {within}"
        yield "latency", ", ".join(latency)
        yield "queue_time", _percentiles(self.queue_time, seconds)
        yield "inference_time", _percentiles(self.inference_time, seconds)
        yield "mean waiting", number(self.mean_waiting)
        yield "mean batch size", number(self.mean_batch_size)
        yield "padding", share(self.padding)
        yield "worker busy", share(self.utilisation)

    def __repr__(self) -> str:
        return str(self.summary())

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()

    # -- for other tools ------------------------------------------------------------------

    def to_frame(self) -> DataFrame:
        """Return one row for each request: its record, its three durations and its policy.

        The policy is the one in effect when the request left the queue. Unknown durations are
        missing values. Raises `MissingExtra` without pandas.
        """
        frame = self.records.to_frame()
        pandas = require("pandas", "notebook")
        left = frame["started"].fillna(frame["finished"])
        policies = (
            [policy_at(self.policy, self.changes, at) for at in left]
            if self.changes
            else [self.policy] * len(frame)
        )
        return frame.assign(policy=pandas.Categorical(policies))

    def to_json(self) -> str:
        """Return the report as JSON, with records and batches as columns, for `from_json`."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        values["records"] = {name: getattr(self.records, name) for name in RequestLog.columns()}
        rows = list(map(attrgetter(*BATCH), self.batches))
        values["batches"] = {name: [row[n] for row in rows] for n, name in enumerate(BATCH)}
        values["lateness"] = self.lateness and asdict(self.lateness)
        values["changes"] = list(map(asdict, self.changes))
        return json.dumps(_plain({"format": FORMAT, **values}), allow_nan=False)

    @classmethod
    @entry_point
    def from_json(cls, text: str) -> Report:
        """Return the report of which `to_json` made `text`; raise `OptionError` for any other."""
        try:
            values = json.loads(text)
        except (TypeError, ValueError) as error:
            raise OptionError(f"a saved report must be valid JSON: {error}") from error
        if not isinstance(values, dict) or "format" not in values:
            raise OptionError(
                f"a saved report must be the JSON of report.to_json(), got {text[:40]!r}"
            )
        version = values.pop("format")
        try:
            if version == FORMAT:
                return cls(**_from_plain(values))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise OptionError(f"the saved report is not complete: {error!r}") from error
        raise OptionError(f"the saved report has format {version!r}; only {FORMAT} can be read")

    def save(self, path: str | Path) -> None:
        """Write the JSON form to a file."""
        Path(path).write_text(self.to_json(), "utf-8")

    @classmethod
    @entry_point
    def load(cls, path: str | Path) -> Report:
        """Read a report from a file that `save` wrote."""
        return cls.from_json(Path(path).read_text("utf-8"))

    # -- plots ----------------------------------------------------------------------------

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the latency of each request against its arrival, coloured by its batch's size.

        Without `ax` the plot is a new pyplot figure, which a cell shows once, in the colours of its
        theme. ``plot().figure.savefig("run.png")`` saves it. Raises `MissingExtra` without
        matplotlib.
        """
        return plots.latencies(self, ax)

    def timeline(
        self, ax: Axes | None = None, limit: int = 100, start: float | None = None
    ) -> Axes:
        """Draw each request as a bar: grey while it waits, in its batch's colour while it runs.

        It has the first `limit` requests that arrived `start` seconds after the traffic began, by
        default after the warm-up. It is shown and saved like `plot`. Raises `MissingExtra` without
        matplotlib.
        """
        return plots.timeline(self, ax, limit, self.start if start is None else start)


class BatchTotals(NamedTuple):
    """Sums over the batches in a time span."""

    batches: float
    requests: int
    tokens: int = 0
    padded_tokens: int = 0
    #: seconds in which they ran within the span
    busy: float = 0.0


BATCH = tuple(item.name for item in fields(BatchRecord))
UNKNOWN: Interval = (math.nan, math.nan)
#: the signs of a summary with their meanings
MEANINGS = {
    "±": "half of the 95% confidence interval, if above 5%; ? if there are too few answers",
    "≈": "known to one digit, because the cost model does not fit",
}


def _sequence(batches: Iterable[BatchRecord]) -> Sequence[BatchRecord]:
    # A sequence is not copied: it may create each batch only when it is read.
    return batches if isinstance(batches, Sequence) else tuple(batches)


def _interval(value: float, values: Iterable[float], t: float) -> Interval:
    """Return the interval around the `value` of a run, from the `values` of its sections."""
    spread = statistics.fmean((one - value) ** 2 for one in values)
    half = t * math.sqrt(spread / (SECTIONS - 1))
    return max(0.0, value - half), value + half


# -- text ---------------------------------------------------------------------------------


Show = Callable[[float], str]


def _unchanged(show: Show) -> Show:
    return show


def _to_one_digit(show: Show) -> Show:
    return partial(roughly, show=show)


def _with_interval(value: float, interval: Interval | None, show: Show) -> str:
    if interval is None or math.isnan(value):
        return show(value)
    half = interval[1] - value
    if math.isnan(half):
        return f"{show(value)} ±?"
    return show(value) + (f" ±{half / value:.0%}" if half > SHOWN * value else "")


#: shares of a run have one more digit than those of a snapshot
_share = partial(percent, digits=1)


def _percentiles(times: Distribution, show: Show) -> str:
    return ", ".join(f"{name} {show(getattr(times, name))}" for name in ("p50", "p95", "p99"))


def _in_words(values: Mapping[str, Any], show: Callable[[Any], str]) -> str:
    return ", ".join(f"{name} {show(value)}" for name, value in values.items() if value > 0) or "–"


# -- JSON ---------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    """Convert to values of JSON: not-a-number to null, infinity to ``"inf"``."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def _from_plain(values: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a `Report` from their JSON values."""
    log, ran, late = values["records"], values["batches"], values["lateness"]
    for column in (log["arrived"], log["finished"], ran["started"], ran["seconds"]):
        column[:] = map(_number, column)
    log["started"] = [None if value is None else float(value) for value in log["started"]]
    for name in ("outcome", "group", "client"):  # a million equal texts are stored once
        log[name] = list(map(sys.intern, log[name]))
    ran["lengths"] = list(map(tuple, ran["lengths"]))
    # Earlier versions did not store the requests of a batch.
    ran["requests"] = list(map(tuple, ran.get("requests") or [()] * len(ran["lengths"])))
    return {
        **values,
        "records": RequestLog(**log),
        "batches": tuple(map(BatchRecord, *(ran[name] for name in BATCH))),
        "deadline": _number(values["deadline"]),
        "lateness": late and Distribution(**{name: _number(late[name]) for name in late}),
        "notes": tuple(values["notes"]),
        # Versions before 0.2 did not store changes.
        "changes": tuple(
            PolicyChange(_number(change["at"]), change["policy"], change["reason"])
            for change in values.get("changes", ())
        ),
        "error": _number(values.get("error")),
    }


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
