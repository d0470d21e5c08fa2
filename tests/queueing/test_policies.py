from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notebook_serve.errors import OptionError
from notebook_serve.queueing.jobs import Decision, Job
from notebook_serve.queueing.policies import (
    Greedy,
    LengthAware,
    NoBatching,
    Policy,
    ResettingWindow,
    Window,
)
from notebook_serve.queueing.policy_parser import BUILT_IN, parse_policy
from notebook_serve.queueing.waiting_line import WaitingLine

NAMES: dict[str, Any] = dict(BUILT_IN)
POLICIES: list[Policy] = [
    NoBatching(),
    ResettingWindow(),
    ResettingWindow(0.25),
    Window(),
    Window(8, 0.01),
    Window(max_batch_size=1, max_wait=0),
    Greedy(),
    Greedy(3),
    LengthAware(),
    LengthAware(4, 0.5, 1024),
    LengthAware(max_padding=0),
    LengthAware(max_padding=1),
]


def as_list(jobs: Sequence[Job]) -> Sequence[Job]:
    """Return the jobs as a list, as a user's own simulation might keep them."""
    return list(jobs)


def as_waiting(jobs: Sequence[Job]) -> Sequence[Job]:
    """Return the jobs as the scheduler keeps them."""
    waiting = WaitingLine()
    for job in jobs:
        waiting.add(job)
    return waiting


both = pytest.mark.parametrize("kept", [as_list, as_waiting])
Kept = Callable[[Sequence[Job]], Sequence[Job]]


def arrivals(*times: float, groups: str = "") -> list[Job]:
    """Return jobs that arrived at `times`, of the groups that the letters of `groups` name."""
    named = itertools.zip_longest(times, groups, fillvalue="")
    return [Job(i, float(at), group=group) for i, (at, group) in enumerate(named, 1)]


def of_lengths(*lengths: int, groups: str = "") -> list[Job]:
    """Return jobs of these lengths, in the order of arrival."""
    named = itertools.zip_longest(lengths, groups, fillvalue="")
    return [Job(i, float(i), int(n), group=group) for i, (n, group) in enumerate(named, 1)]


def ids(decision: Decision) -> list[int]:
    """Return the ids that a decision takes, sorted."""
    return sorted(job.id for job in decision.take)


# -- NoBatching and Greedy ----------------------------------------------------------------


@both
def test_no_batching_takes_the_oldest_alone(kept: Kept) -> None:
    """One job runs, however long the queue is, and no wake-up is requested."""
    jobs = arrivals(0, 1, 2, groups="aab")

    assert NoBatching().decide(kept(jobs), 5.0) == Decision((jobs[0],), math.inf, "full")


@both
@pytest.mark.parametrize(
    ("size", "groups", "taken", "reason"),
    [
        (4, "a", [1], "idle"),
        (4, "aaa", [1, 2, 3], "idle"),
        (4, "aaaa", [1, 2, 3, 4], "full"),
        (4, "aaaaaa", [1, 2, 3, 4], "full"),
        (4, "aabba", [1, 2, 5], "group"),
        (4, "abbbbbb", [1], "group"),
        (1, "aa", [1], "full"),
        (2, "baab", [1, 4], "full"),
    ],
)
def test_greedy(kept: Kept, size: int, groups: str, taken: list[int], reason: str) -> None:
    """The oldest jobs of the oldest's group run at once; the reason names the limit."""
    decision = Greedy(size).decide(kept(arrivals(*range(len(groups)), groups=groups)), 0.0)

    assert [job.id for job in decision.take] == taken
    assert decision.reason == reason


# -- Window and ResettingWindow -----------------------------------------------------------


