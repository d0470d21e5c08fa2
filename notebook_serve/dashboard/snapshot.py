"""Snapshots of engines as JSON values, for the widget and for the page; commands of both."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import accumulate, islice
from typing import Any

from ..display import duration, per_second, percent
from ..engine.engine import Engine
from ..engine.registry import EngineRegistry
from ..errors import OptionError
from ..queueing.policies import Policy, label
from ..queueing.policy_parser import BUILT_IN, parse_policy
from ..queueing.stats import LAST, NOW, WINDOW, Distribution, News, Unfinished
from ..records import BatchRecord, RequestRecord

#: seconds of history in a snapshot, and their name
SPAN = 60
LAST_MINUTE = "last minute"
#: most errors in a snapshot, the newest first
MOST_ERRORS = 10
#: most answers of the last minute from which the percentiles are computed
MOST_ANSWERS = 2000
#: most requests in the timeline
MOST_BARS = 60


@dataclass(slots=True)
class Second:
    """Counts of requests within one second of the clock."""

    arrived: int = 0
    answered: int = 0
    lost: int = 0
    #: requests in the queue at its end
    waiting: int = 0


class EngineSnapshots:
    """Snapshots of one engine, each updated with the records since the previous one.

    It has no thread: an engine without a viewer costs nothing. `take` is thread-safe.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._lock = threading.Lock()
        self._reset()

    def _reset(self) -> None:
        self._seen = 0, 0, 0.0
        self._seconds: defaultdict[int, Second] = defaultdict(Second)
        self._answers: deque[RequestRecord] = deque(maxlen=MOST_ANSWERS)
        self._ended: deque[RequestRecord] = deque(maxlen=MOST_BARS)
        self._batches: deque[BatchRecord] = deque()

    def take(self, now: float | None = None) -> dict[str, Any]:
        """Return all data of a dashboard as plain JSON values; times are in seconds.

        `now` is the time of the snapshot on the monotonic clock, by default the present.
        """
        with self._lock:
            news = self.engine.requests.news(self._seen)
            if news.anew:  # the server was restarted
                self._reset()
            now = time.monotonic() if now is None else now
            self._add(news, math.floor(now) - SPAN)
            times = self._measure_durations()
            return {
                **describe(self.engine),
                # Makes every snapshot differ: without a change an idle server looks dead.
                "at": now,
                "tiles": self._make_tiles(news.unfinished, times["latency"], math.floor(now)),
                "failing": _find_failure(self.engine),
                "errors": _list_errors(self.engine, now),
                "changes": _list_changes(self.engine, now),
                "history": self._make_history(news.unfinished, math.floor(now)),
                "times": {name: _to_json(spread) for name, spread in times.items()},
                "batch_sizes": _count(batch.size for batch in self._batches),
                "reasons": _count(batch.reason for batch in self._batches),
                "outcomes": dict(news.outcomes),
                "timeline": self._make_timeline(news.unfinished, now),
            }

    def _add(self, news: News, oldest: int) -> None:
        """Add the new records, and drop those from before second `oldest`."""
        self._seen = news.seen
        for record in news.requests:
            self._add_wait(record, oldest)
            second = self._seconds[math.floor(record.finished)]
            if record.outcome == "ok":
                second.answered += 1
            else:
                second.lost += 1
        self._answers.extend(record for record in news.requests if record.outcome == "ok")
        self._ended.extend(news.requests)
        self._batches.extend(news.batches)
        for at in [at for at in self._seconds if at < oldest]:
            del self._seconds[at]
        while self._answers and self._answers[0].finished < oldest:
            self._answers.popleft()
        while self._batches and self._batches[0].started < oldest:
            self._batches.popleft()

    def _add_wait(self, record: RequestRecord, oldest: int) -> None:
        first, last = math.floor(record.arrived), record.arrived + record.queue_time
        self._seconds[first].arrived += 1
        for at in range(max(first, oldest), math.floor(last)):
            self._seconds[at].waiting += 1

    # -- parts of a snapshot --------------------------------------------------------------

    def _make_tiles(
        self, unfinished: Sequence[Unfinished], latency: Distribution, end: int
    ) -> list[tuple[str, str, str]]:
        """Return the main figures: name, value, and the span of time that it covers."""
        # A server that has just started is younger than the window.
        begin = min(end - 1, max(end - WINDOW, math.floor(self._seen[2])))
        last = [second for at, second in self._seconds.items() if begin <= at < end]
        arrived = sum(second.arrived for second in last)
        arrived += sum(begin <= request.arrived < end for request in unfinished)
        answered = sum(second.answered for second in last)
        waiting = sum(request.started is None for request in unfinished)
        sizes = [batch.size for batch in self._batches]
        tokens = sum(sum(batch.lengths) for batch in self._batches)
        padded = sum(batch.padded_tokens for batch in self._batches)
        return [
            ("arrivals", per_second(arrived / (end - begin)), LAST),
            ("answers", per_second(answered / (end - begin)), LAST),
            ("busy", percent(self._measure_busy(unfinished, begin, end)), LAST),
            ("waiting", str(waiting), NOW),
            ("running", str(len(unfinished) - waiting), NOW),
            ("latency p50", duration(latency.p50), LAST_MINUTE),
            ("latency p99", duration(latency.p99), LAST_MINUTE),
            ("batch size", f"{sum(sizes) / len(sizes):.3g}" if sizes else "–", LAST_MINUTE),
            ("padding", percent(1 - tokens / padded if padded else math.nan), LAST_MINUTE),
        ]

    def _measure_busy(self, unfinished: Sequence[Unfinished], begin: float, end: float) -> float:
        """Return the share of time in which a worker ran, as the mean over all workers."""
        spans = [(batch.started, batch.started + batch.seconds) for batch in self._batches]
        running = {one.batch_id: one.started for one in unfinished if one.started is not None}
        spans += [(started, end) for started in running.values()]
        busy = sum(max(0.0, min(last, end) - max(first, begin)) for first, last in spans)
        return min(1.0, busy / ((end - begin) * len(self.engine.runner.executors)))

    def _measure_durations(self) -> dict[str, Distribution]:
        """Return the queue time, inference time and latency of the newest answers."""
        return {
            "wait": Distribution.of(record.queue_time for record in self._answers),
            "run": Distribution.of(record.inference_time for record in self._answers),
            "latency": Distribution.of(record.latency for record in self._answers),
        }

    def _make_history(self, unfinished: Sequence[Unfinished], end: int) -> dict[str, list[int]]:
        """Return a column for each field of `Second`: the last `SPAN` seconds, oldest first."""
        span = range(end - SPAN, end)
        seconds = [self._seconds.get(at) or Second() for at in span]
        columns = {
            field.name: [getattr(second, field.name) for second in seconds]
            for field in fields(Second)
        }
        # Unfinished requests have no record yet.
        arrived = Counter(math.floor(request.arrived) for request in unfinished)
        waits = Counter(
            max(math.floor(request.arrived), span[0])
            for request in unfinished
            if request.started is None
        )
        for n, waiting in enumerate(accumulate(waits[at] for at in span)):
            columns["arrived"][n] += arrived[span[n]]
            columns["waiting"][n] += waiting
        return columns

    def _make_timeline(self, unfinished: Sequence[Unfinished], now: float) -> list[dict[str, Any]]:
        """Return the newest requests in order of arrival, their times in seconds from now."""
        reasons: dict[int | None, str] = {batch.id: batch.reason for batch in self._batches}
        still = list(islice(unfinished, MOST_BARS // 3))
        ended = list(self._ended)[len(still) - MOST_BARS :]
        shown: list[RequestRecord | Unfinished] = [*ended, *still]
        shown.sort(key=lambda request: request.id)
        return [
            {
                "id": request.id,
                "arrived": request.arrived - now,
                "started": None if request.started is None else request.started - now,
                "finished": None if request.finished is None else request.finished - now,
                "outcome": request.outcome,
                "batch": request.batch_id,
                "size": request.batch_size,
                "reason": reasons.get(request.batch_id, ""),
            }
            for request in shown
        ]


class ServerSnapshots:
    """Snapshots of each model of a server; thread-safe.

    It takes them on demand, and keeps nothing of a model that was removed.
    """

    def __init__(self, engines: EngineRegistry) -> None:
        self._engines = engines
        self._lock = threading.Lock()
        self._by_name: dict[str, EngineSnapshots] = {}

    def take(self, name: str, now: float | None = None) -> dict[str, Any]:
        """Return a snapshot of the model `name`, as `EngineSnapshots.take` does.

        Its field ``models`` has the state of each model if there are several. Raises
        `NoSuchModel`.
        """
        models = self._engines.overview() if len(self._engines) > 1 else []
        return {**self._get(name).take(now), "models": models}

    def _get(self, name: str) -> EngineSnapshots:
        engine = self._engines[name]
        with self._lock:
            found = self._by_name.get(engine.name)
            if found is None or found.engine is not engine:
                found = self._by_name[engine.name] = EngineSnapshots(engine)
            for removed in self._by_name.keys() - set(self._engines):
                del self._by_name[removed]
            return found


def describe(engine: Engine) -> dict[str, Any]:
    """Return the engine's name, state, model and policy, and the policies to choose from."""
    policy = engine.policy
    return {
        "name": engine.name,
        "state": engine.state,
        "model": "not loaded" if engine.model is None else engine.model.name,
        "policy": {
            "repr": label(policy),
            "name": type(policy).__name__,
            "options": list_options(policy),
        },
        "policies": {name: list_options(kind()) for name, kind in sorted(BUILT_IN.items())},
        "task": "" if engine.model is None else engine.model.task or "",
        "accepts": [] if engine.model is None else sorted(engine.model.accepts),
        "error": engine.error,
        "warnings": engine.warnings,
        "span": SPAN,
    }


def _find_failure(engine: Engine) -> dict[str, Any] | None:
    """Return the fields of the `LastError` of a failing model; None while it answers."""
    error = engine.failing
    return None if error is None else asdict(error)


def _list_errors(engine: Engine, now: float) -> list[dict[str, Any]]:
    """Return the newest errors, newest first."""
    return [
        {
            "type": error.type,
            "message": error.message,
            "ago": max(0.0, now - error.at),
            "times": error.times,
            "request": error.request,
        }
        for error in engine.health.errors()[:MOST_ERRORS]
    ]


def _list_changes(engine: Engine, now: float) -> list[dict[str, Any]]:
    """Return the changes of the policy within the last `SPAN` seconds, oldest first."""
    return [
        {"ago": max(0.0, now - change.at), "policy": change.policy, "reason": change.reason}
        for change in engine.policy_changes()
        if now - change.at <= SPAN
    ]


def replace_messages(snapshot: dict[str, Any], replace: Callable[[str], str]) -> dict[str, Any]:
    """Return a snapshot with `replace` applied to the message of every error."""
    failing = snapshot["failing"]
    return {
        **snapshot,
        "error": replace(snapshot["error"]),
        "failing": failing and {**failing, "message": replace(failing["message"])},
        "errors": [{**error, "message": replace(error["message"])} for error in snapshot["errors"]],
    }


def list_options(policy: Policy) -> dict[str, str]:
    """Return the reprs of a built-in policy's options by name; an empty dict for others."""
    if type(policy) not in BUILT_IN.values():
        return {}
    built: Any = policy  # every built-in policy is a dataclass
    return {field.name: repr(getattr(built, field.name)) for field in fields(built) if field.init}


def run_command(engine: Engine, command: Any) -> None:
    """Execute a command of the dashboard's controls.

    ``{"do": "pause"}``, ``{"do": "resume"}`` or ``{"do": "policy", "policy": "Greedy(8)"}``.
    Raises `OptionError` for another command or an invalid policy.
    """
    match command:
        case {"do": "pause"}:
            engine.pause(True)
        case {"do": "resume"}:
            engine.pause(False)
        case {"do": "policy", "policy": str(text)}:
            engine.policy = parse_policy(text)
        case _:
            raise OptionError(
                f"unknown command {command!r}; the dashboard can pause, resume or set a policy"
            )


def _to_json(spread: Distribution) -> dict[str, float | None]:
    """Return the percentiles with None for not-a-number, which JSON does not have."""
    return {name: None if math.isnan(value) else value for name, value in asdict(spread).items()}


def _count(values: Iterable[Any]) -> dict[str, int]:
    """Return how often each value occurs, in the order of the values."""
    return {str(value): count for value, count in sorted(Counter(values).items())}
