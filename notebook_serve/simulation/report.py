"""The outcome of a run of requests: one `Report`, be it simulated, measured or recorded."""

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

from ..display import Table, cell, duration, format_rough, per_second, percent
from ..errors import OptionError
from ..extras import require
from ..queueing.cost_model import MOST_ERROR
from ..queueing.policy_history import policies_in_words, policy_at
from ..queueing.record_log import RequestLog
from ..queueing.stats import Distribution
from ..records import OUTCOMES, BatchRecord, PolicyChange
from ..validation.tracebacks import entry_point
from . import plots as figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

#: into how many stretches a run is cut to see how much its figures differ
STRETCHES = 10
#: Student's t for a two-sided interval from so many values (9 degrees of freedom), by its level
STUDENT = {0.8: 1.383, 0.9: 1.833, 0.95: 2.262, 0.98: 2.821, 0.99: 3.250}
#: the answers that each stretch must have; a percentile takes some that are beyond it
NEEDED = {"mean": 10, "p50": 10, "p95": 20, "p99": 100}
#: half an interval is shown if it is more than this share of the value
SHOWN = 0.05
#: the version of the JSON form
FORMAT = 1

Interval = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Report:
    """What became of a run of requests; times in seconds, rates per second, shares from 0 to 1.

    Statistics leave a warm-up out, the first ``warmup * duration`` seconds. Times and `shares` are
    over the requests that arrived after it. Rates, `mean_batch_size`, `padding`, `utilisation` and
    `mean_waiting` are over what happened from then until ``duration``, so what drains from the
    queue when the traffic has ended does not count. `outcomes` counts all requests. Where there is
    nothing to say, a figure is not-a-number.
    """

    #: every request that was offered, in the order of arrival; times from the start of the traffic
    records: RequestLog
    #: in the order they started
    batches: Sequence[BatchRecord]
    #: seconds during which requests were offered
    duration: float
    #: the policy's ``repr``; of several the first, see `changes`
    policy: str = ""
    #: ``simulated``, ``measured`` or ``recorded``
    source: str = "measured"
    #: seconds within which an answer is good
    deadline: float = math.inf
    #: the share of the duration that statistics leave out, from its beginning
    warmup: float = 0.1
    #: how many workers there were
    replicas: int = 1
    #: how late the load generator itself was
    lateness: Distribution | None = None
    #: warnings, in whole sentences
    notes: tuple[str, ...] = ()
    #: the policies that took effect during the run, their times from the start of the traffic
    changes: tuple[PolicyChange, ...] = ()
    #: the typical error of the cost model that was simulated with; not-a-number if there is none
    error: float = math.nan
    #: how a simulated policy broke its contract, so that `Greedy` decided from then on
    fault: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.duration < math.inf:
            raise OptionError(f"duration is a number of seconds from 0 up, not {self.duration!r}")
        if not 0 <= self.warmup < 1:
            raise OptionError(f"warmup is a share from 0 to below 1, not {self.warmup!r}")
        if self.replicas < 1:
            raise OptionError(f"replicas is a whole number from 1 up, not {self.replicas!r}")
        object.__setattr__(self, "records", RequestLog.of(self.records))
        object.__setattr__(self, "batches", _sequence(self.batches))
        object.__setattr__(self, "changes", tuple(self.changes))

    @property
    def is_rough(self) -> bool:
        """Return True if it rests on a cost model that does not fit, and shows one digit only."""
        return self.error > MOST_ERROR

    @property
    def start(self) -> float:
        """When the warm-up is over."""
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
        """Seconds from arrival until the batch started, of the answers of which that is known."""
        answers = self._answers(self.start)
        return Distribution.of(at - arrived for arrived, at, _ in answers if at is not None)

    @cached_property
    def inference_time(self) -> Distribution:
        """Seconds that the batch ran until the answer, of the answers of which that is known."""
        answers = self._answers(self.start)
        return Distribution.of(finished - at for _, at, finished in answers if at is not None)

    def _answers(self, since: float = -math.inf) -> Iterator[tuple[float, float | None, float]]:
        """Arrival, start and end of each answered request that arrived at `since` or later."""
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
        """How many of all requests ended in each way."""
        return {name: self.records.outcome.count(name) for name in OUTCOMES}

    @cached_property
    def shares(self) -> dict[str, float]:
        """Which share ended in each way, of the requests that arrived after the warm-up."""
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
        """How many requests shared a batch, on average over the batches.

        Where batches are not known, it is reckoned from the batch sizes that requests were told.
        """
        ran = self._ran if self.batches else self._ran_as_told()
        return ran.requests / ran.batches if ran.batches else math.nan

    @property
    def padding(self) -> float:
        """The share of all computed tokens that was padding."""
        ran = self._ran
        return 1 - ran.tokens / ran.padded_tokens if ran.padded_tokens else math.nan

    @property
    def utilisation(self) -> float:
        """The share of time in which a worker ran a batch, on average over the replicas."""
        return self._per_second(self._ran.busy) / self.replicas if self.batches else math.nan

    @cached_property
    def _ran(self) -> Ran:
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
        return Ran(batches, requests, tokens, padded_tokens, busy)

    def _ran_as_told(self) -> Ran:
        # Each of the n requests of a batch stands for 1/n of it.
        log, start, end = self.records, self.start, self.duration
        sizes = [
            size
            for began, size in zip(log.started, log.batch_size, strict=True)
            if size and began is not None and start <= began < end
        ]
        return Ran(math.fsum(1 / size for size in sizes), len(sizes))

    @cached_property
    def mean_waiting(self) -> float:
        """How many requests waited, on average over time: the L of Little's law, L = λW.

        Not-a-number where it is not known of every answer when its batch started.
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

    # -- how sure -------------------------------------------------------------------------

    def intervals(self, level: float = 0.95) -> dict[str, Interval]:
        """Confidence intervals of the throughput, and of the latency's mean, p50, p95 and p99.

        Their names are ``throughput``, ``latency_mean``, ``latency_p50`` and so on.

        The run after its warm-up is cut into ten stretches of equal length; how much a figure
        differs between them says how sure it is (batch means: A. M. Law, *Simulation Modeling and
        Analysis*, chapter 9), around the figure of them all (sectioning: S. Asmussen and
        P. W. Glynn, *Stochastic Simulation*, chapter III). That holds if a stretch is long against
        the time that a queue takes to fill and empty. Load that drifts makes wide intervals.

        Both ends are not-a-number where a stretch has fewer than 10 answers; for p95 20, for p99
        100. `level` is 0.8, 0.9, 0.95, 0.98 or 0.99.
        """
        if level not in STUDENT:
            raise OptionError(f"level is one of {', '.join(map(str, STUDENT))}, not {level!r}")
        t = STUDENT[level]
        answered = self._cut((finished, 1.0) for _, _, finished in self._answers())
        rates = [self._per_second(STRETCHES * len(stretch)) for stretch in answered]
        few = min(map(len, answered)) < NEEDED["mean"]
        found = {"throughput": UNKNOWN if few else _interval(self.throughput, rates, t)}
        latencies = self._cut((since, end - since) for since, _, end in self._answers())
        each = [Distribution.of(stretch) for stretch in latencies]
        for name, needed in NEEDED.items():
            few = min(map(len, latencies)) < needed
            whole, values = getattr(self.latency, name), (getattr(one, name) for one in each)
            found[f"latency_{name}"] = UNKNOWN if few else _interval(whole, values, t)
        return found

    def _cut(self, points: Iterable[tuple[float, float]]) -> list[list[float]]:
        """The values of (time, value), by the stretch in which the time lies."""
        stretches: list[list[float]] = [[] for _ in range(STRETCHES)]
        start, end, span = self.start, self.duration, self.span
        for at, value in points:
            if start <= at < end:
                # The very last moment may be rounded up to the end.
                number = min(int((at - start) / span * STRETCHES), STRETCHES - 1)
                stretches[number].append(value)
        return stretches

    # -- as a table -----------------------------------------------------------------------

    def summary(self) -> Table:
        """The figures as a table, with half a 95% confidence interval where it is wide."""
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
            ("requests", _listed(self.outcomes, str)),
            *self._figures(),
        ]
        if self.lateness is not None:
            rows.append(("generator late", _percentiles(self.lateness, duration)))
        text = "".join(str(value) for _, value in rows)
        rows.extend((sign, meaning) for sign, meaning in MEANINGS.items() if sign in text)
        rows.extend(("note", note) for note in self.notes if note != self.fault)
        return Table("", ("", ""), rows)

    def _figures(self) -> Iterator[tuple[str, str]]:
        """The rows that a simulation's cost model decides: to one digit if that does not fit."""
        show = _to_one_digit if self.is_rough else _as_it_is
        rate, seconds, share, number = show(per_second), show(duration), show(_share), show(cell)
        sure = {} if self.is_rough else self.intervals()
        endless = self.deadline == math.inf
        within = "without a deadline" if endless else f"within {duration(self.deadline)}"
        latency = (
            f"{name} {_unsure(getattr(self.latency, name), sure.get(f'latency_{name}'), seconds)}"
            for name in NEEDED
        )
        yield "after warm-up", _listed(self.shares, share)
        yield "offered", per_second(self.offered)
        yield "throughput", _unsure(self.throughput, sure.get("throughput"), rate)
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
        """One row for each request: its record, its three times in seconds, and its policy.

        The policy is that in effect when the request's batch started, or when the request left
        the queue. What is not known is missing. Raises `MissingExtra` without pandas.
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
        """All of it as JSON, records and batches by columns; `from_json` reads it."""
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
            raise OptionError(f"a report is kept as JSON, and this is none: {error}") from error
        if not isinstance(values, dict) or "format" not in values:
            raise OptionError(
                f"this JSON is not of a report, got {text[:40]!r}; "
                "report.to_json() makes one that is"
            )
        version = values.pop("format")
        try:
            if version == FORMAT:
                return cls(**_revived(values))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise OptionError(f"this report is not complete: {error!r}") from error
        raise OptionError(f"this report has format {version!r}; only {FORMAT} can be read")

    def save(self, path: str | Path) -> None:
        """Write the JSON form to a file."""
        Path(path).write_text(self.to_json(), "utf-8")

    @classmethod
    @entry_point
    def load(cls, path: str | Path) -> Report:
        """Read what `save` wrote."""
        return cls.from_json(Path(path).read_text("utf-8"))

    # -- figures --------------------------------------------------------------------------

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the latency of each request against its arrival, coloured by its batch's size.

        Without `ax` it is a new figure of pyplot's, which a cell shows once and in the colours of
        its theme, as its value or when it is done. ``plot().figure.savefig("run.png")`` keeps it.
        Raises `MissingExtra` without matplotlib.
        """
        return figures.latencies(self, ax)

    def timeline(
        self, ax: Axes | None = None, limit: int = 100, start: float | None = None
    ) -> Axes:
        """Draw each request as a bar: grey while it waits, in its batch's colour while it runs.

        Shows the first `limit` requests that arrived `start` seconds after the traffic began, or
        after the warm-up. Shown and kept as `plot` is. Raises `MissingExtra` without matplotlib.
        """
        return figures.timeline(self, ax, limit, self.start if start is None else start)


