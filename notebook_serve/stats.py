"""What the records say: frozen statistics, as an object, as JSON and as a table."""

from __future__ import annotations

import math
import statistics
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import islice, takewhile
from typing import Any, TypeVar

from .display import Table, duration, percent
from .histogram import SECONDS, SHARES, SIZES, Histogram
from .jobs import OUTCOMES, BatchRecord, Job, RequestRecord

T = TypeVar("T")

#: how many of the newest records are kept
KEEP_REQUESTS = 10_000
KEEP_BATCHES = 5_000
#: seconds that "now" means for throughput and utilisation
WINDOW = 10.0


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
    #: the share of time that it was running a batch, from 0 to 1
    utilisation: float
    #: how often its process was started anew, by what the one before ended of
    restarts: Mapping[str, int]

    def __str__(self) -> str:
        what = self.kind if self.pid is None else f"{self.kind} {self.pid}"
        where = f" on {self.device}" if self.device else ""
        return f"{what}{where}, {self.batches} batches, {percent(self.utilisation)} busy"


@dataclass(frozen=True, slots=True)
class Stats:
    """A server at one moment. Times are seconds, rates per second.

    Counts, `batch_sizes`, `reasons`, `mean_batch_size` and `padding` are over all that ran since
    the start; the distributions over the newest answers (at most `KEEP_REQUESTS`); `throughput`
    and `utilisation` over the last `WINDOW` seconds.
    """

    #: ``new, loading, ready, paused, stopping, stopped, failed`` or ``dead``
    state: str
    model: str
    policy: str
    uptime: float
    #: how many requests ended in each way
    outcomes: Mapping[str, int]
    #: answers per second
    throughput: float
    latency: Distribution
    queue_time: Distribution
    inference_time: Distribution
    #: requests accepted that have not started to run
    queue_depth: int
    queue_peak: int
    #: how many batches had each size
    batch_sizes: Mapping[int, int]
    #: how many batches were released for each reason
    reasons: Mapping[str, int]
    mean_batch_size: float
    #: the share of all computed tokens that was padding, from 0 to 1
    padding: float
    #: the share of time that a worker was running a batch, from 0 to 1; the mean of all workers
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

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON values: what ``GET /stats`` answers."""
        values = asdict(replace(self, models={}))
        values["batch_sizes"] = {str(size): n for size, n in self.batch_sizes.items()}
        values["models"] = {name: stats.to_dict() for name, stats in self.models.items()}
        values["workers"] = list(values["workers"])
        return {key: _no_nan(value) for key, value in values.items()}

    def _rows(self) -> list[tuple[str, object]]:
        rows: list[tuple[str, object]] = [
            ("state", self.state),
            ("model", self.model),
            ("policy", self.policy),
            ("uptime", duration(self.uptime)),
            ("requests", _counts(self.outcomes)),
            ("throughput", f"{self.throughput:.1f} per second"),
            *((name, _percentiles(getattr(self, name))) for name in TIMES),
            ("queue", f"{self.queue_depth} now, {self.queue_peak} at most"),
            ("batch sizes", _counts(dict(sorted(self.batch_sizes.items())))),
            ("mean batch size", self.mean_batch_size),
            ("released because", _counts(self.reasons)),
            ("padding", percent(self.padding)),
            ("worker busy", percent(self.utilisation)),
        ]
        if len(self.workers) > 1 or any(worker.kind != "thread" for worker in self.workers):
            rows += [(f"worker {worker.number}", str(worker)) for worker in self.workers]
        if self.restarts:
            rows.append(("restarts", _counts(self.restarts)))
        if self.breaker != "closed":
            rows.append(("breaker", self.breaker))
        if self.memory_ceiling is not None:
            rows.append(("memory ceiling", f"{self.memory_ceiling} padded tokens"))
        if self.error:
            rows.append(("error", self.error))
        return rows

    def _table(self) -> Table:
        if not self.models:
            return Table("", ("", ""), self._rows())
        each = [dict(stats._rows()) for stats in self.models.values()]
        # Of the whole these two only repeat what stands beside them.
        whole = {**dict(self._rows()), "model": None, "policy": None}
        rows = [(name, *(row.get(name) for row in each), value) for name, value in whole.items()]
        return Table("", ("", *self.models, "together"), rows)

    def __repr__(self) -> str:
        return str(self._table())

    def _repr_html_(self) -> str:
        return self._table()._repr_html_()


TIMES = ("latency", "queue_time", "inference_time")


def _newest(records: deque[T], count: int) -> list[T]:
    """The last `count` of them, oldest first."""
    return list(islice(reversed(records), count))[::-1]


def _percentiles(times: Distribution) -> str:
    return ", ".join(f"{name} {duration(getattr(times, name))}" for name in ("p50", "p90", "p99"))


def _counts(counts: Mapping[Any, int]) -> str:
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

    def __getitem__(self, index: int) -> Job:
        return self.jobs[index]

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
    tokens: int = 0
    padded_tokens: int = 0
    #: seconds that batches ran
    busy: float = 0.0
    #: requests accepted that have not started to run
    depth: int = 0
    peak: int = 0
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

    def enqueued(self, count: int) -> None:
        """`count` requests were accepted."""
        self.depth += count
        self.peak = max(self.peak, self.depth)

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
            workers=workers,
            restarts=dict(sum((Counter(one.restarts) for one in workers), Counter[str]())),
            **about,
        )


def distributions(records: Iterable[RequestRecord]) -> tuple[Distribution, ...]:
    """How long the answers among `records` took: each of `TIMES`."""
    answered = [record for record in records if record.outcome == "ok"]
    return tuple(Distribution.of(getattr(record, name) for record in answered) for name in TIMES)
