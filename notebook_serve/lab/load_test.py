"""Load test of a server or a URL, with an open or a closed loop."""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections import Counter
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from numbers import Integral, Real
from types import NoneType
from typing import Any

from ..display import duration as duration_of
from ..endpoint import Endpoint
from ..errors import InvalidInput, OptionError
from ..models.parameters import Parameters
from ..progress import Show, progress_bar
from ..queueing.policies import label
from ..queueing.policy_history import policies_between
from ..queueing.record_log import RequestLog
from ..queueing.stats import KEEP_BATCHES, Distribution
from ..records import BatchRecord, Outcome, PolicyChange, RequestRecord
from ..server import Server
from ..simulation.report import Report
from ..simulation.simulator import RETRY
from ..traffic import ClosedLoop, Traffic, bounded
from ..validation.checks import check_flags, shown
from ..validation.numbers import TINY
from ..validation.tracebacks import entry_point
from .run_sync import run_sync
from .targets import CLIENT, QueueTarget, Reply, Target, UrlTarget

#: seconds of traffic if neither the traffic nor the caller limits it
DURATION = 10.0
#: connections opened before an open loop begins; it opens more when it needs them
CONNECTIONS = 32
#: most due requests started in one step, before other tasks run
BURST = 64
#: seconds between two updates of the progress bar
TICK = 0.1
#: an open loop's generator counts as the bottleneck if its p99 lateness is above this many seconds
#: and above this share of the median latency
LATE, LATE_SHARE = 0.010, 0.1
#: a closed loop's generator counts as the bottleneck if its thread was busy for this share of time
BUSY = 0.8


@entry_point
def load_test(
    target: Server | Endpoint | str,
    inputs: Sequence[Any],
    *,
    traffic: Traffic | Sequence[float] | ClosedLoop | None = None,
    concurrency: int | None = None,
    duration: float | None = None,
    think: float = 0.0,
    parameters: Mapping[str, Any] | None = None,
    timeout: float = 60.0,
    headers: Mapping[str, str] | None = None,
    deadline: float = math.inf,
    warmup: float = 0.1,
    progress: bool | None = None,
    share_loop: bool = False,
) -> Report:
    """Send requests to a server or a URL, and report the outcome of each.

    It works in a script, a cell and an async function. An interrupt (Ctrl+C, the notebook's stop
    button) cancels the requests in flight and returns the report so far.

    With `traffic` the loop is open: each request is sent at its scheduled time, independent of
    earlier answers, and any number of requests may be in flight. Latency counts from the scheduled
    time, so a slow server cannot hide its own delay (coordinated omission). The report's
    ``lateness`` is the delay of the generator itself. With `concurrency` the loop is closed: that
    many users each send a request, wait for the answer, and send the next.

    A note in the report says if the generator was the bottleneck. A server in the same process
    shares the GIL with it: to measure HTTP fairly, call the server's URL from another process.

    Args:
        target: A `Server` or one of its models, called through its queue without HTTP; or a URL
            for POST requests.
        inputs: The inputs, sent in turn, one to a request. Over HTTP a text is sent as text/plain,
            bytes as application/octet-stream, and other inputs as JSON.
        traffic: Arrival times in seconds, such as ``Poisson(50)``, or a `ClosedLoop`.
        concurrency: The number of users of a closed loop, instead of `traffic`.
        duration: Seconds of traffic. By default all of it, or 10 s of endless traffic. The test
            then waits for the requests in flight.
        think: Seconds that a user of a closed loop waits before its next request; at least 0.1
            after a rejection (status 503).
        parameters: The parameters of every request; over HTTP they are sent as JSON.
        timeout: Seconds until a request times out.
        headers: The headers of every HTTP request, such as ``{"Authorization": "Bearer TOKEN"}``.
        deadline: Seconds within which an answer counts towards goodput.
        warmup: The share of the duration that the report's statistics leave out.
        progress: True shows a progress bar, which needs tqdm. By default it is shown if the traffic
            lasts more than 2 seconds and the output is a notebook or a terminal.
        share_loop: In a cell or an async function, a load test runs on a new thread, and the
            running event loop waits until it ends. True runs it on that loop instead, with
            nest_asyncio. This is needed only if a task of that loop serves the URL, such as uvicorn
            with ``server.app``; ``await aload_test(...)`` is the better way. In a cell, use it only
            with no other cell queued: ipykernel 7 loses queued cells.

    Raises:
        OptionError: An option is invalid.
        Unavailable: The server accepts no requests, or no server answers at the URL.
    """
    load = _make_load(
        target,
        inputs,
        traffic=traffic,
        concurrency=concurrency,
        duration=duration,
        think=think,
        parameters=parameters,
        timeout=timeout,
        headers=headers,
        deadline=deadline,
        warmup=warmup,
        progress=progress,
    )
    check_flags(share_loop=share_loop)
    return run_sync(_run_until_interrupted(load), share_loop)


