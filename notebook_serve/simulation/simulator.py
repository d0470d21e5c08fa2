"""Discrete-event simulation: a heap of events and a virtual clock drive the server's scheduler."""

from __future__ import annotations

import copy
import heapq
import math
import random
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, count, cycle, islice, repeat
from typing import Any, Literal, get_args

from ..errors import OptionError
from ..queueing.cost_model import CostModel, check_cost
from ..queueing.jobs import Batch, Job
from ..queueing.noise import Factors, Noise
from ..queueing.policies import Greedy, NoBatching, Policy, PolicyLike, label
from ..queueing.policy_registry import KINDS, as_policy
from ..queueing.record_log import BatchLog, RequestLog
from ..queueing.scheduler import Scheduler
from ..queueing.wait_estimate import USABLE, WaitEstimate
from ..records import Outcome
from ..traffic import ClosedLoop, Lengths, Traffic, as_lengths, bounded
from ..validation.numbers import TINY, as_number, as_whole_number
from ..validation.tracebacks import entry_point
from .report import Report

#: the choice of the queue for an arrival, if there are several replicas
Dispatch = Literal["shared", "round_robin", "random", "shortest", "least_work"]

#: seconds of endless traffic, if the caller gives no duration
DURATION = 60.0
#: seconds until a rejected client of a closed loop sends again, if it does not think longer
RETRY = 0.1


@entry_point
def simulate(
    policy: PolicyLike,
    traffic: Traffic | Sequence[float] | ClosedLoop,
    cost: Callable[[Sequence[int]], float],
    *,
    lengths: Lengths | Sequence[int] | int = 1,
    groups: Sequence[str] | None = None,
    duration: float | None = None,
    replicas: int = 1,
    dispatch: Dispatch = "shared",
    max_queue_size: float = math.inf,
    timeout: float = math.inf,
    refuse_late: bool = False,
    patience: float = math.inf,
    deadline: float | None = None,
    noise: float | Noise = 0.0,
    slowdown: Callable[[float], float] | None = None,
    warmup: float = 0.1,
    seed: int = 0,
) -> Report:
    """Simulate `traffic` under `policy`, with batches that take the seconds that `cost` predicts.

    The scheduler and the policy are those of the server, on a virtual clock. Equal arguments give
    equal reports. `policy` is copied, so it keeps nothing that it learns in a simulation. If there
    is nothing to decide (`NoBatching` or `Greedy`, one worker, no limits, no groups), a recursion
    computes the same numbers faster.

    >>> from notebook_serve import CostModel, Greedy, simulate, traffic
    >>> cost = CostModel(fixed=0.008, per_token=0.0002)
    >>> report = simulate(Greedy(16), traffic.Poisson(100.0, n=5000), cost, lengths=20)
    >>> round(report.throughput), round(report.mean_batch_size, 1)
    (101, 1.7)

    The notes of the report have the warnings of a fitted `CostModel`, and say if batches or inputs
    were larger than those of the fit. If the model fits badly, figures that depend on it show one
    digit.

    Args:
        policy: The policy that chooses the next batch.
        traffic: Arrival times (seconds from the start), or a `ClosedLoop`.
        cost: Function from the lengths of a batch to its seconds. The overheads of a `CostModel`,
            such as `turnaround` and `handling`, are added.
        lengths: Length of each input: one number, a sequence that repeats, or a distribution.
        groups: Group of each input, a sequence that repeats; a batch has inputs of one group.
        duration: Seconds of traffic; by default all of it, or a minute of endless traffic.
        replicas: Number of workers, each with its own model.
        dispatch: ``shared`` for one queue that feeds all workers. Otherwise each has its own queue,
            and an arrival joins one: in turn (``round_robin``), at random (``random``), with the
            fewest requests waiting or running (``shortest``), or with the least seconds of work,
            each request counted as a batch of one (``least_work``).
        max_queue_size: Most requests that may wait in a queue; further requests are rejected.
        timeout: Seconds after which an unanswered request expires.
        refuse_late: Reject requests that are predicted to miss `timeout`, as a server does.
        patience: Mean of the exponential time after which a client cancels, in seconds.
        deadline: Seconds within which an answer counts as goodput; by default the timeout.
        noise: Variation of batches around `cost`: a coefficient of variation, independent for each
            batch, or a `Noise` with autocorrelation, such as the ``noise`` of a fitted `CostModel`.
        slowdown: Function from the start time of a batch to a factor of its seconds, such as a
            recorded speed of a machine.
        warmup: Share of the duration that the report's statistics exclude.
        seed: Seed of all random choices here; traffic and lengths have seeds of their own.
    """
    chosen: Policy = as_policy(policy)
    check_cost(cost)
    if slowdown is not None and not callable(slowdown):
        raise OptionError(
            f"slowdown must be a function of the time, got {slowdown!r}; "
            f"write slowdown=lambda now: {slowdown!r}"
        )
    kinds = get_args(Dispatch)
    if dispatch not in kinds:
        raise OptionError(f"dispatch must be one of {', '.join(kinds)}, got {dispatch!r}")
    replicas = as_whole_number("replicas", replicas)
    as_number("duration", 0.0 if duration is None else duration, "a number of seconds >= 0")
    as_number("max_queue_size", max_queue_size, "a number >= 1", least=1.0, most=math.inf)
    _check_positive("timeout", timeout)
    _check_positive("patience", patience)
    _check_positive("deadline", timeout if deadline is None else deadline)
    if not isinstance(noise, Noise):
        noise = Noise(noise)
    shared = dispatch == "shared"
    lanes = [
        Lane(copy.deepcopy(chosen), replicas if shared else 1)
        for _ in range(1 if shared else replicas)
    ]
    simulation = Simulation(lanes, cost, dispatch, seed)
    simulation.lengths = iter(as_lengths(lengths))
    simulation.groups = cycle(groups) if groups else repeat("")
    simulation.max_queue_size = max_queue_size
    simulation.timeout = timeout
    simulation.refuse_late = refuse_late
    simulation.tracks = refuse_late or dispatch in ("shortest", "least_work")
    simulation.patience = patience
    simulation.set_noise(noise, slowdown)
    if isinstance(traffic, ClosedLoop):
        duration = DURATION if duration is None else duration
        simulation.run_closed(traffic, duration)
    else:
        arrivals, duration = bounded(traffic, duration, DURATION)
        unlimited = math.inf == max_queue_size == timeout == patience
        if unlimited and replicas == 1 and not groups and type(chosen) in (NoBatching, Greedy):
            simulation.run_in_order(arrivals, getattr(chosen, "max_batch_size", 1))
        else:
            simulation.run(arrivals)
    faults = [str(lane.scheduler.fault) for lane in lanes if lane.scheduler.fault]
    return Report(
        records=simulation.log(),
        batches=simulation.batches,
        duration=duration,
        policy=label(chosen),
        source="simulated",
        deadline=timeout if deadline is None else deadline,
        warmup=warmup,
        replicas=replicas,
        notes=(
            *faults,
            *_doubts(cost, simulation),
        ),
        fault=faults[0] if faults else "",
        error=cost.error if isinstance(cost, CostModel) else math.nan,
    )


