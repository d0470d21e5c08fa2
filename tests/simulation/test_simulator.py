from __future__ import annotations

import asyncio
import math
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notebook_serve import (
    Adaptive,
    BatchRecord,
    CoDel,
    CostAware,
    CostModel,
    Decision,
    Greedy,
    InvalidInput,
    Job,
    LengthAware,
    NoBatching,
    OptionError,
    Overloaded,
    Policy,
    Report,
    RequestRecord,
    ResettingWindow,
    Server,
    Window,
    mates,
    simulate,
    traffic,
)
from notebook_serve.queueing.noise import Noise
from notebook_serve.queueing.record_log import RequestLog
from notebook_serve.simulation.simulator import DURATION, RETRY, Dispatch
from notebook_serve.traffic import ClosedLoop, Empirical, LogNormal, Poisson, Trace, Uniform

from ..helpers.blocking_model import Gate, eventually

Cost = Callable[[Sequence[int]], float]

DISPATCHES: tuple[Dispatch, ...] = get_args(Dispatch)
#: the cost that `taught` shows to policies that learn it
COST = CostModel(fixed=0.5, per_item=0.01, per_token=0.02)


def constant(seconds: float) -> Cost:
    """Return a cost of the same seconds for every batch."""
    return lambda lengths: seconds


def one_more(lengths: Sequence[int]) -> float:
    """Return a second for the batch and one for each request."""
    return 1.0 + len(lengths)


def total(lengths: Sequence[int]) -> float:
    """Return a second for each token, without a cost of padding."""
    return float(sum(lengths))


def ran(report: Report) -> list[tuple[float, list[int], str]]:
    """Return start, requests and reason of each batch."""
    members: dict[int | None, list[int]] = {}
    for record in report.records:
        members.setdefault(record.batch_id, []).append(record.id)
    return [(batch.started, members[batch.id], batch.reason) for batch in report.batches]


def columns(report: Report) -> list[list[Any]]:
    """Return all columns of the requests, and the batches."""
    log = report.records
    return [*(getattr(log, name) for name in RequestLog.columns()), list(report.batches)]


def ended(report: Report) -> list[tuple[str, float]]:
    """Return the outcome and end of each request."""
    return list(zip(report.records.outcome, report.records.finished, strict=True))


class Noting:
    """A policy that takes the oldest and stores its batches, in a list shared with its copies."""

    def __init__(self) -> None:
        self.seen: list[BatchRecord] = []

    def __deepcopy__(self, memo: dict[int, object]) -> Noting:
        copied = Noting()
        copied.seen = self.seen
        return copied

    def decide(self, waiting: Sequence[Job], now: float) -> Decision:
        """Take the oldest."""
        return Decision((waiting[0],))

    def observe(self, batch: BatchRecord) -> None:
        """Store the batch."""
        self.seen.append(batch)


@dataclass
class Deaf:
    """A policy that has stopped learning: it decides as before, and observes nothing."""

    policy: Policy

    def decide(self, waiting: Sequence[Job], now: float) -> Decision:
        """Decide as the inner policy."""
        return self.policy.decide(waiting, now)


def taught(policy: CostAware | Adaptive) -> Policy:
    """Return `policy` after forty batches that followed `COST`."""
    for number in range(40):
        lengths = tuple(1 + 7 * (number + i) % 50 for i in range(1 + number % 4))
        policy.observe(BatchRecord(number, "", lengths, 0.0, COST(lengths)))
    assert policy.cost is not None
    return Deaf(policy)


# -- the same arguments, the same report --------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"noise": 0.3},
        {"patience": 0.5},
        {"replicas": 3, "dispatch": "random"},
        {"noise": 0.3, "timeout": 0.3, "refuse_late": True, "replicas": 2, "dispatch": "shortest"},
    ],
    ids=str,
)
def test_the_same_arguments_give_the_same_report(options: dict[str, Any]) -> None:
    """Equal arguments give equal columns, and another seed other numbers."""

    def run(seed: int) -> list[list[Any]]:
        arrivals = Poisson(60.0, n=400)
        return columns(simulate(Greedy(4), arrivals, COST, lengths=3, seed=seed, **options))

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_the_seed_is_not_that_of_the_traffic() -> None:
    """Arrivals and lengths have seeds of their own."""
    asked = Poisson(5.0, seed=3, n=100)
    one, two = (simulate(Greedy(4), asked, COST, lengths=Uniform(1, 50), seed=s) for s in (1, 2))

    assert columns(one) == columns(two)


@pytest.mark.parametrize("variation", [0.1, 0.5, 2.0])
def test_noise_has_the_mean_of_the_cost_and_the_variation_asked_for(variation: float) -> None:
    """The mean of 20,000 log-normal service times is within four standard errors."""
    arrivals = traffic.Constant(0.01, n=20_000)
    report = simulate(NoBatching(), arrivals, constant(2.0), noise=variation)
    seconds = [batch.seconds for batch in report.batches]
    logarithms = [math.log(value) for value in seconds]
    sigma = math.sqrt(math.log1p(variation**2))

    error = 4 * 2.0 * variation / math.sqrt(len(seconds))
    assert statistics.fmean(seconds) == pytest.approx(2.0, abs=error)
    error = 4 * sigma / math.sqrt(2 * len(seconds))
    assert statistics.stdev(logarithms) == pytest.approx(sigma, abs=error)


