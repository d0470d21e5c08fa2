"""Statistics of records: frozen snapshots, as objects, as JSON and as tables."""

from __future__ import annotations

import math
import statistics
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ..display import Table, duration, per_second, percent
from ..extras import require
from ..records import OUTCOMES, BatchRecord, ErrorRecord, RequestRecord
from .histogram import SECONDS, SHARES, SIZES, Histogram
from .jobs import Job

if TYPE_CHECKING:
    from pandas import DataFrame

T = TypeVar("T")

#: the number of newest records that are kept
KEEP_REQUESTS = 10_000
KEEP_BATCHES = 5_000
#: characters of an error message in a table; `errors` shows more of it
MOST_MESSAGE = 200
#: seconds over which `throughput` and `utilisation` are computed
WINDOW = 10.0
#: the time spans of figures, in words
NOW, LAST, SINCE = "now", f"last {WINDOW:g} s", "since the start"


@dataclass(frozen=True, slots=True)
class Distribution:
    """Percentiles and mean of durations in seconds; not-a-number if there are none."""

    p50: float = math.nan
    p90: float = math.nan
    p95: float = math.nan
    p99: float = math.nan
    mean: float = math.nan

    @classmethod
    def of(cls, values: Iterable[float]) -> Distribution:
        """Compute the percentiles, by linear interpolation between the values."""
        data = sorted(values)
        if not data:
            return cls()
        cuts = statistics.quantiles(data, n=100, method="inclusive") if data[1:] else data * 99
        return cls(cuts[49], cuts[89], cuts[94], cuts[98], statistics.fmean(data))


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """Statistics of one worker at one moment."""

    number: int
    #: ``thread`` or ``process``
    kind: str
    #: the device of its model, if one was chosen
    device: str
    #: the id of its process; None for a thread, and between two processes
    pid: int | None
    #: number of batches that it ran, and of requests in them
    batches: int
    requests: int
    #: the share of the last `WINDOW` seconds in which it ran a batch, from 0 to 1
    utilisation: float
    #: restarts of its process, by the reason why the previous process ended
    restarts: Mapping[str, int]
    #: seconds in which it ran batches since the start
    busy: float = 0.0

    def __str__(self) -> str:
        what = self.kind if self.pid is None else f"{self.kind} {self.pid}"
        where = f" on {self.device}" if self.device else ""
        batches = "1 batch" if self.batches == 1 else f"{self.batches} batches"
        ran = f"{batches} in {duration(self.busy)}"
        return f"{what}{where}; {ran}; {percent(self.utilisation)} busy in the {LAST}"


@dataclass(frozen=True, slots=True)
class LastError:
    """The newest error of a model at the moment of a `Stats`."""

    #: the name of the model
    model: str
    #: the class of the exception
    type: str
    #: the message, cut if it is long
    message: str
    #: seconds since the latest occurrence
    ago: float
    #: number of consecutive equal errors; for a failing model, of consecutive failures
    times: int
    #: the id of the newest request that failed; empty if no request was affected
    request: str = ""
    #: while the model is failing: what happens next
    next: str = ""

    @classmethod
    def of(cls, error: ErrorRecord, now: float) -> LastError:
        """Return the summary of an error record at time `now`."""
        ago = round(max(0.0, now - error.at), 3)
        return cls(error.model, error.type, error.message, ago, error.times, error.request)

    def redact(self, rewrite: Callable[[str], str]) -> LastError:
        """Return a copy for clients: `rewrite` maps its message to the one that clients see."""
        return replace(self, message=rewrite(self.message))

    def __str__(self) -> str:
        cut = "…" if len(self.message) > MOST_MESSAGE else ""
        what = f"{self.type}: {self.message[:MOST_MESSAGE]}{cut}" if self.message else self.type
        which = f", request {self.request}" if self.request else ""
        times = f"{self.times} times, last " if self.times > 1 else ""
        if self.next:
            requests = f"{self.times} requests in a row" if self.times > 1 else "1 request"
            times = f"{requests} failed, last "
        return f"{what} ({times}{duration(self.ago)} ago{which})"