class Ran(NamedTuple):
    """Sums over the batches of some time."""

    batches: float
    requests: int
    tokens: int = 0
    padded_tokens: int = 0
    #: seconds that they ran within that time
    busy: float = 0.0


BATCH = tuple(item.name for item in fields(BatchRecord))
UNKNOWN: Interval = (math.nan, math.nan)
#: signs of a summary, and what they mean
MEANINGS = {
    "±": "half of a 95% confidence interval, where more than 5%; ? where answers are too few",
    "≈": "known to one digit, because the cost model does not fit",
}


def _sequence(batches: Iterable[BatchRecord]) -> Sequence[BatchRecord]:
    # What is a sequence already may make each batch as it is asked for: it is not copied.
    return batches if isinstance(batches, Sequence) else tuple(batches)


def _interval(value: float, values: Iterable[float], t: float) -> Interval:
    """Around `value`, which is that of the whole, from the `values` of its stretches."""
    spread = statistics.fmean((one - value) ** 2 for one in values)
    half = t * math.sqrt(spread / (STRETCHES - 1))
    return max(0.0, value - half), value + half


# -- words --------------------------------------------------------------------------------


Show = Callable[[float], str]


def _as_it_is(show: Show) -> Show:
    return show


def _to_one_digit(show: Show) -> Show:
    return partial(format_rough, show=show)