def test_the_report_says_what_was_simulated() -> None:
    """The report has the policy, the options, and the lengths and groups of requests."""
    report = simulate(
        Greedy(4), [0.0, 1.0, 2.0], COST, lengths=[3, 5], groups="ab", timeout=9.0, warmup=0.5
    )

    assert (report.source, report.policy) == ("simulated", "Greedy(max_batch_size=4)")
    assert (report.duration, report.start, report.deadline, report.replicas) == (2.0, 1.0, 9.0, 1)
    assert report.notes == ()
    assert report.records.id == [0, 1, 2]
    assert report.records.length == [3, 5, 3]
    assert report.records.group == ["a", "b", "a"]
    assert report.records.batch_size == [1, 1, 1]
    assert simulate(Greedy(), [0.0], COST, replicas=2, deadline=1.0).deadline == 1.0


def test_traffic_without_arrivals() -> None:
    """Traffic without arrivals gives an empty report."""
    report = simulate(Greedy(), [], COST)

    assert (len(report.records), len(report.batches), report.duration) == (0, 0, 0.0)


# -- each policy, by hand -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "arrivals", "expected"),
    [
        (
            NoBatching(),
            [0, 1, 3, 20],
            [(0, [0], "full"), (2, [1], "full"), (4, [2], "full"), (20, [3], "full")],
        ),
        (
            # The third arrives at the end of the first batch, and is in the queue at the next poll.
            Greedy(2),
            [0, 1, 2, 2, 6],
            [(0, [0], "idle"), (2, [1, 2], "full"), (5, [3], "idle"), (7, [4], "idle")],
        ),
        (Greedy(3), [0, 0, 0, 0], [(0, [0, 1, 2], "full"), (4, [3], "idle")]),
        (
            Window(2, 5.0),
            [0, 1, 2, 20],
            [(1, [0, 1], "full"), (7, [2], "deadline"), (25, [3], "deadline")],
        ),
        (
            # Later arrivals do not move the deadline of the oldest; a deadline that passes while a
            # batch runs causes no further wait.
            Window(3, 1.5),
            [0, 1, 2, 2.5],
            [(1.5, [0, 1], "deadline"), (4.5, [2, 3], "deadline")],
        ),
        (
            ResettingWindow(1.0),
            [0, 0.5, 1.25, 3],
            [(2.25, [0, 1, 2], "deadline"), (6.25, [3], "deadline")],
        ),
        (
            CoDel(Greedy(2), 100.0, 1.0),
            [0, 0, 0],
            [(0, [0, 1], "full"), (3, [2], "idle")],
        ),
    ],
    ids=repr,
)
def test_by_hand(
    policy: Policy, arrivals: list[float], expected: list[tuple[float, list[int], str]]
) -> None:
    """Batches have the expected requests, starts and reasons; a batch of n takes 1 + n seconds."""
    report = simulate(policy, arrivals, one_more)

    assert ran(report) == expected
    for record in report.records:
        assert (record.outcome, record.inference_time) == ("ok", 1.0 + record.batch_size)
    for batch in report.batches:
        came = sum(at <= batch.started for at in arrivals)
        left = sum(at <= batch.started for at in report.records.started if at is not None)
        assert batch.waiting == came - left


def test_batch_mates_by_length() -> None:
    """The oldest, of 10 tokens, runs with those of 11 and 12; those of 40 and 38 share a batch."""
    report = simulate(
        LengthAware(3, 0.25),
        [0.0, 1.0, 2.0, 3.0, 4.0, 5.0],
        constant(8.0),
        lengths=[10, 10, 40, 12, 38, 11],
    )

    assert ran(report) == [(0.0, [0], "idle"), (8.0, [1, 3, 5], "full"), (16.0, [2, 4], "idle")]
    assert [batch.lengths for batch in report.batches] == [(10,), (10, 11, 12), (38, 40)]
    assert [batch.waiting for batch in report.batches] == [0, 2, 0]


def least_total(lengths: Sequence[int], most: int) -> float:
    """Return the least seconds of all divisions of sorted lengths into batches."""
    if not lengths:
        return 0.0
    tried = range(1, min(most, len(lengths)) + 1)
    return min(COST(lengths[:n]) + least_total(lengths[n:], most) for n in tried)


def test_batches_have_the_least_cost_once_it_is_learned() -> None:
    """After forty bursts the policy knows the cost, and the queue takes the least total seconds."""
    draw = random.Random(7)
    sizes = [1 + number % 4 for number in range(40)] + [11]
    arrivals = [100.0 * burst for burst, size in enumerate(sizes) for _ in range(size)]
    lengths = [draw.randint(1, 60) for _ in arrivals]
    policy = CostAware(4)

    aware = simulate(policy, arrivals, COST, lengths=lengths)
    greedy = simulate(Greedy(4), arrivals, COST, lengths=lengths)

    took = max(aware.records.finished) - 4000.0
    assert took == pytest.approx(least_total(sorted(lengths[-11:]), 4))
    assert took < max(greedy.records.finished) - 4000.0
    assert policy.cost is None  # what it learned there stays there


def test_requests_that_can_be_in_time_run_first() -> None:
    """With 1.5 s for each, and the worker busy for 4 s, the newest runs first."""
    policy = taught(Adaptive(1.5, 4))

    report = simulate(policy, [0.0, 1.0, 1.5, 3.5], total, lengths=[4, 9, 9, 1])

    assert [members for _, members, _ in ran(report)] == [[0], [3], [1], [2]]


