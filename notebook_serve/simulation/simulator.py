"""Discrete-event simulation: a heap of events and a virtual clock drive the server's scheduler."""

from __future__ import annotations

import copy
import heapq
import math
import random
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, count, cycle, islice, repeat
from numbers import Integral, Real
from typing import Any, Literal, get_args

from ..errors import OptionError
from ..queueing.cost_model import CostModel, check_cost
from ..queueing.jobs import Batch, Job
from ..queueing.noise import Factors, Noise
from ..queueing.policies import Greedy, NoBatching, Policy, PolicyLike, label
from ..queueing.policy_kinds import as_policy
from ..queueing.record_log import BatchLog, RequestLog
from ..queueing.scheduler import Scheduler
from ..queueing.wait_estimate import USABLE, WaitEstimate
from ..records import Outcome
from ..traffic import ClosedLoop, Lengths, Traffic, as_lengths, bounded
from ..validation.tracebacks import entry_point
from .report import Report

#: to which queue an arrival goes, where there are several replicas
Dispatch = Literal["shared", "round_robin", "random", "shortest", "least_work"]

#: seconds of traffic where neither it nor the caller says when to end
DURATION = 60.0
#: seconds until a client of a closed loop that was refused asks again, if it does not think longer
RETRY = 0.1

TINY, HUGE = sys.float_info.min, sys.float_info.max
#: the least and the most that an option may be, and that in words
RANGES = {
    "duration": (0, HUGE, "a number of seconds from 0 up"),
    "max_queue_size": (1, math.inf, "a number from 1 up"),
    "timeout": (TINY, math.inf, "a number of seconds above 0"),
    "patience": (TINY, math.inf, "a number of seconds above 0"),
    "deadline": (TINY, math.inf, "a number of seconds above 0"),
}


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
    """What would become of `traffic` under `policy`, if batches took what `cost` says.

    The scheduler and the policy are those of the server, on a virtual clock; the same arguments
    give the same report. `policy` is copied, so that what it learns here stays here. Only where
    nothing is left to decide (`NoBatching` or `Greedy`, one worker, no limits, no groups) a
    recursion takes their place, which gives the same numbers sooner.

    >>> from notebook_serve import CostModel, Greedy, simulate, traffic
    >>> cost = CostModel(fixed=0.008, per_token=0.0002)
    >>> report = simulate(Greedy(16), traffic.Poisson(100.0, n=5000), cost, lengths=20)
    >>> round(report.throughput), round(report.mean_batch_size, 1)
    (101, 1.7)

    The report's notes say what makes a fitted `CostModel` doubtful, and where batches were larger
    or inputs longer than those that it was fitted to. If it does not fit, the report shows one
    digit of what rests on it.

    Args:
        policy: Which of the waiting to run next, and when.
        traffic: When requests arrive (seconds from the start), or a `ClosedLoop`.
        cost: Seconds that a batch takes, from the lengths of its inputs. Of a `CostModel` its
            `turnaround`, `handling` and the like count as well.
        lengths: The length of each input: a number, a sequence in turn, or a distribution.
        groups: The group of each input, in turn; only those of one group share a batch.
        duration: Seconds of traffic; without it all of it, or a minute of what has no end.
        replicas: How many workers, each with a model of its own.
        dispatch: With ``shared`` one queue feeds all workers. Else each has its own, and an arrival
            goes to them in turn (``round_robin``), to any (``random``), to the one with the fewest
            requests waiting or running (``shortest``), or with the least seconds of work, each
            request's reckoned as if alone (``least_work``).
        max_queue_size: Most requests that may wait in a queue; more are refused.
        timeout: Seconds after which a request that is not answered expires.
        refuse_late: Refuse who cannot be served within `timeout`, as a server does.
        patience: Mean of the exponential time after which a client gives up, in seconds.
        deadline: Seconds within which an answer counts as good; the timeout, unless given.
        noise: How batches vary around what `cost` says: a coefficient of variation, each batch for
            itself, or a `Noise`, which has spells, such as the ``noise`` of a fitted `CostModel`.
        slowdown: By what a batch's seconds are multiplied, as a function of when it starts: a
            machine that throttles, or one whose speed was recorded.
        warmup: The share of the duration that the report's statistics leave out.
        seed: Of everything random here; traffic and lengths have seeds of their own.
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
        raise OptionError(f"dispatch is one of {', '.join(kinds)}, not {dispatch!r}")
    replicas = _checked_replicas(replicas)
    _check_range("duration", 0.0 if duration is None else duration)
    _check_range("max_queue_size", max_queue_size)
    _check_range("timeout", timeout)
    _check_range("patience", patience)
    _check_range("deadline", timeout if deadline is None else deadline)
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
    simulation.vary(noise, slowdown)
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
    """Sentences of a cost model on how far to trust a simulation that went by it."""
    if not isinstance(cost, CostModel):
        return ()
    largest = max(map(len, simulation.batches.lengths), default=0)
    return cost.doubts(largest, max(simulation.length, default=0))


def _checked_replicas(replicas: Any) -> int:
    if isinstance(replicas, bool) or not isinstance(replicas, Integral) or replicas < 1:
        raise OptionError(f"replicas is a whole number from 1 up, not {replicas!r}")
    return int(replicas)


def _check_range(name: str, value: object) -> None:
    """Hold an option to its range."""
    least, most, what = RANGES[name]
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not (number and least <= value <= most):  # type: ignore[operator]
        raise OptionError(f"{name} is {what}, not {value!r}")


def as_seconds(value: Any) -> float:
    """Return what a cost said as a number. Raises `OptionError` if it is none, or below 0."""
    try:
        seconds = math.nan if isinstance(value, (str, bytes)) else float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise OptionError(f"a cost is a number of seconds from 0 up, not {value!r}")
    return seconds


class Lane:
    """A queue and the workers that it feeds."""

    def __init__(self, policy: Policy, workers: int) -> None:
        self.scheduler = Scheduler(policy)
        self.observed = hasattr(policy, "observe")
        self.workers = self.idle = workers
        self.wake_at = math.inf
        self.backlog = WaitEstimate(self.scheduler.online_cost)
        #: requests that run
        self.running = 0
        #: what the waiting would take, each alone, and when the running batches will be done
        self.work = 0.0
        self.busy_until = 0.0


class Simulation:
    """The events of one run, and what came of each request, as columns by its number."""

    def __init__(
        self, lanes: list[Lane], cost: Callable[[Sequence[int]], float], dispatch: str, seed: int
    ) -> None:
        self.lanes = lanes
        self.cost = cost
        #: Seconds that every request takes to be handled. What happens to it happens so much later
        #: than it would without, and so it is noted; the queue need not know.
        self.handling = getattr(cost, "handling", 0.0)
        #: seconds from the end of a batch until it is answered, and more for each request of it
        self.answering = getattr(cost, "answering", 0.0)
        self.per_answer = getattr(cost, "per_answer", 0.0)
        #: seconds until a worker is free again after a batch
        self.turnaround = getattr(cost, "turnaround", 0.0)
        #: seconds that each arrival takes from a batch that runs, of each of the workers
        self.per_arrival = getattr(cost, "per_arrival", 0.0) / sum(lane.workers for lane in lanes)
        self.dispatch = dispatch
        self.lengths: Iterator[int] = iter(())
        self.groups: Iterator[str] = repeat("")
        self.max_queue_size = self.timeout = self.patience = math.inf
        self.refuse_late = False
        #: whether refusals or the dispatch go by the work that a lane holds
        self.tracks = False
        #: by what a batch is multiplied that starts then; None for no noise
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
        #: what happens when: a time, a serial number for ties, what to call and with what
        self._events: list[tuple[float, int, Callable[..., None], Any]] = []
        #: when clients that are less patient than their deadline give up
        self._leaving: dict[int, float] = {}
        #: called with the time and the outcome when a request ends; only a closed loop asks
        self._ended: Callable[[float, Outcome], None] | None = None

    # -- the clock ------------------------------------------------------------------------

    def run(self, arrivals: Sequence[float]) -> None:
        """Let requests arrive at these times, and go on until all are answered."""
        self._extend(arrivals)
        events, lanes = self._events, self.lanes
        only = lanes[0] if len(lanes) == 1 else None
        last = len(arrivals) - 1
        for number, at in enumerate(arrivals):
            # What arrives at the same time is there before the worker looks.
            while events and events[0][0] < at:
                self._step()
            lane = only or self._dispatch(number, at)
            self._arrive(lane, number, at)
            if lane.idle:
                if number < last and arrivals[number + 1] == at:
                    self._at(at, self._look, lane)
                else:
                    self._look(at, lane)
        while events:
            self._step()

    def run_in_order(self, arrivals: Sequence[float], most: int) -> None:
        """The same as `run`, for one worker that always takes the oldest, at most so many.

        Where nobody leaves, is refused or passed over, there are no events to be kept: a batch
        starts when the one before is done, or when somebody comes (Lindley, "The Theory of Queues
        with a Single Server", 1952). Equal to `run` in every number, and several times as fast.
        """
        self._extend(arrivals)
        lengths, cost, factor, inf = self.length, self.cost, self._factor, math.inf
        # As `BatchLog.add`, without a call for each batch.
        reason, ran, start, took, left = (each.append for each in self.batches.columns)
        answered: list[float] = []
        count, first, come, now = len(arrivals), 0, 0, 0.0
        handling, turnaround = self.handling, self.turnaround
        later, each, held_up = handling + self.answering, self.per_answer, self.per_arrival
        while first < count:
            # Without max and min, whose calls are dear where this is done a million times.
            if arrivals[first] > now:
                now = arrivals[first]
            while come < count and arrivals[come] <= now:
                come += 1
            last = come if come - first < most else first + most
            taken = tuple(lengths[first:last])
            seconds = cost(taken)
            if factor or type(seconds) is not float or not 0 <= seconds < inf:
                seconds = self._varied(seconds, now)
            if held_up:
                seconds += self._held_up(now, seconds)
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
        """Let clients ask, each again when it was answered, for `duration` seconds."""

        def ended(at: float, outcome: Outcome) -> None:
            pause = max(traffic.think, RETRY) if outcome == "rejected" else traffic.think
            if at + pause < duration:
                self._at(at + pause, ask, None)

        def ask(now: float, _: None) -> None:
            number = len(self.arrived)
            self._extend([now])
            lane = self._dispatch(number, now)
            self._arrive(lane, number, now)
            if lane.idle:
                self._at(now, self._look, lane)

        self._ended = ended
        for _ in range(traffic.clients):
            self._at(0.0, ask, None)
        while self._events:
            self._step()

    def _at(self, time: float, what: Callable[..., None], about: Any) -> None:
        heapq.heappush(self._events, (time, next(self._serial), what, about))

    def _step(self) -> None:
        now, _, what, about = heapq.heappop(self._events)
        what(now, about)

    # -- what happens ---------------------------------------------------------------------

    def _extend(self, arrivals: Sequence[float]) -> None:
        """Make room for requests that arrive at these times."""
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
            # A client that asks again must hear of it when it happens, not when a worker looks.
            self._at(now + self.timeout, self._expire, lane)
        if self.patience < math.inf:
            leaving = now + self._random.expovariate(1 / self.patience)
            if leaving < now + self.timeout:
                self._leaving[number] = leaving
                self._at(leaving, self._leave, (lane, number))

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

    def _look(self, now: float, lane: Lane) -> None:
        """A worker may be free: let it take what the policy gives it."""
        scheduler = lane.scheduler
        while lane.idle and scheduler.waiting:
            self._expire(now, lane)
            batch = scheduler.poll(now)
            for job in scheduler.dropped():
                self._left(lane, job)
                self._end(job.id, now, "rejected")
            if batch is None:
                if now < scheduler.wake_at < math.inf and scheduler.wake_at != lane.wake_at:
                    lane.wake_at = scheduler.wake_at
                    self._at(lane.wake_at, self._look, lane)
                return
            self._start(lane, batch, now)

    def _start(self, lane: Lane, batch: Batch, now: float) -> None:
        jobs, batches = batch.jobs, self.batches
        lengths = tuple([job.length for job in jobs])
        seconds = self._varied(self.cost(lengths), now)
        if self.per_arrival:
            seconds += self._held_up(now, seconds)
        end, number = now + seconds, len(batches)
        begun = now + self.handling
        answered = end + (self.handling + self.answering) + self.per_answer * len(jobs)
        batches.add(batch.reason, lengths, begun, seconds, batch.waiting)
        for job in jobs:
            self.started[job.id] = begun
            self.batch[job.id] = number
            self._answer(job, answered)
            self._left(lane, job)
        lane.idle -= 1
        lane.running += len(jobs)
        free = end + self.turnaround
        lane.busy_until = max(lane.busy_until, free)
        self._at(free, self._finish, (lane, number))

    def vary(self, noise: Noise, slowdown: Callable[[float], float] | None) -> None:
        """Let batches vary so."""
        factors = Factors(noise, self._random) if noise else None
        if factors is not None and slowdown is not None:
            self._factor = lambda now: factors(now) * slowdown(now)
        else:
            self._factor = factors or slowdown

    def _varied(self, seconds: float, now: float) -> float:
        """How long a batch runs that starts `now` and of which the cost says `seconds`."""
        seconds = as_seconds(seconds)
        return seconds if self._factor is None else as_seconds(seconds * self._factor(now))

    def _held_up(self, now: float, seconds: float) -> float:
        """How much longer a batch takes because of those who arrive while it runs.

        Only those of an open loop are known when it starts; a closed loop's clients ask again when
        a batch is done, and then hold nothing up.
        """
        first = bisect_right(self.arrived, now)
        return self.per_arrival * (bisect_right(self.arrived, now + seconds, first) - first)

    def _answer(self, job: Job, end: float) -> None:
        """Note how a job ends whose batch runs until `end`."""
        leaving = self._leaving.get(job.id, math.inf) if self._leaving else math.inf
        if end < job.deadline and end < leaving:
            self._end(job.id, end, "ok")
        elif leaving < job.deadline:
            self._end(job.id, leaving, "cancelled")
        else:
            self._end(job.id, job.deadline, "expired")

    def _finish(self, now: float, about: tuple[Lane, int]) -> None:
        lane, number = about
        lane.idle += 1
        if self.tracks or lane.observed:
            record = self.batches[number]
            lane.running -= record.size
            lane.backlog.learn(record)
            lane.scheduler.finish(record)
        self._look(now, lane)

    def _leave(self, now: float, about: tuple[Lane, int]) -> None:
        """A client that still waits gives up."""
        lane, number = about
        del self._leaving[number]
        job = lane.scheduler.withdraw(number)
        if job is not None:
            self._left(lane, job)
            self._end(number, now, "cancelled")

    def _expire(self, now: float, lane: Lane) -> None:
        """Those who wait and whose time has run out leave."""
        if self.timeout < math.inf:
            for job in lane.scheduler.expire(now):
                self._left(lane, job)
                self._end(job.id, job.deadline, "expired")

    def _left(self, lane: Lane, job: Job) -> None:
        """A job waits no more."""
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
        """What became of every request."""
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