def _unsure(value: float, interval: Interval | None, show: Show) -> str:
    if interval is None or math.isnan(value):
        return show(value)
    half = interval[1] - value
    if math.isnan(half):
        return f"{show(value)} ±?"
    return show(value) + (f" ±{half / value:.0%}" if half > SHOWN * value else "")


#: of a run there is more to say than of a moment
_share = partial(percent, digits=1)


def _percentiles(times: Distribution, show: Show) -> str:
    return ", ".join(f"{name} {show(getattr(times, name))}" for name in ("p50", "p95", "p99"))


def _listed(values: Mapping[str, Any], show: Callable[[Any], str]) -> str:
    return ", ".join(f"{name} {show(value)}" for name, value in values.items() if value > 0) or "–"


# -- JSON ---------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    """As JSON knows it: not-a-number as null, infinity as ``"inf"``."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def _revived(values: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a `Report`, from what JSON keeps of them."""
    log, ran, late = values["records"], values["batches"], values["lateness"]
    for column in (log["arrived"], log["finished"], ran["started"], ran["seconds"]):
        column[:] = map(_number, column)
    log["started"] = [None if value is None else float(value) for value in log["started"]]
    for name in ("outcome", "group", "client"):  # a million times the same text, kept once
        log[name] = list(map(sys.intern, log[name]))
    ran["lengths"] = list(map(tuple, ran["lengths"]))
    # A report of an earlier version does not say which requests shared a batch.
    ran["requests"] = list(map(tuple, ran.get("requests") or [()] * len(ran["lengths"])))
    return {
        **values,
        "records": RequestLog(**log),
        "batches": tuple(map(BatchRecord, *(ran[name] for name in BATCH))),
        "deadline": _number(values["deadline"]),
        "lateness": late and Distribution(**{name: _number(late[name]) for name in late}),
        "notes": tuple(values["notes"]),
        # Not in reports of before 0.2.
        "changes": tuple(
            PolicyChange(_number(change["at"]), change["policy"], change["reason"])
            for change in values.get("changes", ())
        ),
        "error": _number(values.get("error")),
    }


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