def test_what_a_policy_refuses_is_rejected() -> None:
    """Late since 1.0 and for two seconds, so at 3.0 all but a full batch (of one) is dropped."""
    policy = CoDel(NoBatching(), target=0.5, interval=2.0)

    report = simulate(policy, [0.0] * 6, constant(1.0))

    assert [started for started, _, _ in ran(report)] == [0.0, 1.0, 2.0, 3.0]
    assert ended(report)[3:] == [("rejected", 3.0), ("rejected", 3.0), ("ok", 4.0)]
    assert report.records.started[3:5] == report.records.batch_id[3:5] == [None, None]
    assert policy == CoDel(NoBatching(), 0.5, 2.0)
    assert policy._late_since is None


def test_groups_never_share_a_batch() -> None:
    """The oldest runs with others of its group, before older jobs of another group."""
    report = simulate(Greedy(3), [0.0, 1.0, 1.0, 1.0, 1.0], constant(4.0), groups="aabab")

    assert ran(report) == [(0.0, [0], "idle"), (4.0, [1, 3], "group"), (8.0, [2, 4], "idle")]


@pytest.mark.parametrize("noise", [0.0, 0.4, Noise(0.4, 0.5, 3.0)])
@pytest.mark.parametrize("policy", [NoBatching(), Greedy(1), Greedy(3), Greedy(1000)], ids=repr)
def test_the_short_way_is_equal_in_every_number(policy: Policy, noise: float | Noise) -> None:
    """Without events, the report equals that of the events."""
    draw = random.Random(5)
    arrivals = [0.0]
    for _ in range(500):
        arrivals.append(arrivals[-1] + draw.choice([0.0, 0.5, 0.5, draw.expovariate(1.0)]))
    options: dict[str, Any] = {"lengths": [1, 2, 3], "noise": noise}
    cost = CostModel(fixed=0.5, turnaround=0.1, handling=0.2, answering=0.1, per_answer=0.05)
    cost = replace(cost, per_arrival=0.05)

    short = simulate(policy, arrivals, cost, **options)
    long = simulate(Deaf(policy), arrivals, cost, **options)

    assert columns(short) == columns(long)


# -- requests without an answer -----------------------------------------------------------


def test_a_full_queue_refuses() -> None:
    """Two may wait; the next is rejected at once, and later there is room again."""
    report = simulate(
        NoBatching(), [0.0, 1.0, 2.0, 3.0, 4.0, 11.0], constant(10.0), max_queue_size=2
    )

    outcomes = ["ok", "ok", "ok", "rejected", "rejected", "ok"]
    assert report.records.outcome == outcomes
    assert ended(report)[3:5] == [("rejected", 3.0), ("rejected", 4.0)]
    assert report.records.started == [0.0, 10.0, 20.0, None, None, 30.0]


def test_simultaneous_arrivals_join_the_queue_before_a_poll() -> None:
    """Of five at once, a queue of three takes three, even if the worker is idle."""
    report = simulate(Greedy(2), [0.0] * 5, constant(1.0), max_queue_size=3)

    assert ran(report) == [(0.0, [0, 1], "full"), (1.0, [2], "idle")]
    assert ended(report)[3:] == [("rejected", 0.0)] * 2


def test_time_runs_out_while_waiting_and_while_running() -> None:
    """With 12 s for each: the second never runs; the fourth is cancelled at 26, in its batch."""
    report = simulate(
        NoBatching(), [0.0, 0.5, 2.0, 14.0, 15.0], total, lengths=[13, 1, 10, 20, 1], timeout=12.5
    )

    assert ended(report) == [
        ("expired", 12.5),
        ("expired", 13.0),
        ("expired", 14.5),
        ("expired", 26.5),
        ("expired", 27.5),
    ]
    assert report.records.started == [0.0, None, 13.0, 23.0, None]
    assert [(batch.started, batch.seconds) for batch in report.batches] == [
        (0.0, 13.0),
        (13.0, 10.0),
        (23.0, 20.0),
    ]


def test_time_runs_out_while_the_policy_waits() -> None:
    """With a window longer than the timeout, each request expires at its own deadline."""
    report = simulate(Window(3, 10.0), [0.0, 4.0, 6.0, 20.0], constant(1.0), timeout=5.0)

    assert ended(report) == [("expired", at) for at in (5.0, 9.0, 11.0, 25.0)]
    assert len(report.batches) == 0


def test_clients_give_up() -> None:
    """Behind an endless batch, clients cancel after exponential times with the given mean."""
    arrivals = [0.0] + [1.0] * 20_000
    report = simulate(NoBatching(), arrivals, constant(1e9), patience=4.0)
    log = report.records

    assert set(log.outcome) == {"cancelled"}
    assert log.started == [0.0] + [None] * 20_000
    assert len(report.batches) == 1
    stayed = [record.latency for record in log[1:]]
    assert statistics.fmean(stayed) == pytest.approx(4.0, abs=4 * 4.0 / math.sqrt(20_000))
    assert statistics.median(stayed) == pytest.approx(4.0 * math.log(2), rel=0.04)


def test_giving_up_while_it_runs_stops_no_batch() -> None:
    """The answer is discarded, but the worker is busy until the end."""
    report = simulate(NoBatching(), [0.0] * 50, constant(1.0), patience=5.0, seed=2)
    running = [r for r in report.records if r.outcome == "cancelled" and r.started is not None]
    waiting = [r for r in report.records if r.outcome == "cancelled" and r.started is None]

    assert running
    assert waiting
    for record in running:
        assert record.started is not None
        assert record.started < record.finished < record.started + 1.0
    assert all(record.batch_id is None for record in waiting)
    assert {batch.seconds for batch in report.batches} == {1.0}
    assert [batch.started for batch in report.batches] == [*map(float, range(len(report.batches)))]