def _doubts(cost: Callable[[Sequence[int]], float], simulation: Simulation) -> tuple[str, ...]:
    """Return the warnings of a cost model for a simulation that used it."""
    if not isinstance(cost, CostModel):
        return ()
    largest = max(map(len, simulation.batches.lengths), default=0)
    return cost.doubts(largest, max(simulation.length, default=0))


def _check_positive(name: str, value: object) -> None:
    as_number(name, value, "a positive number of seconds", least=TINY, most=math.inf)


def as_seconds(value: Any) -> float:
    """Return the result of a cost function as a number. Raises `OptionError` if it is below 0."""
    try:
        seconds = math.nan if isinstance(value, (str, bytes)) else float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise OptionError(f"a cost must be a number of seconds >= 0, got {value!r}")
    return seconds


class Lane:
    """A queue and the workers that it feeds."""

    def __init__(self, policy: Policy, workers: int) -> None:
        self.scheduler = Scheduler(policy)
        # A policy of the user's may read the cost model of its queue without observing batches.
        self.observed = hasattr(policy, "observe") or type(policy) not in KINDS.values()
        self.workers = self.idle = workers
        self.wake_at = math.inf
        self.backlog = WaitEstimate(self.scheduler.online_cost)
        #: number of running requests
        self.running = 0
        #: seconds of the waiting requests, each as a batch of one; and end of the running batches
        self.work = 0.0
        self.busy_until = 0.0


