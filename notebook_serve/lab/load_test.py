"""Load on a server or a URL, and what it made of it."""

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

#: seconds of traffic where neither it nor the caller says when to end
DURATION = 10.0
#: connections that stand before an open loop begins; it makes more when it needs them
CONNECTIONS = 32
#: requests that are begun in one go where many are due, before others have their turn
BURST = 64
#: seconds between two looks at the progress bar
TICK = 0.1
#: an open loop's generator is named as the bottleneck where its lateness (p99) is above so many
#: seconds, and above this share of the median latency
LATE, LATE_SHARE = 0.010, 0.1
#: a closed loop's, where its thread computed for this share of the time
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
    """Put load on a server or a URL; what became of each request.

    Works in a script, in a cell and in an async function. An interrupt (Ctrl+C, the notebook's stop
    button) withdraws what is in flight and returns the report so far.

    With `traffic` the loop is open: each request is sent at its time, whatever became of those
    before, without a limit to how many are in flight. Its latency counts from the time it was
    *meant* to be sent, so that a slow server cannot hide its own delay (coordinated omission).
    How late the generator itself was is the report's ``lateness``. With `concurrency` the loop is
    closed: so many users, each of whom asks again when it was answered.

    In both a note in the report says so where the generator was the bottleneck. A server in the
    same process shares the interpreter with it: for figures of HTTP that are fair to the server,
    load its URL from another process.

    Args:
        target: A `Server` or one of its models, whose queue is loaded without HTTP; or a URL that
            is posted to.
        inputs: What to ask, in turn and over and over; each is one request, one place in the queue.
            To a URL text goes as text/plain, bytes as application/octet-stream, the rest as JSON.
        traffic: Arrival times in seconds, such as ``Poisson(50)``, or a `ClosedLoop`.
        concurrency: Instead of `traffic`: how many users ask at the same time.
        duration: Seconds of traffic; if not given all of it, or 10 of what has no end. What is in
            flight then is waited for.
        think: Seconds that a user of a closed loop waits before asking again; after a refusal
            (status 503) at least 0.1.
        parameters: Of every request; to a URL they are sent as JSON.
        timeout: Seconds after which a request is given up.
        headers: Of every request to a URL, such as ``{"Authorization": "Bearer TOKEN"}``.
        deadline: Seconds within which an answer counts as good.
        warmup: The share of the duration that the report's statistics leave out.
        progress: Whether to show a progress bar (which needs tqdm); if not given where somebody
            sees it and the traffic lasts more than 2 seconds.
        share_loop: In a cell or an async function, a load test runs on a thread of its own, and the
            running event loop stands still until it ends. True runs it on that loop, with the help
            of nest_asyncio. It is needed only if a task of that loop serves the URL, such as
            uvicorn with ``server.app``; ``await aload_test(...)`` is the better way. In a cell use
            it only with no other cell queued, because ipykernel 7 loses those.

    Raises:
        OptionError: An option makes no sense.
        Unavailable: The server takes no requests, or nobody answers at the URL.
    """
    load = _load(
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
    return run_sync(_until_interrupted(load), share_loop)


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
    """The same as `load_test`, to be awaited; a cancelled one withdraws what is in flight."""
    load = _load(
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


async def _until_interrupted(load: Load) -> Report:
    try:
        await load.run()
    except asyncio.CancelledError:
        load.interrupted = True
    return load.report()


# -- the load -----------------------------------------------------------------------------


@dataclass(eq=False)
class Load:
    """Requests that are sent, and what is known of them."""

    target: Target
    #: when to send, or who sends
    plan: Sequence[float] | ClosedLoop
    #: seconds of traffic
    duration: float
    #: None for a URL
    server: Server | Endpoint | None = None
    deadline: float = math.inf
    warmup: float = 0.1
    progress: bool | None = None
    interrupted: bool = False
    #: what ended, by its number in the order of sending
    records: dict[int, RequestRecord] = field(default_factory=dict)
    #: seconds from when each request of an open loop was meant to be sent until it was
    lateness: list[float] = field(default_factory=list)
    #: how often something went wrong, and what was said of it first
    troubles: Counter[str] = field(default_factory=Counter)
    said: dict[str, str] = field(default_factory=dict)
    #: seconds for which requests were sent
    offered: float = 0.0
    #: the share of them that the generator's thread computed
    busy: float = 0.0

    def __post_init__(self) -> None:
        self.policy = "" if self.server is None else label(self.server.policy)
        #: the zero of the report's times
        self.origin = time.monotonic()
        self._numbers = count()
        self._sent = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Send everything and wait for every answer; if cancelled, withdraw what is in flight."""
        users = self.plan.clients if isinstance(self.plan, ClosedLoop) else None
        try:
            with progress_bar(self.progress, self.duration) as show:
                await self.target.open(CONNECTIONS if users is None else users)
                self.origin = time.monotonic()
                showing = asyncio.create_task(self._show(show))
                try:
                    await self._offer()
                    while self._tasks:
                        await asyncio.wait(self._tasks)
                finally:
                    await _cancel(showing, *self._tasks)
                    self._draw(show, max(self._now(), self.offered))
        finally:
            await self.target.close()

    async def _offer(self) -> None:
        begun = time.thread_time()
        try:
            if isinstance(self.plan, ClosedLoop):
                await self._closed_loop(self.plan)
            else:
                await self._open_loop(self.plan)
        except asyncio.CancelledError:
            self.offered = min(self._now(), self.duration)
            raise
        self.offered = self.duration
        self.busy = (time.thread_time() - begun) / max(self._now(), TINY)

    async def _open_loop(self, times: Sequence[float]) -> None:
        """Send each request at its time, and all that are due at once."""
        for number, at in enumerate(times):
            if number % BURST == 0:
                await asyncio.sleep(0)
            while (early := at - self._now()) > 0:  # some loops wake up before it is over
                await asyncio.sleep(early)
            self._start(self._send_at(at))

    async def _closed_loop(self, plan: ClosedLoop) -> None:
        """Let so many users ask, each again when it was answered."""
        for _ in range(plan.clients):
            self._start(self._user(plan.think))
        await asyncio.wait(self._tasks)

    async def _user(self, think: float) -> None:
        while (at := self._now()) < self.duration:
            outcome = await self._request(at)
            pause = max(think, RETRY) if outcome == "rejected" else think
            if self._now() + pause >= self.duration:
                return
            await asyncio.sleep(pause)

    async def _send_at(self, meant: float) -> None:
        self.lateness.append(self._now() - meant)
        await self._request(meant)

    async def _request(self, arrived: float) -> Outcome:
        """Send one request that counts as arrived then, and note what becomes of it."""
        number = next(self._numbers)
        self._sent += 1
        try:
            reply = await self.target.ask(number)
        except asyncio.CancelledError:
            self._note(number, arrived, Reply("cancelled", time.monotonic()))
            raise
        self._note(number, arrived, reply)
        return reply.outcome

    def _note(self, number: int, arrived: float, reply: Reply) -> None:
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
        if reply.trouble is not None:
            kind, said = reply.trouble
            self.troubles[kind] += 1
            self.said.setdefault(kind, said)

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

    # -- what it made of it ---------------------------------------------------------------

    def report(self) -> Report:
        """What became of each request."""
        batches, kept_all = self._batches()
        policy, changes = self._policies()
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
        return replace(made, notes=tuple(self._notes(made, kept_all)))

    def _policies(self) -> tuple[str, tuple[PolicyChange, ...]]:
        """The policy when the traffic began, and those that took effect until the last answer."""
        if self.server is None:
            return self.policy, ()
        ended = (record.finished for record in self.records.values())
        end = self.origin + max(self.offered, *ended, 0.0)
        first, changes = policies_between(self.server.policy_changes(), self.origin, end)
        return first or self.policy, changes

    def _batches(self) -> tuple[list[BatchRecord], bool]:
        """The server's batches since the start, and whether these are all."""
        if self.server is None:
            return [], True
        kept = self.server.batches()
        # Its ids are the server's; the records of a report have their own, and name their batch.
        ran = [
            replace(batch, started=batch.started - self.origin, requests=())
            for batch in kept
            if batch.started >= self.origin
        ]
        return ran, len(kept) < KEEP_BATCHES or len(ran) < len(kept)

    def _notes(self, made: Report, kept_all: bool) -> Iterator[str]:
        if self.interrupted:
            yield (
                f"Interrupted after {self.offered:.1f} s; {made.outcomes['cancelled']} requests "
                "that were in flight were withdrawn."
            )
        slow = bottleneck(made.lateness, made.latency.p50, self.busy)
        if slow:
            yield slow
        for kind, times in self.troubles.most_common():
            yield f"{times} of {len(made.records)} requests ended in {kind}: {self.said[kind]}"
        if not kept_all:
            yield (
                f"The server keeps its newest {KEEP_BATCHES} batches; those before them are "
                "missing here."
            )
        ran = zip(made.records.outcome, made.records.started, strict=True)
        if any(outcome == "ok" and started is None for outcome, started in ran):
            yield (
                "Answers came without Server-Timing and X-Batch-Size, so it is not known when "
                "they ran, and queue and inference times leave them out."
            )


async def _cancel(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def bottleneck(lateness: Distribution | None, latency: float, busy: float) -> str:
    """A note if the generator was what limited the load; empty if it was not.

    An open loop's was if one request in a hundred was more than 10 ms late, and that is more than a
    tenth of the median `latency` (seconds). A closed loop, whose `lateness` is None, shows no
    lateness; its generator was if its thread computed for more than 80% of the time (`busy`).
    """
    if lateness is None:
        if busy <= BUSY:
            return ""
        return (
            f"The load generator itself was busy for {busy:.0%} of the time; the server may be "
            "faster than this says."
        )
    if not lateness.p99 > max(LATE, LATE_SHARE * (0.0 if math.isnan(latency) else latency)):
        return ""
    return (
        f"The load generator itself was late: one request in a hundred was sent "
        f"{duration_of(lateness.p99)} or more after it was meant to be. Latency includes that."
    )


# -- what the options mean ----------------------------------------------------------------


def _load(
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
    """The load that is meant; raises `OptionError` before anything is sent."""
    if progress is not None:
        check_flags(progress=progress)
    if not isinstance(parameters, (Mapping, NoneType)):
        raise OptionError(f"parameters are a dict of names and values, not {shown(parameters)}")
    _check("timeout", timeout, TINY, math.inf, "a positive number of seconds")
    _check("deadline", deadline, TINY, math.inf, "a positive number of seconds")
    _check("warmup", warmup, 0.0, math.nextafter(1.0, 0.0), "a share from 0 to below 1")
    if duration is not None:
        _check("duration", duration, TINY, sys.float_info.max, "a positive number of seconds")
    plan, seconds = _plan(traffic, concurrency, think, duration)
    return Load(
        _target(target, _checked_inputs(inputs), parameters or {}, timeout, headers),
        plan,
        seconds,
        server=target if isinstance(target, (Server, Endpoint)) else None,
        deadline=deadline,
        warmup=warmup,
        progress=progress,
    )


def _plan(
    traffic: Traffic | Sequence[float] | ClosedLoop | None,
    concurrency: int | None,
    think: float,
    duration: float | None,
) -> tuple[Sequence[float] | ClosedLoop, float]:
    """When to send or who sends, and for how many seconds."""
    if (traffic is None) == (concurrency is None):
        raise OptionError(
            "give traffic (arrival times) for an open loop, or concurrency (how many users) for a "
            "closed one, and not both"
        )
    if concurrency is not None:
        what = "a whole number from 1 up"
        _check("concurrency", concurrency, 1, sys.maxsize, what, Integral)
        return ClosedLoop(concurrency, think), DURATION if duration is None else duration
    if think:
        raise OptionError("think is for users, so it needs concurrency")
    if isinstance(traffic, ClosedLoop):
        return traffic, DURATION if duration is None else duration
    return bounded(traffic, duration, DURATION)


def _checked_inputs(inputs: Sequence[Any]) -> list[Any]:
    named = isinstance(inputs, (str, bytes, bytearray, Mapping))
    if named or not hasattr(inputs, "__len__") or not hasattr(inputs, "__getitem__"):
        raise OptionError(
            f"inputs are a list of what to ask, even if it is one, not {shown(inputs)}"
        )
    if not len(inputs):
        raise OptionError("inputs are empty; there must be something to ask")
    return list(inputs)


def _target(
    target: Server | Endpoint | str,
    inputs: list[Any],
    parameters: Mapping[str, Any],
    timeout: float,
    headers: Mapping[str, str] | None,
) -> Target:
    if isinstance(target, str):
        return UrlTarget(target, inputs, parameters, timeout, headers or {})
    if not isinstance(target, (Server, Endpoint)):
        raise OptionError(f"a load test takes a server or a URL, not {shown(target)}")
    if headers:
        raise OptionError("headers are for a URL; the queue of a server has none")
    _check_taken(target, parameters)
    return QueueTarget(target._engine, inputs, parameters, timeout)


def _check_taken(target: Server | Endpoint, parameters: Mapping[str, Any]) -> None:
    """Refuse parameters that the model does not take, as it would refuse every request."""
    known: Parameters | None = getattr(target._engine.model, "_parameters", None)
    if parameters and known is not None:
        try:
            known.check(parameters)
        except InvalidInput as error:
            raise OptionError(f"every request would be rejected: {error}") from None


def _check(name: str, value: Any, least: float, most: float, what: str, kind: type = Real) -> None:
    number = isinstance(value, kind) and not isinstance(value, bool)
    if not number or not least <= value <= most:
        raise OptionError(f"{name} is {what}, not {shown(value)}")