@both
@pytest.mark.parametrize(
    ("times", "groups", "now", "taken", "wake_at", "reason"),
    [
        ((10.0,), "a", 10.0, [], 10.5, ""),
        ((10.0, 10.4), "aa", 10.4, [], 10.5, ""),
        ((10.0, 10.4), "aa", 10.5, [1, 2], math.inf, "deadline"),
        ((10.0, 10.4), "aa", 99.0, [1, 2], math.inf, "deadline"),
        ((10.0, 10.1, 10.2), "aaa", 10.2, [1, 2, 3], math.inf, "full"),
        ((10.0, 10.1, 10.2, 10.3), "aaaa", 10.3, [1, 2, 3], math.inf, "full"),
        ((10.0, 10.1, 10.2, 10.3), "abbb", 10.3, [], 10.5, ""),
        ((10.0, 10.1, 10.2, 10.3), "abbb", 10.5, [1], math.inf, "deadline"),
        ((10.0, 10.1, 10.2, 10.3), "abaa", 10.3, [1, 3, 4], math.inf, "full"),
        ((10.0, 10.1, 10.2, 10.3), "aaaa", 11.0, [1, 2, 3], math.inf, "full"),
    ],
)
def test_window(
    kept: Kept,
    times: tuple[float, ...],
    groups: str,
    now: float,
    taken: list[int],
    wake_at: float,
    reason: str,
) -> None:
    """A batch runs when it is full or its deadline has passed, and never later."""
    decision = Window(3, 0.5).decide(kept(arrivals(*times, groups=groups)), now)

    assert [job.id for job in decision.take] == taken
    assert decision.wake_at == wake_at
    assert decision.reason == reason


def test_a_window_has_one_deadline() -> None:
    """Later arrivals do not move the release of the oldest job."""
    policy = Window(100, 0.5)
    times = [10.0, 10.1, 10.25, 10.49]
    wakes = [policy.decide(arrivals(*times[:n]), times[n - 1]).wake_at for n in range(1, 5)]

    assert wakes == [10.5] * 4


def test_a_resetting_window_restarts_with_each_arrival() -> None:
    """While requests keep arriving, the first one is never answered."""
    policy = ResettingWindow(0.5)
    times = [10.0 + 0.25 * n for n in range(400)]
    decisions = [policy.decide(arrivals(*times[:n]), times[n - 1]) for n in range(1, 401)]

    assert all(decision.take == () for decision in decisions)
    assert [decision.wake_at for decision in decisions] == [at + 0.5 for at in times]


@both
def test_a_resetting_window_has_no_limit(kept: Kept) -> None:
    """After a pause the whole group of the oldest job runs as one batch."""
    groups = "ab" + "a" * 4998
    decision = ResettingWindow(0.5).decide(kept(arrivals(*[0.0] * 5000, groups=groups)), 0.5)

    assert [job.id for job in decision.take] == [1, *range(3, 5001)]
    assert decision.reason == "deadline"


@settings(max_examples=100, deadline=None)
@given(
    arrived=st.floats(0, 1e9),
    max_wait=st.floats(0, 1e3),
    window=st.sampled_from([Window, ResettingWindow]),
)
def test_asked_at_the_time_it_named_a_window_takes(
    arrived: float, max_wait: float, window: Any
) -> None:
    """A driver that sleeps until ``wake_at`` makes progress, whatever the rounding of times."""
    policy: Policy = window(max_wait=max_wait)
    jobs = arrivals(arrived)
    first = policy.decide(jobs, arrived)
    if not first.take:
        assert arrived < first.wake_at < math.inf
        assert policy.decide(jobs, math.nextafter(first.wake_at, 0)).take == ()
        first = policy.decide(jobs, first.wake_at)

    assert first.take == tuple(jobs)


# -- LengthAware --------------------------------------------------------------------------


