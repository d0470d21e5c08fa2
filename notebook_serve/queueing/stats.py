"""What the records say: frozen statistics, as an object, as JSON and as a table."""

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

#: how many of the newest records are kept
KEEP_REQUESTS = 10_000
KEEP_BATCHES = 5_000
#: characters of an error's message in a sentence; `errors` has more of it
MOST_TOLD = 200
#: seconds over which `throughput` and `utilisation` are taken
WINDOW = 10.0
#: the spans of time that figures are over, in words
NOW, LAST, SINCE = "now", f"last {WINDOW:g} s", "since the start"


@dataclass(frozen=True, slots=True)
class Distribution:
    """How some seconds are distributed; not-a-number where there is nothing to say."""

    p50: float = math.nan
    p90: float = math.nan
    p95: float = math.nan
    p99: float = math.nan
    mean: float = math.nan

    @classmethod
    def of(cls, values: Iterable[float]) -> Distribution:
        """Percentiles by linear interpolation between the values."""
        data = sorted(values)
        if not data:
            return cls()
        cuts = statistics.quantiles(data, n=100, method="inclusive") if data[1:] else data * 99
        return cls(cuts[49], cuts[89], cuts[94], cuts[98], statistics.fmean(data))


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """One of a server's workers at one moment."""

    number: int
    #: ``thread`` or ``process``
    kind: str
    #: where its model is, if that was asked for
    device: str
    #: the number of its process in the system; None for a thread, and between two processes
    pid: int | None
    #: how many batches it ran, and requests in them
    batches: int
    requests: int
    #: the share of the last `WINDOW` seconds in which it ran a batch, from 0 to 1
    utilisation: float
    #: how often its process was started anew, by what the one before ended of
    restarts: Mapping[str, int]
    #: seconds that it ran batches since the start
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
    #: what it says, cut where it is long
    message: str
    #: seconds since it last happened
    ago: float
    #: how many equal errors came one after another; of a failing model, the failures in a row
    times: int
    #: the id of the newest request that failed; empty where no request was concerned
    request: str = ""
    #: what happens next, while the model is failing
    next: str = ""

    @classmethod
    def of(cls, error: ErrorRecord, now: float) -> LastError:
        """Return what is told of an error at time `now`."""
        ago = round(max(0.0, now - error.at), 3)
        return cls(error.model, error.type, error.message, ago, error.times, error.request)

    def told(self, said: Callable[[str], str]) -> LastError:
        """Return the same for a client, which reads of the message what `said` makes of it."""
        return replace(self, message=said(self.message))

    def __str__(self) -> str:
        cut = "…" if len(self.message) > MOST_TOLD else ""
        what = f"{self.type}: {self.message[:MOST_TOLD]}{cut}" if self.message else self.type
        which = f", request {self.request}" if self.request else ""
        times = f"{self.times} times, last " if self.times > 1 else ""
        if self.next:
            requests = f"{self.times} requests in a row" if self.times > 1 else "1 request"
            times = f"{requests} failed, last "
        return f"{what} ({times}{duration(self.ago)} ago{which})"


