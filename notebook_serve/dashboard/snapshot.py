"""What happens on a server just now: one picture, for the widget in a cell and for the page."""

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
from ..errors import OptionError
from ..queueing.policies import Policy, label
from ..queueing.policy_parser import BUILT_IN, parse_policy
from ..queueing.stats import LAST, NOW, WINDOW, Distribution, News, Unfinished
from ..records import BatchRecord, RequestRecord

#: seconds that a picture reaches back
SPAN = 60
SHOWN = "last minute"
#: the newest errors that a picture has
MOST_ERRORS = 10
#: the newest answers of that time that say how long answers take
MOST_ANSWERS = 2000
#: requests that the time line shows
MOST_BARS = 60


@dataclass(slots=True)
class Second:
    """What happened within one second of the clock."""

    arrived: int = 0
    answered: int = 0
    lost: int = 0
    #: how many waited at its end
    waiting: int = 0


class Live:
    """Pictures of an engine, each made from what was recorded since the one before.

    Works only when it is asked, so it costs nothing while nobody looks; from any thread.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self._seen = 0, 0, 0.0
        self._seconds: defaultdict[int, Second] = defaultdict(Second)
        self._answers: deque[RequestRecord] = deque(maxlen=MOST_ANSWERS)
        self._ended: deque[RequestRecord] = deque(maxlen=MOST_BARS)
        self._batches: deque[BatchRecord] = deque()

    def picture(self, now: float | None = None) -> dict[str, Any]:
        """Everything that a dashboard shows, as plain JSON values; times are in seconds.

        `now` is the time to look from, on the monotonic clock: the present if not given.
        """
        with self._lock:
            news = self.engine.news(self._seen)
            if news.anew:  # the server was started again
                self._forget()
            now = time.monotonic() if now is None else now
            self._learn(news, math.floor(now) - SPAN)
            times = self._times()
            return {
                **about(self.engine),
                # So that no picture equals the last: an idle server would seem to be gone.
                "at": now,
                "tiles": self._tiles(news.unfinished, times["latency"], math.floor(now)),
                "failing": _failing(self.engine),
                "errors": _errors(self.engine, now),
                "changes": _changes(self.engine, now),
                "history": self._history(news.unfinished, math.floor(now)),
                "times": {name: _percentiles(spread) for name, spread in times.items()},
                "batch_sizes": _counts(batch.size for batch in self._batches),
                "reasons": _counts(batch.reason for batch in self._batches),
                "outcomes": dict(news.outcomes),
                "timeline": self._timeline(news.unfinished, now),
            }

    def _learn(self, news: News, oldest: int) -> None:
        """Take in what has ended since, and forget what is too old to be shown."""
        self._seen = news.seen
        for record in news.requests:
            self._waited(record, oldest)
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

    def _waited(self, record: RequestRecord, oldest: int) -> None:
        first, last = math.floor(record.arrived), record.arrived + record.queue_time
        self._seconds[first].arrived += 1
        for at in range(max(first, oldest), math.floor(last)):
            self._seconds[at].waiting += 1

    # -- what a picture shows -------------------------------------------------------------

    def _tiles(
        self, unfinished: Sequence[Unfinished], latency: Distribution, end: int
    ) -> list[tuple[str, str, str]]:
        """The figures that are read first: name, value, and the span of time that it is over."""
        # A server that has just started has not had so many seconds yet.
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
            ("busy", percent(self._busy(unfinished, begin, end)), LAST),
            ("waiting", str(waiting), NOW),
            ("running", str(len(unfinished) - waiting), NOW),
            ("latency p50", duration(latency.p50), SHOWN),
            ("latency p99", duration(latency.p99), SHOWN),
            ("batch size", f"{sum(sizes) / len(sizes):.3g}" if sizes else "–", SHOWN),
            ("padding", percent(1 - tokens / padded if padded else math.nan), SHOWN),
        ]

    def _busy(self, unfinished: Sequence[Unfinished], begin: float, end: float) -> float:
        """The share of the time from `begin` to `end` in which a worker ran; the mean of all."""
        spans = [(batch.started, batch.started + batch.seconds) for batch in self._batches]
        running = {one.batch_id: one.started for one in unfinished if one.started is not None}
        spans += [(started, end) for started in running.values()]
        busy = sum(max(0.0, min(last, end) - max(first, begin)) for first, last in spans)
        return min(1.0, busy / ((end - begin) * self.engine.workers))

    def _times(self) -> dict[str, Distribution]:
        """How long the newest answers took: the wait, the run, and both together."""
        return {
            "wait": Distribution.of(record.queue_time for record in self._answers),
            "run": Distribution.of(record.inference_time for record in self._answers),
            "latency": Distribution.of(record.latency for record in self._answers),
        }

    def _history(self, unfinished: Sequence[Unfinished], end: int) -> dict[str, list[int]]:
        """The last `SPAN` whole seconds, oldest first: a column for each field of `Second`."""
        span = range(end - SPAN, end)
        seconds = [self._seconds.get(at) or Second() for at in span]
        columns = {
            field.name: [getattr(second, field.name) for second in seconds]
            for field in fields(Second)
        }
        # Who is not through is in no record yet.
        came = Counter(math.floor(request.arrived) for request in unfinished)
        waits = Counter(
            max(math.floor(request.arrived), span[0])
            for request in unfinished
            if request.started is None
        )
        for n, waiting in enumerate(accumulate(waits[at] for at in span)):
            columns["arrived"][n] += came[span[n]]
            columns["waiting"][n] += waiting
        return columns

    def _timeline(self, unfinished: Sequence[Unfinished], now: float) -> list[dict[str, Any]]:
        """The newest requests in the order of arrival, their times as seconds from now."""
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


def about(engine: Engine) -> dict[str, Any]:
    """What the server is, and what may be set."""
    policy = engine.policy
    return {
        "name": engine.name,
        "state": engine.state,
        "model": "not loaded" if engine.model is None else engine.model.name,
        "policy": {
            "repr": label(policy),
            "name": type(policy).__name__,
            "options": options(policy),
        },
        "policies": {name: options(kind()) for name, kind in sorted(BUILT_IN.items())},
        "task": "" if engine.model is None else engine.model.task or "",
        "accepts": [] if engine.model is None else sorted(engine.model.accepts),
        "error": engine.error,
        "warnings": engine.warnings,
        "span": SPAN,
    }


def _failing(engine: Engine) -> dict[str, Any] | None:
    """The error of a failing model, as `LastError` has it."""
    error = engine.failing
    return None if error is None else asdict(error)


def _errors(engine: Engine, now: float) -> list[dict[str, Any]]:
    """The newest errors, newest first."""
    return [
        {
            "type": error.type,
            "message": error.message,
            "ago": max(0.0, now - error.at),
            "times": error.times,
            "request": error.request,
        }
        for error in engine.errors()[:MOST_ERRORS]
    ]


def _changes(engine: Engine, now: float) -> list[dict[str, Any]]:
    """The policies that took effect within the time that the picture shows, oldest first."""
    return [
        {"ago": max(0.0, now - change.at), "policy": change.policy, "reason": change.reason}
        for change in engine.policy_changes()
        if now - change.at <= SPAN
    ]


def told(picture: dict[str, Any], said: Callable[[str], str]) -> dict[str, Any]:
    """A picture for a client, which reads of errors what `said` makes of their messages."""
    failing = picture["failing"]
    return {
        **picture,
        "error": said(picture["error"]),
        "failing": failing and {**failing, "message": said(failing["message"])},
        "errors": [{**error, "message": said(error["message"])} for error in picture["errors"]],
    }


def options(policy: Policy) -> dict[str, str]:
    """The options of a policy that ships, as they are written; none for another."""
    if type(policy) not in BUILT_IN.values():
        return {}
    built: Any = policy  # a dataclass, as all of them
    return {field.name: repr(getattr(built, field.name)) for field in fields(built) if field.init}


def steer(engine: Engine, action: Any) -> None:
    """Do what a control of the dashboard asks for.

    ``{"do": "pause"}``, ``{"do": "resume"}`` or ``{"do": "policy", "policy": "Greedy(8)"}``.
    Raises `OptionError` for anything else, and where the policy makes no sense.
    """
    match action:
        case {"do": "pause"}:
            engine.pause(True)
        case {"do": "resume"}:
            engine.pause(False)
        case {"do": "policy", "policy": str(text)}:
            engine.policy = parse_policy(text)
        case _:
            raise OptionError(f"a dashboard can pause, resume or set a policy, not {action!r}")


def _percentiles(spread: Distribution) -> dict[str, float | None]:
    """As JSON, where there is no not-a-number."""
    return {name: None if math.isnan(value) else value for name, value in asdict(spread).items()}


def _counts(values: Iterable[Any]) -> dict[str, int]:
    """How often each value came, in the order of the values."""
    return {str(value): count for value, count in sorted(Counter(values).items())}