def test_whichever_comes_first_patience_or_deadline() -> None:
    """Clients more patient than the timeout expire at it."""
    report = simulate(
        NoBatching(), [0.0] * 200, constant(1e9), patience=1.0, timeout=1.0, warmup=0.0
    )

    ends = Counter(report.records.outcome)
    # A share of 1/e waits that long.
    assert ends["expired"] == pytest.approx(200 / math.e, abs=4 * math.sqrt(200 * 0.37 * 0.63))
    assert ends["cancelled"] == 200 - ends["expired"]
    for outcome, finished in ended(report):
        assert finished == 1.0 if outcome == "expired" else finished < 1.0


def test_rejecting_late_requests_saves_the_others() -> None:
    """At three times the capacity, most of it is goodput; without rejections less than half."""
    cost = CostModel(fixed=0.02, per_item=0.005)  # 160 a second in batches of 16
    overload = Poisson(480.0, n=10_000)

    refusing = simulate(Greedy(16), overload, cost, timeout=2.0, refuse_late=True)
    waiting = simulate(Greedy(16), overload, cost, timeout=2.0)

    assert refusing.deadline == 2.0
    assert refusing.goodput > 0.95 * 160
    assert waiting.goodput < 0.5 * 160
    assert refusing.outcomes["expired"] < 0.05 * waiting.outcomes["expired"]


def test_no_request_is_rejected_as_late_without_overload() -> None:
    """None is rejected at half the capacity, nor with four workers on one queue."""
    cost = CostModel(fixed=0.08, per_item=0.02)
    light, heavy = Poisson(20.0, n=3000), Poisson(100.0, n=6000)

    for asked, replicas in ((light, 1), (heavy, 4)):
        report = simulate(Greedy(16), asked, cost, timeout=1.0, refuse_late=True, replicas=replicas)
        assert report.outcomes["ok"] == len(report.records)


# -- traffic and lengths ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        (7, [7] * 6),
        ([1, 2], [1, 2, 1, 2, 1, 2]),
        (Uniform(1, 90, seed=4), Uniform(1, 90, seed=4).sample(6)),
        (Empirical([5, 50, 500], seed=1), Empirical([5, 50, 500], seed=1).sample(6)),
    ],
    ids=str,
)
def test_lengths(lengths: Any, expected: list[int]) -> None:
    """Lengths are one number, a repeated sequence or a distribution from its beginning."""
    report = simulate(NoBatching(), [0.0] * 6, total, lengths=lengths)

    assert report.records.length == expected
    assert [batch.seconds for batch in report.batches] == expected


def test_traffic_and_its_duration() -> None:
    """Finite traffic is used in full, endless traffic for a minute or the given duration."""
    finite = simulate(Greedy(), Poisson(10.0, n=50), COST)
    endless = simulate(Greedy(), traffic.Constant(2.0), COST)
    cut = simulate(Greedy(), traffic.Constant(2.0, n=100), COST, duration=10.0)
    longer = simulate(Greedy(), Trace([0.0, 2.5]), COST, duration=10.0)

    times = Poisson(10.0, n=50).times()
    assert (finite.records.arrived, finite.duration) == (times, times[-1])
    assert (len(endless.records), endless.duration) == (2 * DURATION, DURATION)
    assert (len(cut.records), cut.duration) == (20, 10.0)
    assert (longer.records.arrived, longer.duration) == ([0.0, 2.5], 10.0)


def in_flight(report: Report) -> int:
    """Return the most requests that were sent and not answered at one time."""
    log = report.records
    # A client may send again at the moment of its answer.
    changes = sorted([(at, 1) for at in log.arrived] + [(at, -1) for at in log.finished])
    now = most = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


@pytest.mark.parametrize("policy", [NoBatching(), Greedy(4), LengthAware(8), Window(4, 0.05)])
@pytest.mark.parametrize(("clients", "think"), [(1, 0.0), (10, 0.0), (10, 0.3)])
def test_a_closed_loop(policy: Policy, clients: int, think: float) -> None:
    """At most one request per client is in flight, and each round has as many answers as clients.

    That is the interactive response time law, throughput = clients / (latency + think time).
    """
    loop = ClosedLoop(clients, think)
    lengths = LogNormal(20, 0.8, high=128)
    cost = CostModel(fixed=0.02, per_token=0.0005)
    report = simulate(policy, loop, cost, lengths=lengths, duration=200.0, noise=0.1)

    assert in_flight(report) == clients
    assert report.duration == 200.0
    assert max(report.records.arrived) < 200.0
    assert report.records.arrived == sorted(report.records.arrived)
    expected = clients / (report.latency.mean + think)
    assert report.throughput == pytest.approx(expected, rel=0.01)


def test_a_closed_loop_by_hand() -> None:
    """Two clients that think for a second, with consecutive answers of two seconds."""
    report = simulate(NoBatching(), ClosedLoop(2, 1.0), constant(2.0), duration=7.0)

    assert report.records.arrived == [0.0, 0.0, 3.0, 5.0]
    assert report.records.started == [0.0, 2.0, 4.0, 6.0]
    assert simulate(NoBatching(), ClosedLoop(1), constant(20.0)).duration == DURATION