class Simulation:
    """The events of one run, and the columns of its records by request number."""

    def __init__(
        self, lanes: list[Lane], cost: Callable[[Sequence[int]], float], dispatch: str, seed: int
    ) -> None:
        self.lanes = lanes
        self.cost = cost
        #: seconds of handling; they delay all later times of a request equally, so they are added
        #: to its records and not to its events
        self.handling = getattr(cost, "handling", 0.0)
        #: seconds from the end of a batch until it is answered, plus `per_answer` for each request
        self.answering = getattr(cost, "answering", 0.0)
        self.per_answer = getattr(cost, "per_answer", 0.0)
        #: seconds until a worker is free again after a batch
        self.turnaround = getattr(cost, "turnaround", 0.0)
        #: seconds by which an arrival delays the running batch, divided among the workers
        self.per_arrival = getattr(cost, "per_arrival", 0.0) / sum(lane.workers for lane in lanes)
        self.dispatch = dispatch
        self.lengths: Iterator[int] = iter(())
        self.groups: Iterator[str] = repeat("")
        self.max_queue_size = self.timeout = self.patience = math.inf
        self.refuse_late = False
        #: True if rejections or the dispatch depend on the work of a lane
        self.tracks = False
        #: the factor of a batch as a function of its start time; None for no noise
        self._factor: Callable[[float], float] | None = None
        self.batches = BatchLog()
        self.arrived: list[float] = []
        self.length: list[int] = []
        self.group: list[str] = []
        self.started: list[float | None] = []
        self.finished: list[float] = []
        self.outcome: list[Outcome] = []
        self.batch: list[int | None] = []
        self._random = random.Random(f"service {seed}")  # noqa: S311  # no secret is made of it
        self._serial = count()
        #: events: a time, a serial number for ties, a function and its argument
        self._events: list[tuple[float, int, Callable[..., None], Any]] = []
        #: the times at which impatient clients cancel, if before their deadline
        self._leaving: dict[int, float] = {}
        #: called with the time and the outcome when a request ends; set by a closed loop
        self._ended: Callable[[float, Outcome], None] | None = None

    # -- the clock ------------------------------------------------------------------------

    def run(self, arrivals: Sequence[float]) -> None:
        """Simulate requests that arrive at these times, until all have ended."""
        self._extend(arrivals)
        events, lanes = self._events, self.lanes
        only = lanes[0] if len(lanes) == 1 else None
        last = len(arrivals) - 1
        for number, at in enumerate(arrivals):
            # Arrivals at the same time all join the queue before a worker polls it.
            while events and events[0][0] < at:
                self._step()
            lane = only or self._dispatch(number, at)
            self._arrive(lane, number, at)
            if lane.idle:
                if number < last and arrivals[number + 1] == at:
                    self._schedule(at, self._poll, lane)
                else:
                    self._poll(at, lane)
        while events:
            self._step()

    def run_in_order(self, arrivals: Sequence[float], most: int) -> None:
        """Simulate one worker that always takes the oldest requests, at most `most` of them.

        Without time-outs, rejections and reordering, no events are needed: a batch starts at the
        end of the previous batch or at the next arrival (Lindley, "The Theory of Queues with a
        Single Server", 1952). The results equal those of `run`, several times as fast.
        """
        self._extend(arrivals)
        lengths, cost, factor, inf = self.length, self.cost, self._factor, math.inf
        # Equivalent to `BatchLog.add`, without a call for each batch.
        reason, ran, start, took, left = (each.append for each in self.batches.columns)
        answered: list[float] = []
        count, first, come, now = len(arrivals), 0, 0, 0.0
        handling, turnaround = self.handling, self.turnaround
        later, each, per_arrival = handling + self.answering, self.per_answer, self.per_arrival
        while first < count:
            # Without max and min, which are expensive in a loop of a million rounds.
            if arrivals[first] > now:
                now = arrivals[first]
            while come < count and arrivals[come] <= now:
                come += 1
            last = come if come - first < most else first + most
            taken = tuple(lengths[first:last])
            seconds = cost(taken)
            if factor or type(seconds) is not float or not 0 <= seconds < inf:
                seconds = self._apply_noise(seconds, now)
            if per_arrival:
                seconds += self._arrival_delay(now, seconds)
            end = now + seconds
            reason("full" if last - first == most else "idle")
            ran(taken)
            start(now + handling)
            took(seconds)
            left(come - last)
            answered.append(end + later + each * (last - first))
            first, now = last, end + turnaround
        sizes = list(map(len, self.batches.lengths))
        self.started[:] = chain.from_iterable(map(repeat, self.batches.started, sizes))
        self.finished[:] = chain.from_iterable(map(repeat, answered, sizes))
        self.batch[:] = chain.from_iterable(map(repeat, range(len(sizes)), sizes))

    def run_closed(self, traffic: ClosedLoop, duration: float) -> None:
        """Simulate clients that send again after each answer, for `duration` seconds."""

        def schedule_next(at: float, outcome: Outcome) -> None:
            pause = max(traffic.think, RETRY) if outcome == "rejected" else traffic.think
            if at + pause < duration:
                self._schedule(at + pause, send, None)

        def send(now: float, _: None) -> None:
            number = len(self.arrived)
            self._extend([now])
            lane = self._dispatch(number, now)
            self._arrive(lane, number, now)
            if lane.idle:
                self._schedule(now, self._poll, lane)

        self._ended = schedule_next
        for _ in range(traffic.clients):
            self._schedule(0.0, send, None)
        while self._events:
            self._step()

    def _schedule(self, time: float, handler: Callable[..., None], argument: Any) -> None:
        heapq.heappush(self._events, (time, next(self._serial), handler, argument))

    def _step(self) -> None:
        now, _, handler, argument = heapq.heappop(self._events)
        handler(now, argument)

    # -- events ---------------------------------------------------------------------------

    def _extend(self, arrivals: Sequence[float]) -> None:
        """Extend the columns by requests that arrive at these times."""
        count = len(arrivals)
        self.arrived += arrivals
        self.length += islice(self.lengths, count)
        self.group += islice(self.groups, count)
        self.started += [None] * count
        self.finished += [math.inf] * count
        self.outcome += ["ok"] * count
        self.batch += [None] * count

    def _arrive(self, lane: Lane, number: int, now: float) -> None:
        if not self._admits(lane, now):
            self._end(number, now, "rejected")
            return
        length = self.length[number]
        lane.scheduler.offer(Job(number, now, length, now + self.timeout, self.group[number]))
        if self.tracks:
            lane.backlog.add(length)
            lane.work += as_seconds(self.cost((length,)))
        if self._ended is not None and self.timeout < math.inf:
            # A client of a closed loop must see the time-out when it occurs, not at the next poll.
            self._schedule(now + self.timeout, self._expire, lane)
        if self.patience < math.inf:
            leaving = now + self._random.expovariate(1 / self.patience)
            if leaving < now + self.timeout:
                self._leaving[number] = leaving
                self._schedule(leaving, self._cancel, (lane, number))

    def _admits(self, lane: Lane, now: float) -> bool:
        if self.max_queue_size == math.inf and not self.refuse_late:
            return True
        self._expire(now, lane)
        depth = len(lane.scheduler.waiting)
        if depth + 1 > self.max_queue_size:
            return False
        if not self.refuse_late or not depth:
            return True
        seconds = lane.backlog.seconds(depth + 1)
        return seconds is None or seconds <= USABLE * self.timeout * lane.workers

    def _poll(self, now: float, lane: Lane) -> None:
        """Start the batches that the policy releases, while a worker is idle."""
        scheduler = lane.scheduler
        while lane.idle and scheduler.waiting:
            self._expire(now, lane)
            batch = scheduler.poll(now)
            for job in scheduler.dropped():
                self._subtract_work(lane, job)
                self._end(job.id, now, "rejected")
            if batch is None:
                if now < scheduler.wake_at < math.inf and scheduler.wake_at != lane.wake_at:
                    lane.wake_at = scheduler.wake_at
                    self._schedule(lane.wake_at, self._poll, lane)
                return
            self._start(lane, batch, now)

    def _start(self, lane: Lane, batch: Batch, now: float) -> None:
        jobs, batches = batch.jobs, self.batches
        lengths = tuple([job.length for job in jobs])
        seconds = self._apply_noise(self.cost(lengths), now)
        if self.per_arrival:
            seconds += self._arrival_delay(now, seconds)
        end, number = now + seconds, len(batches)
        begun = now + self.handling
        answered = end + (self.handling + self.answering) + self.per_answer * len(jobs)
        batches.add(batch.reason, lengths, begun, seconds, batch.waiting)
        for job in jobs:
            self.started[job.id] = begun
            self.batch[job.id] = number
            self._end_running(job, answered)
            self._subtract_work(lane, job)
        lane.idle -= 1
        lane.running += len(jobs)
        free = end + self.turnaround
        lane.busy_until = max(lane.busy_until, free)
        self._schedule(free, self._finish, (lane, number))

    def set_noise(self, noise: Noise, slowdown: Callable[[float], float] | None) -> None:
        """Set the variation of batches around their cost."""
        factors = Factors(noise, self._random) if noise else None
        if factors is not None and slowdown is not None:
            self._factor = lambda now: factors(now) * slowdown(now)
        else:
            self._factor = factors or slowdown

    def _apply_noise(self, seconds: float, now: float) -> float:
        """Return the duration of a batch that starts `now` with an expected duration."""
        seconds = as_seconds(seconds)
        return seconds if self._factor is None else as_seconds(seconds * self._factor(now))

    def _arrival_delay(self, now: float, seconds: float) -> float:
        """Return the delay of a batch by the arrivals while it runs.

        Only the arrivals of an open loop are known in advance. Clients of a closed loop send again
        after a batch, and so delay none.
        """
        first = bisect_right(self.arrived, now)
        return self.per_arrival * (bisect_right(self.arrived, now + seconds, first) - first)

    def _end_running(self, job: Job, end: float) -> None:
        """Record the end of a job in a batch that is answered at `end`."""
        leaving = self._leaving.get(job.id, math.inf) if self._leaving else math.inf
        if end < job.deadline and end < leaving:
            self._end(job.id, end, "ok")
        elif leaving < job.deadline:
            self._end(job.id, leaving, "cancelled")
        else:
            self._end(job.id, job.deadline, "expired")

    def _finish(self, now: float, argument: tuple[Lane, int]) -> None:
        """Free the worker of a batch, and let the policy learn from it."""
        lane, number = argument
        lane.idle += 1
        if self.tracks or lane.observed:
            record = self.batches[number]
            lane.running -= record.size
            lane.backlog.learn(record)
            lane.scheduler.finish(record)
        self._poll(now, lane)

    def _cancel(self, now: float, argument: tuple[Lane, int]) -> None:
        """Cancel a request of an impatient client, if it still waits."""
        lane, number = argument
        del self._leaving[number]
        job = lane.scheduler.withdraw(number)
        if job is not None:
            self._subtract_work(lane, job)
            self._end(number, now, "cancelled")

    def _expire(self, now: float, lane: Lane) -> None:
        """Time out waiting requests after their deadline."""
        if self.timeout < math.inf:
            for job in lane.scheduler.expire(now):
                self._subtract_work(lane, job)
                self._end(job.id, job.deadline, "expired")

    def _subtract_work(self, lane: Lane, job: Job) -> None:
        """Subtract a job that has left the queue from the work of its lane."""
        if self.tracks:
            lane.backlog.discard(job.length)
            lane.work -= self.cost((job.length,))

    def _end(self, number: int, at: float, outcome: Outcome) -> None:
        self.finished[number] = at
        self.outcome[number] = outcome
        if self._ended is not None:
            self._ended(at, outcome)

    def _dispatch(self, number: int, now: float) -> Lane:
        lanes = self.lanes
        if self.dispatch == "round_robin":
            return lanes[number % len(lanes)]
        if self.dispatch == "random":
            return lanes[int(self._random.random() * len(lanes))]
        for lane in lanes:
            self._expire(now, lane)
        if self.dispatch == "shortest":
            return min(lanes, key=lambda lane: len(lane.scheduler.waiting) + lane.running)
        return min(lanes, key=lambda lane: lane.work + max(0.0, lane.busy_until - now))

    def log(self) -> RequestLog:
        """Return the records of all requests."""
        count = len(self.arrived)
        sizes = list(map(len, self.batches.lengths))
        return RequestLog(
            list(range(count)),
            self.arrived,
            self.started,
            self.finished,
            self.outcome,
            self.batch,
            [0 if number is None else sizes[number] for number in self.batch],
            self.length,
            self.group,
            [""] * count,
        )