@dataclass(frozen=True, slots=True)
class Stats:
    """Statistics of a server at one moment. Times are in seconds, rates per second.

    Each figure covers one of these time spans, which the table names:

    - *now*: `state`, `queue_depth`, `breaker`, `memory_ceiling`, `failing`, `warnings`
    - *the last* `WINDOW` *seconds*: `throughput`, `utilisation`
    - *since the start*: `outcomes`, `queue_peak`, `batch_sizes`, `reasons`, `mean_batch_size`,
      `padding`, `restarts`, and the names that begin with ``active``
    - *the newest* `KEEP_REQUESTS` *requests*: `latency`, `queue_time`, `inference_time`

    A server is *active* while at least one request waits or runs. `active_throughput` and
    `active_utilisation` exclude idle time, so they still describe a load test after its end.
    """

    #: ``new, loading, ready, failing, paused, stopping, stopped, failed`` or ``dead``
    state: str
    model: str
    policy: str
    uptime: float
    #: number of requests by outcome
    outcomes: Mapping[str, int]
    #: answers per second over the last `WINDOW` seconds
    throughput: float
    latency: Distribution
    queue_time: Distribution
    inference_time: Distribution
    #: requests accepted that have not started to run
    queue_depth: int
    #: the maximum of `queue_depth`
    queue_peak: int
    #: number of batches by size
    batch_sizes: Mapping[int, int]
    #: number of batches by the reason of their release
    reasons: Mapping[str, int]
    mean_batch_size: float
    #: the share of all computed tokens that was padding, from 0 to 1
    padding: float
    #: the share of the last `WINDOW` seconds in which a worker ran a batch, from 0 to 1; the mean
    #: of all workers
    utilisation: float
    #: the statistics of each worker
    workers: tuple[WorkerStats, ...] = ()
    #: restarts of processes, by the reason why the previous process ended
    restarts: Mapping[str, int] = field(default_factory=dict)
    #: ``closed`` normally; ``open`` or ``probing`` after many consecutive failures
    breaker: str = "closed"
    #: the largest number of padded tokens of a batch, after a batch has run out of memory
    memory_ceiling: int | None = None
    #: why the server failed or died, or how the policy broke its contract; else empty
    error: str = ""
    #: the statistics of each model by its name, if the server has several; see `merge_stats`
    models: Mapping[str, Stats] = field(default_factory=dict)
    #: the most requests that may wait; None if each model has its own limit
    queue_limit: int | None = None
    #: seconds since the start in which at least one request waited or ran; not-a-number if each
    #: model has its own
    active: float = math.nan
    #: answers per second of active time
    active_throughput: float = math.nan
    #: the share of active time in which a worker ran a batch, from 0 to 1
    active_utilisation: float = math.nan
    #: the newest error while the model is failing: its newest requests all failed
    failing: LastError | None = None
    #: the newest error since the start, even if requests were answered after it
    last_error: LastError | None = None
    #: sentences about causes of slowness
    warnings: tuple[str, ...] = ()

    @property
    def all_failing(self) -> tuple[LastError, ...]:
        """The newest error of each model that is failing."""
        each = [stats.failing for stats in self.models.values()] or [self.failing]
        return tuple(error for error in each if error is not None)

    def redact(self, rewrite: Callable[[str], str]) -> Stats:
        """Return a copy for clients: `rewrite` maps each message to the one that clients see."""
        return replace(
            self,
            error=rewrite(self.error),
            failing=self.failing and self.failing.redact(rewrite),
            last_error=self.last_error and self.last_error.redact(rewrite),
            models={name: stats.redact(rewrite) for name, stats in self.models.items()},
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the statistics as plain JSON values, as ``GET /stats`` answers them."""
        values = asdict(replace(self, models={}))
        values["batch_sizes"] = {str(size): n for size, n in self.batch_sizes.items()}
        values["models"] = {name: stats.to_dict() for name, stats in self.models.items()}
        values["workers"], values["warnings"] = list(values["workers"]), list(self.warnings)
        return {key: _nan_to_none(value) for key, value in values.items()}

    def _rows(self) -> list[Row]:
        """Return the rows of the table."""
        return [
            ("state", NOW, self.state),
            *self._troubles(),
            ("model", NOW, self.model),
            ("policy", NOW, self.policy),
            ("uptime", NOW, duration(self.uptime)),
            ("requests", SINCE, counts_in_words(self.outcomes)),
            *rate_rows(self),
            *((name, span_of_times(self), _percentiles(getattr(self, name))) for name in TIMES),
            *queue_rows(self),
            ("batch sizes", SINCE, counts_in_words(dict(sorted(self.batch_sizes.items())))),
            ("mean batch size", SINCE, self.mean_batch_size),
            ("released because", SINCE, counts_in_words(self.reasons)),
            ("padding", SINCE, percent(self.padding)),
            ("worker busy", LAST, percent(self.utilisation)),
            ("worker busy while active", SINCE, percent(self.active_utilisation)),
            *self._unusual(),
        ]

    def _troubles(self) -> Iterator[Row]:
        """Yield the rows of errors and warnings."""
        for error in self.all_failing:
            which = f": {error.model}" if self.models else ""
            yield f"failing{which}", NOW, str(error)
            yield f"next{which}", NOW, error.next
        if self.error:
            yield "error", NOW, self.error
        if self.last_error and not self.failing:
            yield "last error", SINCE, str(self.last_error)
        for number, sentence in enumerate(self.warnings, 1):
            yield f"warning {number}" if len(self.warnings) > 1 else "warning", NOW, sentence

    def _unusual(self) -> Iterator[Row]:
        """Yield the rows that most servers do not need."""
        if len(self.workers) > 1 or any(worker.kind != "thread" for worker in self.workers):
            for worker in self.workers:
                yield f"worker {worker.number}", SINCE, str(worker)
        if self.restarts:
            yield "restarts", SINCE, counts_in_words(self.restarts)
        if self.breaker != "closed":
            yield "breaker", NOW, self.breaker
        if self.memory_ceiling is not None:
            yield "memory ceiling", NOW, f"{self.memory_ceiling} padded tokens"

    def _table(self) -> Table:
        rows = self._rows()
        if not self.models:
            return Table("", ("", "", ""), rows)
        each = [{name: value for name, _, value in one._rows()} for one in self.models.values()]
        # The aggregate model and policy only repeat the columns beside them.
        left_out = ("model", "policy")
        table = [
            (name, span, *(row.get(name) for row in each), None if name in left_out else value)
            for name, span, value in rows
        ]
        return Table("", ("", "over", *self.models, "all models"), table)

    def __repr__(self) -> str:
        return str(self._table())

    def _repr_html_(self) -> str:
        return self._table()._repr_html_()


#: the name of a figure, its time span, and its value
Row = tuple[str, str, object]
TIMES = ("latency", "queue_time", "inference_time")


def queue_rows(stats: Stats) -> list[Row]:
    """Return the rows of the queue: its depth, limit and peak."""
    limit = "" if stats.queue_limit is None else f" · limit {stats.queue_limit}"
    return [
        ("queue", NOW, f"{stats.queue_depth} waiting{limit}"),
        ("queue peak", SINCE, stats.queue_peak),
    ]


def rate_rows(stats: Stats) -> list[Row]:
    """Return the rows of the throughput: recent, and over active time."""
    return [
        ("throughput", LAST, per_second(stats.throughput)),
        ("throughput while active", SINCE, _active_in_words(stats)),
    ]


def _active_in_words(stats: Stats) -> str:
    """Return the throughput over active time, and that time."""
    if math.isnan(stats.active_throughput):
        return "see each model" if stats.models else "–"
    return f"{per_second(stats.active_throughput)} in {duration(stats.active)} with requests"


def span_of_times(stats: Stats) -> str:
    """Return the time span of the distributions."""
    every = sum(stats.outcomes.values()) <= KEEP_REQUESTS
    return SINCE if every else f"newest {KEEP_REQUESTS:,} requests"


def _newest(records: deque[T], count: int) -> list[T]:
    """Return the last `count` records, oldest first."""
    return list(islice(reversed(records), count))[::-1]


def _percentiles(times: Distribution) -> str:
    return ", ".join(f"{name} {duration(getattr(times, name))}" for name in ("p50", "p90", "p99"))


def counts_in_words(counts: Mapping[Any, int]) -> str:
    """Return the counts above 0 as text: ``ok: 41, failed: 3``, or a dash."""
    return ", ".join(f"{key}: {n}" for key, n in counts.items() if n) or "–"


def _nan_to_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _nan_to_none(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True, slots=True)
class Queue:
    """A snapshot of the queue, oldest job first: a sequence of jobs, and a table in a cell."""

    jobs: tuple[Job, ...]
    now: float
    #: accepted requests that are still in preprocessing, such as tokenisation
    preparing: int = 0

    def __len__(self) -> int:
        return len(self.jobs)

    def __iter__(self) -> Iterator[Job]:
        return iter(self.jobs)

    @overload
    def __getitem__(self, index: int) -> Job: ...
    @overload
    def __getitem__(self, index: slice) -> Queue: ...
    def __getitem__(self, index: int | slice) -> Job | Queue:
        found = self.jobs[index]
        return found if isinstance(found, Job) else Queue(found, self.now)

    def to_frame(self) -> DataFrame:
        """Return one row for each job, with its waiting time and remaining time in seconds.

        Raises `MissingExtra` without pandas.
        """
        pandas = require("pandas", "notebook")
        names = [name for name in Job.__dataclass_fields__ if name not in ("arrived", "deadline")]
        columns: dict[str, list[Any]] = {
            name: [getattr(job, name) for job in self.jobs] for name in names
        }
        columns["waits"] = [self.now - job.arrived for job in self.jobs]
        columns["time_left"] = [job.deadline - self.now for job in self.jobs]
        return pandas.DataFrame(columns)

    def _table(self) -> Table:
        title = f"{len(self.jobs)} waiting" + (
            f", {self.preparing} in preprocessing" if self.preparing else ""
        )
        heads = ("id", "waiting for", "length", "parameters", "time left")
        return Table.of(title, heads, self.jobs, self._row)

    def _row(self, job: Job) -> tuple[Any, ...]:
        return (
            job.id,
            duration(self.now - job.arrived),
            job.length,
            job.group or "default",
            duration(job.deadline - self.now),
        )

    def __repr__(self) -> str:
        return str(self._table())

    def _repr_html_(self) -> str:
        return self._table()._repr_html_()


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A request that waits or runs, and so has no record yet."""

    id: int
    arrived: float
    started: float | None
    batch_id: int | None
    batch_size: int
    finished: None = None
    outcome: str = "unfinished"


@dataclass(frozen=True, slots=True)
class News:
    """Records since the previous look, and the requests that have not ended."""

    requests: list[RequestRecord]
    batches: list[BatchRecord]
    #: of all requests since the start
    outcomes: Mapping[str, int]
    #: numbers of requests and batches recorded so far, and the start of the recorder; pass this at
    #: the next look
    seen: tuple[int, int, float]
    #: True if the recorder was replaced, and these are all of its records
    anew: bool
    #: oldest first
    unfinished: list[Unfinished]


def _times() -> Histogram:
    return Histogram(SECONDS)


@dataclass
class Recorder:
    """The newest records, and counts of all. Not thread-safe: its owner holds a lock."""

    born: float
    requests: deque[RequestRecord] = field(default_factory=lambda: deque(maxlen=KEEP_REQUESTS))
    batches: deque[BatchRecord] = field(default_factory=lambda: deque(maxlen=KEEP_BATCHES))
    outcomes: Counter[str] = field(default_factory=Counter)
    batch_sizes: Counter[int] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    #: batches and requests by worker number
    worker_batches: Counter[int] = field(default_factory=Counter)
    worker_requests: Counter[int] = field(default_factory=Counter)
    #: seconds in which batches ran, by worker number
    worker_seconds: dict[int, float] = field(default_factory=dict)
    tokens: int = 0
    padded_tokens: int = 0
    #: seconds in which batches ran
    busy: float = 0.0
    #: requests accepted that have not started to run
    depth: int = 0
    peak: int = 0
    #: requests accepted that have not ended
    open: int = 0
    #: seconds of active time, up to the end of the last open request
    was_active: float = 0.0
    #: start of the current active time
    active_since: float = 0.0
    #: durations of answered requests, in seconds
    queue_times: Histogram = field(default_factory=_times)
    inference_times: Histogram = field(default_factory=_times)
    latencies: Histogram = field(default_factory=_times)
    #: the share of padding of each batch
    paddings: Histogram = field(default_factory=lambda: Histogram(SHARES))

    def copy(self) -> Recorder:
        """Return a copy to compute from, so that the lock is held only for the copy."""
        return replace(
            self,
            requests=self.requests.copy(),
            batches=self.batches.copy(),
            outcomes=self.outcomes.copy(),
            batch_sizes=self.batch_sizes.copy(),
            reasons=self.reasons.copy(),
            queue_times=self.queue_times.copy(),
            inference_times=self.inference_times.copy(),
            latencies=self.latencies.copy(),
            paddings=self.paddings.copy(),
            worker_batches=self.worker_batches.copy(),
            worker_requests=self.worker_requests.copy(),
            worker_seconds=self.worker_seconds.copy(),
        )

    def since(self, seen: tuple[int, int, float], unfinished: list[Unfinished]) -> News:
        """Return the records since the look that returned `seen`, as far as they are kept."""
        now = self.outcomes.total(), self.batch_sizes.total(), self.born
        anew = seen[2] != self.born
        requests, batches = (0, 0) if anew else seen[:2]
        return News(
            requests=_newest(self.requests, now[0] - requests),
            batches=_newest(self.batches, now[1] - batches),
            outcomes=dict(self.outcomes),
            seen=now,
            anew=anew,
            unfinished=unfinished,
        )

    def enqueued(self, count: int, now: float) -> None:
        """Add `count` requests that were accepted at time `now`."""
        if not self.open:
            self.active_since = now
        self.open += count
        self.depth += count
        self.peak = max(self.peak, self.depth)

    def closed(self, count: int, now: float) -> None:
        """Remove `count` accepted requests that ended at time `now`."""
        self.open -= count
        if count and not self.open:
            self.was_active += now - self.active_since

    def active(self, now: float) -> float:
        """Return the seconds up to `now` in which at least one request waited or ran."""
        return self.was_active + (now - self.active_since if self.open else 0.0)

    def request(self, record: RequestRecord) -> None:
        """Record a request that ended."""
        self.requests.append(record)
        self.outcomes[record.outcome] += 1
        if record.outcome == "ok":
            started = record.finished if record.started is None else record.started
            self.queue_times.add(started - record.arrived)
            self.inference_times.add(record.finished - started)
            self.latencies.add(record.finished - record.arrived)

    def batch(self, record: BatchRecord) -> None:
        """Record a batch that ran."""
        size, tokens = len(record.lengths), sum(record.lengths)
        padded = size * max(record.lengths, default=0)
        self.batches.append(record)
        self.batch_sizes[size] += 1
        self.reasons[record.reason] += 1
        self.worker_batches[record.worker] += 1
        self.worker_requests[record.worker] += size
        seconds = self.worker_seconds.get(record.worker, 0.0)
        self.worker_seconds[record.worker] = seconds + record.seconds
        self.tokens += tokens
        self.padded_tokens += padded
        self.paddings.add(1 - tokens / padded if padded else 0.0)
        self.busy += record.seconds

    @property
    def sizes(self) -> Histogram:
        """Histogram of batch sizes."""
        histogram = Histogram(SIZES)
        for size, times in self.batch_sizes.items():
            histogram.add(size, times)
        return histogram

    @property
    def mean_batch_size(self) -> float:
        """Mean number of requests in a batch; not-a-number before the first batch."""
        batches = self.batch_sizes.total()
        ran = sum(size * count for size, count in self.batch_sizes.items())
        return ran / batches if batches else math.nan

    @property
    def padding(self) -> float:
        """Share of computed tokens that was padding; not-a-number before the first batch."""
        return 1 - self.tokens / self.padded_tokens if self.padded_tokens else math.nan

    def drain_rate(self, now: float) -> float:
        """Return the requests per second that ran in the last `WINDOW` seconds."""
        return self._rate(now, lambda record: record.started is not None)

    def _rate(self, now: float, counts: Callable[[RequestRecord], bool]) -> float:
        since = max(self.born, now - WINDOW)
        newest = list(takewhile(lambda record: record.finished >= since, reversed(self.requests)))
        if len(newest) == self.requests.maxlen:
            # More requests ended in the window than are kept: use the time that those kept cover.
            since = newest[-1].finished
        return sum(map(counts, newest)) / (now - since) if now > since else 0.0

    def utilisation(self, now: float, running_since: float | None, worker: int = 0) -> float:
        """Return the share of the last `WINDOW` seconds in which a worker ran a batch."""
        since = max(self.born, now - WINDOW)
        if len(self.batches) == self.batches.maxlen:
            # More batches may have run in the window than are kept: use the time that those cover.
            since = max(since, self.batches[0].started)
        busy = 0.0 if running_since is None else now - max(running_since, since)
        for record in reversed(self.batches):
            if record.started + record.seconds < since:
                break
            if record.worker == worker:
                busy += record.seconds - max(0.0, since - record.started)
        return min(1.0, busy / (now - since)) if now > since else 0.0

    def stats(
        self,
        now: float,
        *,
        running_since: float | None,
        workers: tuple[WorkerStats, ...] = (),
        **about: Any,
    ) -> Stats:
        """Return the statistics at time `now`; `about` has the fields that the engine knows."""
        latency, queue_time, inference_time = distributions(self.requests)
        shares = [worker.utilisation for worker in workers]
        active = self.active(now)
        # A batch may outlast its requests, so `busy` can exceed `active`.
        busy = sum(worker.busy for worker in workers) / max(1, len(workers))
        return Stats(
            uptime=now - self.born,
            outcomes={name: self.outcomes[name] for name in OUTCOMES},
            throughput=self._rate(now, lambda record: record.outcome == "ok"),
            latency=latency,
            queue_time=queue_time,
            inference_time=inference_time,
            queue_depth=self.depth,
            queue_peak=self.peak,
            batch_sizes=dict(sorted(self.batch_sizes.items())),
            reasons=dict(self.reasons),
            mean_batch_size=self.mean_batch_size,
            padding=self.padding,
            utilisation=(
                statistics.fmean(shares) if shares else self.utilisation(now, running_since)
            ),
            active=active,
            active_throughput=self.outcomes["ok"] / active if active else math.nan,
            active_utilisation=min(1.0, busy / active) if active else math.nan,
            workers=workers,
            restarts=dict(sum((Counter(one.restarts) for one in workers), Counter[str]())),
            **about,
        )


def distributions(records: Iterable[RequestRecord]) -> tuple[Distribution, ...]:
    """Return the distribution of each of `TIMES` over the answered `records`."""
    answered = [record for record in records if record.outcome == "ok"]
    return tuple(Distribution.of(getattr(record, name) for record in answered) for name in TIMES)