def test_rejected_clients_of_a_closed_loop_send_again() -> None:
    """One runs, one waits, and the third sends every tenth of a second until there is room."""
    report = simulate(NoBatching(), ClosedLoop(3), constant(1.0), duration=2.0, max_queue_size=1)
    refused = [r.arrived for r in report.records if r.outcome == "rejected"]

    # Both are rejected at first, because the first waits until the worker polls.
    assert refused[:4] == pytest.approx([0.0, 0.0, RETRY, 2 * RETRY])
    assert report.outcomes["ok"] >= 2
    assert in_flight(report) <= 3
    assert all(r.finished == r.arrived for r in report.records if r.outcome == "rejected")


def test_clients_of_a_closed_loop_ask_again_when_their_time_is_up() -> None:
    """A request expires at 4 s, not at the next poll at 13.0."""
    report = simulate(
        NoBatching(), ClosedLoop(2), total, lengths=[3, 10], duration=9.0, timeout=4.0
    )

    assert report.records.arrived == [0.0, 0.0, 3.0, 4.0, 7.0, 8.0]
    assert ended(report)[:3] == [("ok", 3.0), ("expired", 4.0), ("expired", 7.0)]
    assert ran(report) == [(0.0, [0], "full"), (3.0, [1], "full")]


# -- several replicas ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dispatch", "lengths", "started"),
    [
        # One idle worker is enough.
        ("shared", [10, 1, 1, 1], [0.0, 1.0, 2.5, 4.0]),
        # In turn: the third waits for the first worker, although the other is idle.
        ("round_robin", [10, 1, 1, 1], [0.0, 1.0, 10.0, 4.0]),
        # The third finds an empty second worker; the fourth finds one request at each.
        ("shortest", [10, 1, 9, 1], [0.0, 1.0, 2.5, 10.0]),
        # The fourth finds 6 s of work at the first worker and 7.5 s at the second.
        ("least_work", [10, 1, 9, 1], [0.0, 1.0, 2.5, 10.0]),
        # Here it finds 16 s and 7.5 s.
        ("least_work", [20, 1, 9, 1], [0.0, 1.0, 2.5, 11.5]),
    ],
)
def test_dispatch_by_hand(dispatch: Dispatch, lengths: list[int], started: list[float]) -> None:
    """Two workers, one request at a time, a second for each token."""
    report = simulate(
        NoBatching(), [0.0, 1.0, 2.5, 4.0], total, lengths=lengths, replicas=2, dispatch=dispatch
    )

    assert report.records.started == started
    assert report.replicas == 2


def mean_waits(lengths: Any, rate: float) -> dict[str, float]:
    """Return the seconds in the queues of four workers by each dispatch, of equal requests."""
    asked = Poisson(rate, seed=6, n=8000)
    waits: dict[str, float] = {}
    for dispatch in DISPATCHES:
        report = simulate(
            NoBatching(), asked, total, lengths=lengths, replicas=4, dispatch=dispatch
        )
        waits[dispatch] = report.queue_time.mean
    return waits


def test_dispatch_at_the_same_load() -> None:
    """At 80% load, with equal lengths and with one in twenty 81 times as long.

    One queue for all, and least work left, are one and the same where one runs at a time (M.
    Harchol-Balter, *Performance Modeling and Design of Computer Systems*, chapter 24), and here
    the best. To count requests is blind to their length, and to take turns to both.
    """
    even = mean_waits(1, rate=3.2)
    uneven = mean_waits(Empirical([1] * 19 + [81], seed=2), rate=0.64)

    for waits in (even, uneven):
        assert waits["shared"] == pytest.approx(waits["least_work"])
        assert waits["shared"] == pytest.approx(min(waits.values()))
        assert waits["shortest"] < 0.8 * waits["random"]
    assert even["round_robin"] < 0.8 * even["random"]
    assert uneven["least_work"] < 0.8 * uneven["shortest"]
    assert uneven["shortest"] < 0.8 * uneven["round_robin"]


@settings(max_examples=40, deadline=None)
@given(
    gaps=st.lists(st.floats(0.0, 3.0), min_size=1, max_size=40),
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=40),
    replicas=st.integers(1, 4),
)
def test_least_work_is_as_one_queue(gaps: list[float], lengths: list[int], replicas: int) -> None:
    """Each request starts as from a shared queue."""
    arrivals = [sum(gaps[: n + 1]) for n in range(len(gaps))]

    def starts(dispatch: Dispatch) -> list[Any]:
        report = simulate(
            NoBatching(), arrivals, total, lengths=lengths, replicas=replicas, dispatch=dispatch
        )
        return report.records.started

    assert starts("least_work") == pytest.approx(starts("shared"))


def test_any_dispatch_with_one_replica_is_the_same() -> None:
    """With one worker the dispatch does not matter."""
    reports = [
        simulate(LengthAware(4), Poisson(3.0, n=300), COST, lengths=Uniform(1, 60), dispatch=name)
        for name in DISPATCHES
    ]

    assert all(columns(report) == columns(reports[0]) for report in reports)


def test_those_whose_time_is_up_count_as_gone_for_the_dispatch() -> None:
    """Two that expired behind a batch of 12 s do not count as waiting at 9.0."""
    report = simulate(
        NoBatching(),
        [0.0, 0.5, 1.0, 1.5, 2.0, 9.0],
        total,
        lengths=[12, 30, 1, 1, 1, 1],
        replicas=2,
        dispatch="shortest",
        timeout=5.0,
    )

    assert report.records.started == [0.0, 0.5, None, None, None, 12.0]