@dataclass(frozen=True, slots=True)
class Stats:
    """A server at one moment. Times are seconds, rates per second.

    Each figure is over one of these spans, and the table names it:

    - *now*: `state`, `queue_depth`, `breaker`, `memory_ceiling`, `failing`, `warnings`
    - *the last* `WINDOW` *seconds*: `throughput`, `utilisation`
    - *since the start*: `outcomes`, `queue_peak`, `batch_sizes`, `reasons`, `mean_batch_size`,
      `padding`, `restarts`, and those that begin with ``active``
    - *the newest* `KEEP_REQUESTS` *requests*: `latency`, `queue_time`, `inference_time`

    A server is *active* while at least one request waits or runs. `active_throughput` and
    `active_utilisation` leave out the time without requests, so they still say after a load test
    how fast it was.
    """

    #: ``new, loading, ready, failing, paused, stopping, stopped, failed`` or ``dead``
    state: str
    model: str
    policy: str
    uptime: float
    #: how many requests ended in each way
    outcomes: Mapping[str, int]
    #: answers per second over the last `WINDOW` seconds
    throughput: float
    latency: Distribution
    queue_time: Distribution
    inference_time: Distribution
    #: requests accepted that have not started to run
    queue_depth: int
    #: the most that ever waited
    queue_peak: int
    #: how many batches had each size
    batch_sizes: Mapping[int, int]
    #: how many batches were released for each reason
    reasons: Mapping[str, int]
    mean_batch_size: float
    #: the share of all computed tokens that was padding, from 0 to 1
    padding: float
    #: the share of the last `WINDOW` seconds in which a worker ran a batch, from 0 to 1; the mean
    #: of all workers
    utilisation: float
    #: each worker by itself
    workers: tuple[WorkerStats, ...] = ()
    #: how often a process was started anew, by what the one before ended of
    restarts: Mapping[str, int] = field(default_factory=dict)
    #: ``closed`` when all is well; ``open`` or ``probing`` after many failures in a row
    breaker: str = "closed"
    #: the most padded tokens that a batch may have, once one has run out of memory
    memory_ceiling: int | None = None
    #: why the server failed or died, or what the policy did wrong; empty when all is well
    error: str = ""
    #: the same of each model by its name, where the server has several; see `together`
    models: Mapping[str, Stats] = field(default_factory=dict)
    #: how many requests may wait; None where each model has its own limit
    queue_limit: int | None = None
    #: seconds since the start in which at least one request waited or ran; not-a-number where
    #: each model has its own
    active: float = math.nan
    #: answers per second of the time that was `active`
    active_throughput: float = math.nan
    #: the share of the time that was `active` in which a worker ran a batch, from 0 to 1
    active_utilisation: float = math.nan
    #: the newest error while the model is failing: its newest requests all failed
    failing: LastError | None = None
    #: the newest error since the start, whether or not requests were answered since
    last_error: LastError | None = None
    #: sentences about what slows it down
    warnings: tuple[str, ...] = ()

    @property
    def all_failing(self) -> tuple[LastError, ...]:
        """The newest error of each model that is failing."""
        each = [stats.failing for stats in self.models.values()] or [self.failing]
        return tuple(error for error in each if error is not None)

    def told(self, said: Callable[[str], str]) -> Stats:
        """Return the same for a client, which reads of errors what `said` makes of them."""
        return replace(
            self,
            error=said(self.error),
            failing=self.failing and self.failing.told(said),
            last_error=self.last_error and self.last_error.told(said),
            models={name: stats.told(said) for name, stats in self.models.items()},
        )

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON values: what ``GET /stats`` answers."""
        values = asdict(replace(self, models={}))
        values["batch_sizes"] = {str(size): n for size, n in self.batch_sizes.items()}
        values["models"] = {name: stats.to_dict() for name, stats in self.models.items()}
        values["workers"], values["warnings"] = list(values["workers"]), list(self.warnings)
        return {key: _no_nan(value) for key, value in values.items()}

    def _rows(self) -> list[Row]:
        """Each figure: its name, the span of time that it is over, and its value."""
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
        """The rows of what is wrong, where something is."""
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
        """The rows that most servers do not have."""
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
        # Of the aggregate, these two only repeat what stands beside them.
        left_out = ("model", "policy")
        table = [
            (name, span, *(row.get(name) for row in each), None if name in left_out else value)
            for name, span, value in rows
        ]
        return Table("", ("", "over", *self.models, "together"), table)

    def __repr__(self) -> str:
        return str(self._table())

    def _repr_html_(self) -> str:
        return self._table()._repr_html_()


#: a figure's name, the span of time that it is over, and its value
Row = tuple[str, str, object]
TIMES = ("latency", "queue_time", "inference_time")


def queue_rows(stats: Stats) -> list[Row]:
    """The queue: how many wait, the most that may, and the most that ever did."""
    limit = "" if stats.queue_limit is None else f" · limit {stats.queue_limit}"
    return [
        ("queue", NOW, f"{stats.queue_depth} waiting{limit}"),
        ("queue peak", SINCE, stats.queue_peak),
    ]


def rate_rows(stats: Stats) -> list[Row]:
    """The throughput: lately, and while there were requests."""
    return [
        ("throughput", LAST, per_second(stats.throughput)),
        ("throughput while active", SINCE, _active_in_words(stats)),
    ]


def _active_in_words(stats: Stats) -> str:
    """Return the throughput while active, and the seconds that it is over."""
    if math.isnan(stats.active_throughput):
        return "see each model" if stats.models else "–"
    return f"{per_second(stats.active_throughput)} in {duration(stats.active)} with requests"


def span_of_times(stats: Stats) -> str:
    """Return the span that the distributions of times are over."""
    every = sum(stats.outcomes.values()) <= KEEP_REQUESTS
    return SINCE if every else f"newest {KEEP_REQUESTS:,} requests"


def _newest(records: deque[T], count: int) -> list[T]:
    """The last `count` of them, oldest first."""
    return list(islice(reversed(records), count))[::-1]


def _percentiles(times: Distribution) -> str:
    return ", ".join(f"{name} {duration(getattr(times, name))}" for name in ("p50", "p90", "p99"))


def counts_in_words(counts: Mapping[Any, int]) -> str:
    """Return the counts that are not 0: ``ok: 41, failed: 3``, or a dash."""
    return ", ".join(f"{key}: {n}" for key, n in counts.items() if n) or "–"


def _no_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _no_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True, slots=True)
class Queue:
    """What waits at one moment, oldest first: a sequence of jobs, and a table in a cell."""

    jobs: tuple[Job, ...]
    now: float
    #: accepted requests that are still being prepared (tokenised)
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
        """One row for each job: how long it waits, and how long it still may, in seconds.

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
            f", {self.preparing} being prepared" if self.preparing else ""
        )
        heads = ("id", "waits since", "length", "parameters", "time left")
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
    """A request that has no record yet: it waits, or it runs."""

    id: int
    arrived: float
    started: float | None
    batch_id: int | None
    batch_size: int
    finished: None = None
    outcome: str = "unfinished"