@entry_point
async def aload_test(
    target: Server | Endpoint | str,
    inputs: Sequence[Any],
    *,
    traffic: Traffic | Sequence[float] | ClosedLoop | None = None,
    concurrency: int | None = None,
    duration: float | None = None,
    think: float = 0.0,
    parameters: Mapping[str, Any] | None = None,
    timeout: float = 60.0,
    headers: Mapping[str, str] | None = None,
    deadline: float = math.inf,
    warmup: float = 0.1,
    progress: bool | None = None,
) -> Report:
    """Run `load_test` as a coroutine. If it is cancelled, so are the requests in flight."""
    load = _make_load(
        target,
        inputs,
        traffic=traffic,
        concurrency=concurrency,
        duration=duration,
        think=think,
        parameters=parameters,
        timeout=timeout,
        headers=headers,
        deadline=deadline,
        warmup=warmup,
        progress=progress,
    )
    await load.run()
    return load.report()


async def _run_until_interrupted(load: Load) -> Report:
    try:
        await load.run()
    except asyncio.CancelledError:
        load.interrupted = True
    return load.report()


# -- the load -----------------------------------------------------------------------------


@dataclass(eq=False)
class Load:
    """Run of a load test: the requests to send and their records."""

    target: Target
    #: scheduled times, or the users of a closed loop
    plan: Sequence[float] | ClosedLoop
    #: seconds of traffic
    duration: float
    #: None for a URL
    server: Server | Endpoint | None = None
    deadline: float = math.inf
    warmup: float = 0.1
    progress: bool | None = None
    interrupted: bool = False
    #: ended requests, by their number in the order of sending
    records: dict[int, RequestRecord] = field(default_factory=dict)
    #: seconds from the scheduled time of each request of an open loop until it was sent
    lateness: list[float] = field(default_factory=list)
    #: number of errors of each kind, and the first message of each
    errors: Counter[str] = field(default_factory=Counter)
    messages: dict[str, str] = field(default_factory=dict)
    #: seconds for which requests were sent
    offered: float = 0.0
    #: share of these seconds in which the generator's thread computed
    busy: float = 0.0

    def __post_init__(self) -> None:
        self.policy = "" if self.server is None else label(self.server.policy)
        #: monotonic time that is 0 in the report
        self.origin = time.monotonic()
        self._numbers = count()
        self._sent = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Send all requests and wait for the answers; if cancelled, cancel them."""
        users = self.plan.clients if isinstance(self.plan, ClosedLoop) else None
        try:
            with progress_bar(self.progress, self.duration) as show:
                await self.target.open(CONNECTIONS if users is None else users)
                self.origin = time.monotonic()
                showing = asyncio.create_task(self._show(show))
                try:
                    await self._send_all()
                    while self._tasks:
                        await asyncio.wait(self._tasks)
                finally:
                    await _cancel(showing, *self._tasks)
                    self._draw(show, max(self._now(), self.offered))
        finally:
            await self.target.close()

    async def _send_all(self) -> None:
        begun = time.thread_time()
        try:
            if isinstance(self.plan, ClosedLoop):
                await self._run_closed_loop(self.plan)
            else:
                await self._run_open_loop(self.plan)
        except asyncio.CancelledError:
            self.offered = min(self._now(), self.duration)
            raise
        self.offered = self.duration
        self.busy = (time.thread_time() - begun) / max(self._now(), TINY)

    async def _run_open_loop(self, times: Sequence[float]) -> None:
        """Send each request at its scheduled time, or at once if it is due."""
        for number, at in enumerate(times):
            if number % BURST == 0:
                await asyncio.sleep(0)
            while (early := at - self._now()) > 0:  # some event loops wake up early
                await asyncio.sleep(early)
            self._start(self._send_at(at))

    async def _run_closed_loop(self, plan: ClosedLoop) -> None:
        """Run all users, each of which sends its next request after an answer."""
        for _ in range(plan.clients):
            self._start(self._run_user(plan.think))
        await asyncio.wait(self._tasks)

    async def _run_user(self, think: float) -> None:
        while (at := self._now()) < self.duration:
            outcome = await self._send(at)
            pause = max(think, RETRY) if outcome == "rejected" else think
            if self._now() + pause >= self.duration:
                return
            await asyncio.sleep(pause)

    async def _send_at(self, scheduled: float) -> None:
        self.lateness.append(self._now() - scheduled)
        await self._send(scheduled)

    async def _send(self, arrived: float) -> Outcome:
        """Send one request, and record its outcome with `arrived` as its arrival."""
        number = next(self._numbers)
        self._sent += 1
        try:
            reply = await self.target.send(number)
        except asyncio.CancelledError:
            self._record(number, arrived, Reply("cancelled", time.monotonic()))
            raise
        self._record(number, arrived, reply)
        return reply.outcome

    def _record(self, number: int, arrived: float, reply: Reply) -> None:
        self.records[number] = RequestRecord(
            id=number,
            arrived=arrived,
            started=None if reply.started is None else reply.started - self.origin,
            finished=reply.finished - self.origin,
            outcome=reply.outcome,
            batch_id=reply.batch_id,
            batch_size=reply.batch_size,
            length=reply.length,
            group=reply.group,
            client=CLIENT,
        )
        if reply.error is not None:
            kind, message = reply.error
            self.errors[kind] += 1
            self.messages.setdefault(kind, message)

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _show(self, show: Show | None) -> None:
        while show is not None:
            self._draw(show, self._now())
            await asyncio.sleep(TICK)

    def _draw(self, show: Show | None, passed: float) -> None:
        if show is not None:
            ended = len(self.records)
            show(passed, f"{ended} ended, {self._sent - ended} in flight")

    def _now(self) -> float:
        return time.monotonic() - self.origin

    # -- the report -----------------------------------------------------------------------

    def report(self) -> Report:
        """Return the report of all requests that ended."""
        batches, is_complete = self._list_batches()
        policy, changes = self._list_policies()
        made = Report(
            records=RequestLog.of(self.records[number] for number in sorted(self.records)),
            batches=batches,
            duration=self.offered,
            policy=policy,
            changes=changes,
            deadline=self.deadline,
            warmup=self.warmup,
            replicas=1 if self.server is None else self.server.limits["replicas"],
            lateness=Distribution.of(self.lateness) if self.lateness else None,
        )
        return replace(made, notes=tuple(self._make_notes(made, is_complete)))

    def _list_policies(self) -> tuple[str, tuple[PolicyChange, ...]]:
        """Return the policy at the start, and the changes until the last answer."""
        if self.server is None:
            return self.policy, ()
        ended = (record.finished for record in self.records.values())
        end = self.origin + max(self.offered, *ended, 0.0)
        first, changes = policies_between(self.server.policy_changes(), self.origin, end)
        return first or self.policy, changes

    def _list_batches(self) -> tuple[list[BatchRecord], bool]:
        """Return the server's batches since the start, and True if none is missing."""
        if self.server is None:
            return [], True
        kept = self.server.batches()
        # The request ids in a batch are the server's, not those of the report.
        ran = [
            replace(batch, started=batch.started - self.origin, requests=())
            for batch in kept
            if batch.started >= self.origin
        ]
        return ran, len(kept) < KEEP_BATCHES or len(ran) < len(kept)

    def _make_notes(self, made: Report, is_complete: bool) -> Iterator[str]:
        if self.interrupted:
            yield (
                f"Interrupted after {self.offered:.1f} s: {made.outcomes['cancelled']} requests in "
                "flight were cancelled."
            )
        slow = describe_bottleneck(made.lateness, made.latency.p50, self.busy)
        if slow:
            yield slow
        for kind, times in self.errors.most_common():
            yield f"{times} of {len(made.records)} requests ended in {kind}: {self.messages[kind]}"
        if not is_complete:
            yield (
                f"The server keeps only its newest {KEEP_BATCHES} batches; older ones are missing "
                "in this report."
            )
        pairs = zip(made.records.outcome, made.records.started, strict=True)
        if any(outcome == "ok" and started is None for outcome, started in pairs):
            yield (
                "Some answers have no headers Server-Timing and X-Batch-Size; queue time and "
                "inference time leave them out."
            )