# -- policies of the user -----------------------------------------------------------------


class Breaks:
    """A policy that decides correctly a few times, and then breaks its contract."""

    def __init__(self, how: Any) -> None:
        self.left = 3
        self.how = how

    def decide(self, waiting: Sequence[Job], now: float) -> Decision:
        """Take the oldest, or return the wrong decision."""
        self.left -= 1
        if self.left >= 0:
            return Decision((waiting[0],))
        decision: Decision = self.how(waiting, now)
        return decision

    def __repr__(self) -> str:
        return "Breaks()"


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (lambda waiting, now: 1 / 0, "raised ZeroDivisionError"),
        (lambda waiting, now: Decision(), "asked to be woken at inf"),
        (lambda waiting, now: Decision(wake_at=now), "asked to be woken"),
        (lambda waiting, now: Decision((Job(99, 0.0),)), "does not wait"),
        (lambda waiting, now: Decision((waiting[0], waiting[0])), "twice"),
        (lambda waiting, now: None, "returned None"),
    ],
)
@pytest.mark.parametrize("dispatch", ["shared", "round_robin"])
def test_a_policy_that_breaks_its_contract(how: Any, said: str, dispatch: Dispatch) -> None:
    """The report notes the fault once per queue, and all requests are answered."""
    report = simulate(
        Breaks(how), [0.1 * n for n in range(60)], constant(0.5), replicas=2, dispatch=dispatch
    )

    assert report.outcomes["ok"] == 60
    assert len(report.notes) == (1 if dispatch == "shared" else 2)
    for note in report.notes:
        assert note.startswith("Breaks() ")
        assert said in note
        assert "goes on under Greedy" in note


@pytest.mark.parametrize("dispatch", DISPATCHES)
def test_a_policy_observes_every_batch_in_the_order_of_finishing(dispatch: Dispatch) -> None:
    """Each record is observed once; a short batch before a longer one that started earlier."""
    policy = Noting()
    report = simulate(
        policy, [0.0] * 40, total, lengths=[9, 1, 4], noise=0.2, replicas=3, dispatch=dispatch
    )

    ends = [batch.started + batch.seconds for batch in policy.seen]
    assert ends == sorted(ends)
    assert [batch.id for batch in policy.seen] != sorted(batch.id for batch in policy.seen)
    assert sorted(policy.seen, key=lambda batch: batch.id) == list(report.batches)


def test_each_queue_has_a_policy_of_its_own() -> None:
    """Each copy learns alone, and the caller's policy learns nothing."""

    class Counting:
        decided = 0

        def decide(self, waiting: Sequence[Job], now: float) -> Decision:
            self.decided += 1
            return Decision((waiting[0],), reason=str(self.decided))

    policy = Counting()
    report = simulate(policy, [0.0, 1.0, 2.0, 3.0], constant(0.5), replicas=2)
    apart = simulate(
        policy, [0.0, 1.0, 2.0, 3.0], constant(0.5), replicas=2, dispatch="round_robin"
    )

    assert [batch.reason for batch in report.batches] == ["1", "2", "3", "4"]
    assert [batch.reason for batch in apart.batches] == ["1", "1", "2", "2"]
    assert policy.decided == 0


# -- wrong options ------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [-1.0, -1e-9, math.nan, math.inf])
@pytest.mark.parametrize("replicas", [1, 2])
def test_a_cost_that_is_not_a_time_is_rejected(seconds: float, replicas: int) -> None:
    """A wrong cost raises when a batch uses it."""
    with pytest.raises(OptionError, match="a cost must be a number of seconds >= 0"):
        simulate(Greedy(), [0.0], constant(seconds), replicas=replicas)


def test_a_cost_of_nothing_takes_no_time() -> None:
    """All requests are answered on arrival."""
    report = simulate(LengthAware(), [0.0, 0.0, 1.0], constant(0.0))

    assert report.records.finished == [0.0, 0.0, 1.0]