@dataclass(frozen=True, slots=True)
class News:
    """What was recorded since somebody last looked, and who is not through."""

    requests: list[RequestRecord]
    batches: list[BatchRecord]
    #: of all requests since the start
    outcomes: Mapping[str, int]
    #: how many requests and batches had been recorded by now, and since when; to be shown at the
    #: next look
    seen: tuple[int, int, float]
    #: whether the records began anew, and these are all
    anew: bool
    #: oldest first
    unfinished: list[Unfinished]


def _times() -> Histogram:
    return Histogram(SECONDS)


@dataclass
class Recorder:
    """Keeps the newest records and the counts of all. Not thread-safe: its owner holds a lock."""

    born: float
    requests: deque[RequestRecord] = field(default_factory=lambda: deque(maxlen=KEEP_REQUESTS))
    batches: deque[BatchRecord] = field(default_factory=lambda: deque(maxlen=KEEP_BATCHES))
    outcomes: Counter[str] = field(default_factory=Counter)
    batch_sizes: Counter[int] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    #: by the number of the worker
    worker_batches: Counter[int] = field(default_factory=Counter)
    worker_requests: Counter[int] = field(default_factory=Counter)
    #: seconds that batches ran on each worker
    worker_seconds: dict[int, float] = field(default_factory=dict)
    tokens: int = 0
    padded_tokens: int = 0
    #: seconds that batches ran
    busy: float = 0.0
    #: requests accepted that have not started to run
    depth: int = 0
    peak: int = 0
    #: requests accepted that have not ended
    open: int = 0
    #: seconds in which some request was open, up to the moment when the last one ended
    was_active: float = 0.0
    #: since when some request is open
    active_since: float = 0.0
    #: seconds that the requests took that were answered
    queue_times: Histogram = field(default_factory=_times)
    inference_times: Histogram = field(default_factory=_times)
    latencies: Histogram = field(default_factory=_times)
    #: of each batch, the share that was padding
    paddings: Histogram = field(default_factory=lambda: Histogram(SHARES))

    def copy(self) -> Recorder:
        """A snapshot to compute from, so that the lock need not be held meanwhile."""
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
        """What was recorded since a look that had `seen` so much: the newest, as far as kept."""
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
        """Count `count` requests that were accepted at time `now`."""
        if not self.open:
            self.active_since = now
        self.open += count
        self.depth += count
        self.peak = max(self.peak, self.depth)

    def closed(self, count: int, now: float) -> None:
        """Count `count` accepted requests that ended at time `now`."""
        self.open -= count
        if count and not self.open:
            self.was_active += now - self.active_since

    def active(self, now: float) -> float:
        """Seconds up to `now` in which at least one request waited or ran."""
        return self.was_active + (now - self.active_since if self.open else 0.0)

    def request(self, record: RequestRecord) -> None:
        """A request ended."""
        self.requests.append(record)
        self.outcomes[record.outcome] += 1
        if record.outcome == "ok":
            self.queue_times.add(record.queue_time)
            self.inference_times.add(record.inference_time)
            self.latencies.add(record.latency)

    def batch(self, record: BatchRecord) -> None:
        """A batch ran."""
        self.batches.append(record)
        self.batch_sizes[record.size] += 1
        self.reasons[record.reason] += 1
        self.worker_batches[record.worker] += 1
        self.worker_requests[record.worker] += record.size
        seconds = self.worker_seconds.get(record.worker, 0.0)
        self.worker_seconds[record.worker] = seconds + record.seconds
        self.tokens += sum(record.lengths)
        self.padded_tokens += record.padded_tokens
        self.paddings.add(record.padding)
        self.busy += record.seconds

    @property
    def sizes(self) -> Histogram:
        """How large batches were."""
        histogram = Histogram(SIZES)
        for size, times in self.batch_sizes.items():
            histogram.add(size, times)
        return histogram

    @property
    def mean_batch_size(self) -> float:
        """How many requests a batch had; not-a-number before any ran."""
        batches = self.batch_sizes.total()
        ran = sum(size * count for size, count in self.batch_sizes.items())
        return ran / batches if batches else math.nan

    @property
    def padding(self) -> float:
        """The share of all computed tokens that was padding; not-a-number before any were."""
        return 1 - self.tokens / self.padded_tokens if self.padded_tokens else math.nan

    def drain_rate(self, now: float) -> float:
        """Requests that ran, whatever came of it, per second over the last `WINDOW` seconds."""
        return self._rate(now, lambda record: record.started is not None)

    def _rate(self, now: float, counts: Callable[[RequestRecord], bool]) -> float:
        since = max(self.born, now - WINDOW)
        newest = list(takewhile(lambda record: record.finished >= since, reversed(self.requests)))
        if len(newest) == self.requests.maxlen:
            # More ended within the window than are kept: take the time that they cover.
            since = newest[-1].finished
        return sum(map(counts, newest)) / (now - since) if now > since else 0.0

    def utilisation(self, now: float, running_since: float | None, worker: int = 0) -> float:
        """The share of the last `WINDOW` seconds in which a worker ran a batch."""
        since = max(self.born, now - WINDOW)
        if len(self.batches) == self.batches.maxlen:
            # More may have run within the window than are kept: take the time that they cover.
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
        """Everything at time `now`; `about` is what only the engine knows."""
        latency, queue_time, inference_time = distributions(self.requests)
        shares = [worker.utilisation for worker in workers]
        active = self.active(now)
        # A batch may run on where no request waits for it any more.
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
    """How long the answers among `records` took: each of `TIMES`."""
    answered = [record for record in records if record.outcome == "ok"]
    return tuple(Distribution.of(getattr(record, name) for record in answered) for name in TIMES)