async def _cancel(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def describe_bottleneck(lateness: Distribution | None, latency: float, busy: float) -> str:
    """Return a note if the generator limited the load, else an empty string.

    The generator of an open loop did if its p99 lateness is above 10 ms and above a tenth of the
    median `latency` (seconds). A closed loop has no `lateness`; its generator did if its thread
    computed for more than 80% of the time (`busy`).
    """
    if lateness is None:
        if busy <= BUSY:
            return ""
        return (
            f"The load generator itself was busy for {busy:.0%} of the time; the server may be "
            "faster than measured."
        )
    if not lateness.p99 > max(LATE, LATE_SHARE * (0.0 if math.isnan(latency) else latency)):
        return ""
    return (
        f"The load generator itself was late: it sent 1% of the requests at least "
        f"{duration_of(lateness.p99)} after their scheduled time. Latency includes this delay."
    )


# -- options ------------------------------------------------------------------------------


def _make_load(
    target: Server | Endpoint | str,
    inputs: Sequence[Any],
    *,
    traffic: Traffic | Sequence[float] | ClosedLoop | None,
    concurrency: int | None,
    duration: float | None,
    think: float,
    parameters: Mapping[str, Any] | None,
    timeout: float,
    headers: Mapping[str, str] | None,
    deadline: float,
    warmup: float,
    progress: bool | None,
) -> Load:
    """Return the load of these options. Raises `OptionError` before any request is sent."""
    if progress is not None:
        check_flags(progress=progress)
    if not isinstance(parameters, (Mapping, NoneType)):
        raise OptionError(f"parameters must be a dict of names and values, got {shown(parameters)}")
    _check("timeout", timeout, TINY, math.inf, "a positive number of seconds")
    _check("deadline", deadline, TINY, math.inf, "a positive number of seconds")
    _check("warmup", warmup, 0.0, math.nextafter(1.0, 0.0), "a share from 0 to below 1")
    if duration is not None:
        _check("duration", duration, TINY, sys.float_info.max, "a positive number of seconds")
    plan, seconds = _make_plan(traffic, concurrency, think, duration)
    return Load(
        _make_target(target, _list_inputs(inputs), parameters or {}, timeout, headers),
        plan,
        seconds,
        server=target if isinstance(target, (Server, Endpoint)) else None,
        deadline=deadline,
        warmup=warmup,
        progress=progress,
    )


def _make_plan(
    traffic: Traffic | Sequence[float] | ClosedLoop | None,
    concurrency: int | None,
    think: float,
    duration: float | None,
) -> tuple[Sequence[float] | ClosedLoop, float]:
    """Return the scheduled times or the closed loop, and the seconds of traffic."""
    if (traffic is None) == (concurrency is None):
        raise OptionError(
            "pass either traffic (arrival times) for an open loop or concurrency (number of users) "
            "for a closed loop"
        )
    if concurrency is not None:
        what = "a whole number >= 1"
        _check("concurrency", concurrency, 1, sys.maxsize, what, Integral)
        return ClosedLoop(concurrency, think), DURATION if duration is None else duration
    if think:
        raise OptionError("think needs concurrency: only the users of a closed loop think")
    if isinstance(traffic, ClosedLoop):
        return traffic, DURATION if duration is None else duration
    return bounded(traffic, duration, DURATION)


def _list_inputs(inputs: Sequence[Any]) -> list[Any]:
    named = isinstance(inputs, (str, bytes, bytearray, Mapping))
    if named or not hasattr(inputs, "__len__") or not hasattr(inputs, "__getitem__"):
        raise OptionError(f"inputs must be a list, even for one input, got {shown(inputs)}")
    if not len(inputs):
        raise OptionError("inputs must not be empty")
    return list(inputs)


def _make_target(
    target: Server | Endpoint | str,
    inputs: list[Any],
    parameters: Mapping[str, Any],
    timeout: float,
    headers: Mapping[str, str] | None,
) -> Target:
    if isinstance(target, str):
        return UrlTarget(target, inputs, parameters, timeout, headers or {})
    if not isinstance(target, (Server, Endpoint)):
        raise OptionError(f"target must be a server or a URL, got {shown(target)}")
    if headers:
        raise OptionError("headers need a URL as target; the queue of a server has no headers")
    _check_parameters(target, parameters)
    return QueueTarget(target._engine, inputs, parameters, timeout)


def _check_parameters(target: Server | Endpoint, parameters: Mapping[str, Any]) -> None:
    """Raise `OptionError` for parameters with which the model would reject every request."""
    known: Parameters | None = getattr(target._engine.model, "_parameters", None)
    if parameters and known is not None:
        try:
            known.check(parameters)
        except InvalidInput as error:
            raise OptionError(f"the model rejects these parameters: {error}") from None


def _check(name: str, value: Any, least: float, most: float, what: str, kind: type = Real) -> None:
    number = isinstance(value, kind) and not isinstance(value, bool)
    if not number or not least <= value <= most:
        raise OptionError(f"{name} must be {what}, got {shown(value)}")