#: wrong values of each option
WRONG: dict[str, Sequence[object]] = {
    "replicas": (0, -1, 1.5, True, "2", None),
    "dispatch": ("", "Shared", None),
    "max_queue_size": (0, -1, math.nan, "many", True, None),
    "timeout": (0, -1.0, math.nan, "1", None),
    "patience": (0, -1.0, math.nan, None),
    "deadline": (0, -1.0, math.nan, False),
    "noise": (-0.1, math.nan, math.inf, "0", None),
    "duration": (-1.0, math.nan, math.inf, "60"),
    "warmup": (-0.1, 1.0, math.nan),
    "lengths": (0, -1, 1.5, [], "", None),
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
@pytest.mark.parametrize("asked", [Poisson(10.0, n=5), ClosedLoop(2, 1.0)], ids=["open", "closed"])
def test_bad_options_are_rejected(asked: Any, name: str, value: object) -> None:
    """The error has the option and the value."""
    with pytest.raises(OptionError, match=name if name != "lengths" else "length|data"):
        simulate(Greedy(), asked, constant(1.0), **{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("asked", [50.0, None, [1.0, 0.5], [-1.0], Poisson])
def test_bad_traffic_is_rejected(asked: Any) -> None:
    """A rate is not traffic, and times must ascend."""
    with pytest.raises(OptionError):
        simulate(Greedy(), asked, constant(1.0))


@pytest.mark.parametrize("policy", [None, object, print, 4])
def test_other_values_are_not_policies(policy: Any) -> None:
    """The error comes before the first event."""
    with pytest.raises(OptionError, match="a policy must be an object"):
        simulate(policy, [0.0], constant(1.0))


# -- any policy, traffic and limits -------------------------------------------------------

#: policies that run a batch whenever possible
NEVER_WAIT: list[Policy] = [
    NoBatching(),
    Greedy(1),
    Greedy(3),
    LengthAware(3),
    LengthAware(4, 0.0),
    LengthAware(4, 1.0, 60),
    CostAware(3),
    Adaptive(0.5, 3),
    taught(CostAware(3)),
    taught(Adaptive(2.0, 3)),
    CoDel(Greedy(2), 0.5, 0.5),
]
WAIT: list[Policy] = [Window(3, 0.75), Window(2, 0.0), ResettingWindow(0.25)]


@st.composite
def runs(draw: st.DrawFn) -> dict[str, Any]:
    """Draw the arguments of a simulation; times in quarters of a second, so that many coincide."""

    def quarters(most: int) -> st.SearchStrategy[float]:
        return st.integers(1, most).map(lambda n: n / 4)

    gaps = draw(st.lists(st.integers(0, 6), min_size=1, max_size=30))
    arrivals = [sum(gaps[: n + 1]) / 4 for n in range(len(gaps))]
    loop = ClosedLoop(draw(st.integers(1, 6)), draw(st.sampled_from([0.0, 0.25, 1.0])))
    return {
        "policy": draw(st.sampled_from(NEVER_WAIT + WAIT)),
        "traffic": draw(st.sampled_from([Trace(arrivals), loop])),
        "duration": draw(st.sampled_from([4.0, 8.0])),
        "cost": draw(st.sampled_from([constant(0.25), total, COST])),
        "lengths": draw(st.lists(st.integers(1, 40), min_size=1, max_size=9)),
        "groups": draw(st.sampled_from([None, "ab", "aab", "abcdefg"])),
        "replicas": draw(st.integers(1, 3)),
        "dispatch": draw(st.sampled_from(DISPATCHES)),
        "max_queue_size": draw(st.sampled_from([math.inf, 1, 2, 5])),
        "timeout": draw(quarters(12) | st.just(math.inf)),
        "refuse_late": draw(st.booleans()),
        "patience": draw(st.sampled_from([math.inf, 1.0])),
        "noise": draw(st.sampled_from([0.0, 0.0, 0.5])),
        "seed": draw(st.integers(0, 9)),
    }


@settings(max_examples=300, deadline=None)
@given(runs())
def test_every_request_ends_once_and_as_the_rules_have_it(options: dict[str, Any]) -> None:
    """A request ends with its batch, at its deadline, at its cancellation or at its arrival."""
    report = simulate(**options)
    timeout = options["timeout"]

    assert report.notes == ()
    assert report.records.arrived == sorted(report.records.arrived)
    for record in report.records:
        began = record.arrived if record.started is None else record.started
        assert record.arrived <= began <= record.finished <= record.arrived + timeout
        assert (record.started is None) is (record.batch_id is None) is (record.batch_size == 0)
        end = math.inf
        if record.batch_id is not None:
            batch = report.batches[record.batch_id]
            assert record.started == batch.started
            end = batch.started + batch.seconds
        assert check_end(record, end, timeout), record


def check_end(record: RequestRecord, end: float, timeout: float) -> bool:
    """Return True if the outcome of a record agrees with its end; `end` is its batch's."""
    if record.outcome == "ok":
        return record.finished == end < record.arrived + timeout
    if record.outcome == "expired":
        return record.finished == record.arrived + timeout <= end
    if record.outcome == "cancelled":
        return record.finished <= end and record.finished < record.arrived + timeout
    return record.outcome == "rejected" and record.started is None


@settings(max_examples=300, deadline=None)
@given(runs())
def test_every_batch_is_one_that_may_be(options: dict[str, Any]) -> None:
    """Batches have one group and waiting requests, within the policy's size, and none is lost."""
    report = simulate(**options)
    policy = options["policy"]
    inner = getattr(policy, "policy", policy)
    most = 1 if isinstance(inner, NoBatching) else getattr(inner, "max_batch_size", math.inf)

    starts = [batch.started for batch in report.batches]
    assert starts == sorted(starts)
    for batch, (_, members, _) in zip(report.batches, ran(report), strict=True):
        assert 1 <= len(members) == batch.size <= most
        assert len({report.records.group[n] for n in members}) == 1
        assert sorted(report.records.length[n] for n in members) == sorted(batch.lengths)
    assert sum(batch.size for batch in report.batches) == sum(
        number is not None for number in report.records.batch_id
    )


def by_queue(report: Report, dispatch: str) -> Iterator[tuple[list[RequestRecord], int]]:
    """Return the requests of each known queue, and its number of workers."""
    records, replicas = list(report.records), report.replicas
    if dispatch == "shared" or replicas == 1:
        yield records, replicas
    elif dispatch == "round_robin":
        yield from ((records[n::replicas], 1) for n in range(replicas))


@settings(max_examples=300, deadline=None)
@given(runs())
def test_workers_do_one_thing_at_a_time_and_never_idle(options: dict[str, Any]) -> None:
    """At most as many batches as workers run at once, and exactly as many while requests wait.

    The latter for policies that never wait; for the others a worker may idle.
    """
    report = simulate(**options)
    if options["dispatch"] in ("shared", "round_robin"):
        queues = list(by_queue(report, options["dispatch"]))
    else:
        queues = [(list(report.records), report.replicas)]

    for records, workers in queues:
        numbers = {record.batch_id for record in records} - {None}
        spans = [(b.started, b.started + b.seconds) for b in report.batches if b.id in numbers]
        times = sorted({at for span in spans for at in span} | {r.arrived for r in records})
        # Times that differ only by rounding have nothing between them.
        for now in [(one + two) / 2 for one, two in pairwise(times) if two - one > 1e-9]:
            busy = sum(start < now < end for start, end in spans)
            assert busy <= workers
            known = options["dispatch"] in ("shared", "round_robin")
            if known and options["policy"] in NEVER_WAIT and busy < workers:
                assert not any(r.arrived < now < r.arrived + r.queue_time for r in records)


@settings(max_examples=150, deadline=None)
@given(runs())
def test_no_more_wait_than_may_and_no_client_asks_twice(options: dict[str, Any]) -> None:
    """Requests run in the order of arrival, in each queue and in a closed loop."""
    report = simulate(**options)

    for records, _ in by_queue(report, options["dispatch"]):
        accepted = [r for r in records if r.outcome != "rejected"]
        for now in {r.arrived for r in accepted}:
            waiting = [r for r in accepted if r.arrived <= now < r.arrived + r.queue_time]
            assert len(waiting) <= options["max_queue_size"]
    if isinstance(options["traffic"], ClosedLoop):
        assert in_flight(report) <= options["traffic"].clients


# -- comparison with the engine -----------------------------------------------------------


class Plug(Gate):
    """A model with inputs as long as their text; the length of a marked text raises."""

    def __call__(self, inputs: list[str], kind: str = "") -> list[str]:
        """Wait for the gate, then answer."""
        return super().__call__(inputs)

    def length(self, text: str) -> int:
        """Return the number of characters."""
        if text == "bad":
            raise ValueError(text)
        return len(text)


async def fill(server: Server, plug: Plug, jobs: Sequence[tuple[int, str]]) -> None:
    """Enqueue these requests, in this order, behind one that runs; then run all."""
    first = asyncio.create_task(server.apredict("first", kind="a"))
    assert await asyncio.to_thread(plug.begun.wait, 60)
    rest = [asyncio.create_task(server.apredict("x" * n, kind=kind)) for n, kind in jobs]
    # Inputs are measured in order: once this one has failed, the others wait.
    with pytest.raises(InvalidInput):
        await server.apredict("bad", kind="a")
    filled = time.monotonic()
    eventually(lambda: time.monotonic() > filled + 0.01, "the windows are over")
    plug.opened.set()
    answers = await asyncio.gather(first, *rest, return_exceptions=True)
    assert all(isinstance(answer, (str, Overloaded)) for answer in answers)


def what_ran(
    records: Sequence[RequestRecord], batches: Sequence[BatchRecord]
) -> tuple[list[str], list[tuple[list[int], str, tuple[int, ...], int]]]:
    """Return the outcomes in the order of arrival, and requests and reason of each batch."""
    come = sorted(records, key=lambda record: record.id)
    members: dict[int | None, list[int]] = {}
    for place, record in enumerate(come):
        members.setdefault(record.batch_id, []).append(place)
    return [record.outcome for record in come], [
        (members[batch.id], batch.reason, batch.lengths, batch.waiting) for batch in batches
    ]


@pytest.mark.parametrize(
    "policy",
    [
        NoBatching(),
        Greedy(5),
        Greedy(1000),
        Window(4, 0.01),
        ResettingWindow(0.01),
        LengthAware(4),
        LengthAware(8, 0.3, 100),
        CostAware(4),
        Adaptive(1000.0, 4),
        taught(CostAware(4)),
        taught(Adaptive(1000.0, 4)),
        CoDel(Greedy(4), 1000.0, 1000.0),
        CoDel(LengthAware(4), 0.0, 0.0),
    ],
    ids=repr,
)
def test_a_server_makes_the_batches_that_the_simulator_says(
    make: Callable[..., Server], policy: Policy
) -> None:
    """Forty requests of mixed length and two kinds, queued while the worker is busy."""
    draw = random.Random("as it is simulated")
    jobs = [(round(draw.lognormvariate(3, 0.8)) + 1, draw.choice("aab")) for _ in range(40)]
    report = simulate(
        policy,
        [0.0] + [1.0] * len(jobs),
        constant(10.0),
        lengths=[5, *(length for length, _ in jobs)],
        groups=["a", *(kind for _, kind in jobs)],
        timeout=1000.0,
    )

    plug = Plug()
    server = make(plug, policy=policy, timeout=1000.0)
    asyncio.run(fill(server, plug, jobs))

    asked = [record for record in server.records() if record.outcome != "invalid"]
    assert what_ran(asked, server.batches()) == what_ran(report.records, report.batches)
    assert len(report.batches) > 2


def test_a_policy_may_read_the_cost_of_its_queue() -> None:
    """The queue's cost model is learned for a policy that observes no batches itself."""
    seen = []

    class Reading:
        """Run what waits, and note the cost model of the queue."""

        def decide(self, waiting: Any, now: float) -> Decision:
            """Take up to four jobs."""
            seen.append(waiting.online_cost.trusted is not None)
            return Decision(tuple(mates(waiting, limit=4)))

    simulate(Reading(), Poisson(60, seed=3, n=400), COST, lengths=Uniform(1, 50, seed=3))
    assert not seen[0]
    assert seen[-1]