@both
@pytest.mark.parametrize(
    ("policy", "lengths", "groups", "taken", "reason"),
    [
        # nearest in length, in any order of arrival
        (LengthAware(3, 1.0), (10, 90, 11, 50, 9), "", [1, 3, 5], "full"),
        (LengthAware(2, 1.0), (10, 90, 50, 13, 8), "", [1, 5], "full"),
        (LengthAware(4, 1.0), (10, 20, 30, 40, 50), "", [1, 2, 3, 4], "full"),
        (LengthAware(4, 1.0), (50, 40, 30, 20, 10), "", [1, 2, 3, 4], "full"),
        (LengthAware(8, 1.0), (10, 900, 1), "", [1, 2, 3], "idle"),
        # padding within the share: 1 of 20 tokens is 5 %, 10 of 40 are 25 %
        (LengthAware(8, 0.05), (10, 9), "", [1, 2], "idle"),
        (LengthAware(8, 0.04), (10, 9), "", [1], "budget"),
        (LengthAware(8, 0.25), (20, 10), "", [1, 2], "idle"),
        (LengthAware(8, 0.0), (7, 8, 7, 6, 7), "", [1, 3, 5], "budget"),
        (LengthAware(8, 0.15), (100, 10, 95, 900, 104), "", [1, 3, 5], "budget"),
        # computed tokens: requests times the longest
        (LengthAware(8, 1.0, 30), (10, 10, 10, 10), "", [1, 2, 3], "budget"),
        (LengthAware(8, 1.0, 30), (10, 15, 16), "", [1, 2], "budget"),
        (LengthAware(8, 1.0, 30), (10, 16), "", [1], "budget"),
        (LengthAware(8, 1.0, 30), (500, 10, 500), "", [1], "budget"),
        (LengthAware(2, 1.0, 20), (10, 10, 10), "", [1, 2], "full"),
        # never another group
        (LengthAware(8, 0.1), (10, 10, 10), "aba", [1, 3], "group"),
        (LengthAware(8, 0.1), (10, 10, 99), "aba", [1], "budget"),
        (LengthAware(2, 0.1), (10, 10, 10), "aba", [1, 3], "full"),
        (LengthAware(1), (10, 10), "", [1], "full"),
        # lengths of 0 are accepted
        (LengthAware(8, 0.0), (0, 0, 1), "", [1, 2], "budget"),
    ],
)
def test_length_aware(
    kept: Kept,
    policy: LengthAware,
    lengths: tuple[int, ...],
    groups: str,
    taken: list[int],
    reason: str,
) -> None:
    """The oldest job runs with the nearest in length, within the limits."""
    decision = policy.decide(kept(of_lengths(*lengths, groups=groups)), 0.0)

    assert ids(decision) == taken
    assert decision.reason == reason


many_jobs = st.lists(
    st.tuples(st.integers(0, 120), st.sampled_from(["", "", "other"])), min_size=1, max_size=40
).map(lambda rows: [Job(i, float(i), n, group=group) for i, (n, group) in enumerate(rows, 1)])
length_aware = st.builds(
    LengthAware,
    max_batch_size=st.integers(1, 12),
    max_padding=st.floats(0, 1),
    max_tokens=st.none() | st.integers(1, 800),
)


@settings(max_examples=100, deadline=None)
@given(jobs=many_jobs, policy=length_aware)
def test_length_aware_keeps_its_limits(jobs: list[Job], policy: LengthAware) -> None:
    """For any queue: the oldest runs, with jobs of its group, within size, padding and tokens."""
    take = policy.decide(as_waiting(jobs), 0.0).take
    padded = len(take) * max(job.length for job in take)

    assert jobs[0] in take
    assert len(set(take)) == len(take)
    assert {job.group for job in take} == {jobs[0].group}
    assert len(take) <= policy.max_batch_size
    if len(take) > 1:
        padding = padded - sum(job.length for job in take)
        assert padding <= policy.max_padding * padded
        assert policy.max_tokens is None or padded <= policy.max_tokens


@settings(max_examples=100, deadline=None)
@given(jobs=many_jobs, policy=length_aware)
def test_length_aware_leaves_no_gap(jobs: list[Job], policy: LengthAware) -> None:
    """No job is skipped for one further away on the same side."""
    take = policy.decide(as_waiting(jobs), 0.0).take
    low, high = min(job.length for job in take), max(job.length for job in take)
    between = [job for job in jobs if job.group == jobs[0].group and low < job.length < high]

    assert set(between) <= set(take)


@settings(max_examples=100, deadline=None)
@given(jobs=many_jobs, size=st.integers(1, 12))
def test_length_aware_takes_the_nearest(jobs: list[Job], size: int) -> None:
    """If only the size limits the batch, no other batch around the oldest is nearer in length."""
    take = LengthAware(size, max_padding=1.0).decide(jobs, 0.0).take
    far = [abs(job.length - jobs[0].length) for job in jobs if job.group == jobs[0].group]

    assert sorted(abs(job.length - jobs[0].length) for job in take) == sorted(far)[:size]


@settings(max_examples=100, deadline=None)
@given(jobs=many_jobs, policy=length_aware)
def test_length_aware_says_why_it_stopped(jobs: list[Job], policy: LengthAware) -> None:
    """The reason follows from the batch, the limits and the remaining queue."""
    decision = policy.decide(jobs, 0.0)
    mates = sum(job.group == jobs[0].group for job in jobs)
    taken = len(decision.take)
    expected = "idle" if taken == len(jobs) else "group" if taken == mates else "budget"

    assert decision.reason == ("full" if taken == policy.max_batch_size else expected)


@settings(max_examples=100, deadline=None)
@given(
    jobs=many_jobs,
    policy=st.one_of(length_aware, st.sampled_from(POLICIES)),
    now=st.floats(0, 50),
)
def test_a_policy_decides_alike_on_a_list(jobs: list[Job], policy: Policy, now: float) -> None:
    """A plain list of jobs gives the same decision as the scheduler's indexed queue."""
    assert policy.decide(as_list(jobs), now) == policy.decide(as_waiting(jobs), now)


@settings(max_examples=50, deadline=None)
@given(jobs=many_jobs, policy=st.sampled_from(POLICIES), now=st.floats(0, 50))
def test_a_policy_only_looks(jobs: list[Job], policy: Policy, now: float) -> None:
    """Deciding does not change the queue, and a second call gives the same decision."""
    waiting = as_waiting(jobs)
    first = policy.decide(waiting, now)

    assert list(waiting) == jobs
    assert policy.decide(waiting, now) == first


# -- options and repr ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        *[
            (kind, {"max_batch_size": size})
            for kind in (Window, Greedy, LengthAware)
            for size in (0, -1, 1.0, 2.5, "8", None, True, math.inf)
        ],
        *[
            (kind, {"max_wait": wait})
            for kind in (Window, ResettingWindow)
            for wait in (-0.001, math.inf, math.nan, "0.01", None)
        ],
        *[(LengthAware, {"max_padding": share}) for share in (-0.1, 1.1, math.nan, math.inf)],
        *[(LengthAware, {"max_tokens": tokens}) for tokens in (0, -5, 1.5, True, "100")],
    ],
)
def test_wrong_options_are_rejected(kind: Any, options: dict[str, Any]) -> None:
    """The ``ValueError`` names the option and the value."""
    (name, value), *_ = options.items()

    with pytest.raises(OptionError) as caught:
        kind(**options)

    assert isinstance(caught.value, ValueError)
    assert caught.value.message.startswith(f"{name} must be")
    assert repr(value) in caught.value.message


@pytest.mark.parametrize("share", ["0.1", None, [0.1]])
def test_a_padding_that_is_not_a_number_is_rejected(share: Any) -> None:
    """Values that are not numbers raise ``OptionError`` like other wrong values."""
    with pytest.raises(OptionError):
        LengthAware(max_padding=share)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Window, {"max_wait": True}),
        (ResettingWindow, {"max_wait": False}),
        (LengthAware, {"max_padding": True}),
    ],
)
def test_true_is_no_number_of_seconds(kind: Any, options: dict[str, Any]) -> None:
    """``True`` is not a time, a share or a batch size."""
    with pytest.raises(OptionError):
        kind(**options)


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_the_repr_pastes_back(policy: Policy) -> None:
    """The repr can be pasted into a cell, or passed to the command line."""
    assert eval(repr(policy), NAMES) == policy
    assert parse_policy(repr(policy)) == policy


@pytest.mark.parametrize(
    "policy",
    [Window(8, np.linspace(0, 0.01, 3)[1]), LengthAware(max_padding=np.float64(0.5))],
    ids=["Window", "LengthAware"],
)
def test_the_repr_of_a_policy_made_with_numpy_pastes_back(policy: Policy) -> None:
    """Options from a numpy array are stored as plain numbers."""
    assert parse_policy(repr(policy)) == policy


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_a_policy_is_a_frozen_value(policy: Policy) -> None:
    """Policies with equal options are equal and can be keys; none can be changed."""
    assert len({policy, parse_policy(repr(policy))}) == 1
    assert isinstance(policy, Policy)
    for name in vars(policy):
        with pytest.raises(AttributeError):
            setattr(policy, name, 1)


def test_of_equally_short_mates_the_oldest_goes_first() -> None:
    """Among jobs of equal length, no newer job overtakes an older one."""
    jobs = [Job(1, 1.0, length=10), *(Job(n, float(n), length=9) for n in range(2, 6))]
    jobs += [Job(n, float(n), length=11) for n in range(6, 9)]

    taken = LengthAware(3).decide(jobs, 10.0).take

    assert {job.id for job in taken if job.length == 9} <= {2, 3}
    assert {job.id for job in taken if job.length == 11} <= {6, 7}
    assert len(taken) == 3
