from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notebook_serve.queueing.cost_model import CostModel
from notebook_serve.queueing.online_cost import MEMORY
from notebook_serve.queueing.wait_estimate import RECENT, WaitEstimate
from notebook_serve.records import BatchRecord

LAW = CostModel(fixed=0.005, per_item=0.001, per_token=0.0002)


def ran(backlog: WaitEstimate, lengths: Sequence[int], seconds: float) -> None:
    """Tell of a batch that took so long."""
    record = BatchRecord(0, "full", tuple(lengths), 0.0, seconds)
    backlog.online_cost.learn(record)
    backlog.learn(record)


def after(batches: Iterable[Sequence[int]], law: CostModel = LAW) -> WaitEstimate:
    """A backlog that has seen these batches run under `law`."""
    backlog = WaitEstimate()
    for lengths in batches:
        ran(backlog, lengths, law(lengths))
    return backlog


def predicted(backlog: WaitEstimate, lengths: Sequence[int]) -> float:
    """The seconds of a queue of requests of these lengths, which is gone afterwards."""
    for length in lengths:
        backlog.add(length)
    seconds = backlog.seconds(len(lengths))
    for length in lengths:
        backlog.discard(length)
    assert seconds is not None
    return seconds


def cut(lengths: Sequence[int], size: int) -> list[Sequence[int]]:
    """Batches of `size`, in this order."""
    return [lengths[at : at + size] for at in range(0, len(lengths), size)]


def in_order(lengths: Sequence[int], size: int) -> list[Sequence[int]]:
    """The batches of a policy that takes what came first."""
    return cut(lengths, size)


def by_length(lengths: Sequence[int], size: int) -> list[Sequence[int]]:
    """The batches of a policy that puts inputs of like length together, 80 at a time."""
    return [batch for some in cut(lengths, 80) for batch in cut(sorted(some), size)]


def mixed(count: int, seed: int) -> list[int]:
    """Lengths of which few are long, as texts have them."""
    rng = random.Random(seed)
    return [min(512, round(rng.lognormvariate(3.3, 0.8)) + 2) for _ in range(count)]


# -- what is not known yet ----------------------------------------------------------------


def test_nothing_is_said_before_enough_batches_ran() -> None:
    """The first batches tell too little, with an empty queue as with a full one."""
    backlog = WaitEstimate()
    backlog.add(5)
    for _ in range(RECENT - 1):
        ran(backlog, [5, 5], 0.1)
        assert backlog.seconds(0) is None
        assert backlog.seconds(1) is None
    ran(backlog, [5, 5], 0.1)

    assert backlog.seconds(0) is not None
    assert backlog.seconds(1) == pytest.approx(0.05)


@pytest.mark.parametrize("length", [0, 1, 10])
@pytest.mark.parametrize("size", [1, 4])
def test_equal_requests_take_equal_parts_of_a_batch(length: int, size: int) -> None:
    """Where all are alike, the wait is the depth times the seconds of each, lengths or none."""
    backlog = after([[length] * size] * RECENT, CostModel(fixed=0.2))

    for depth in (0, 1, 7, 100):
        assert predicted(backlog, [length] * depth) == pytest.approx(depth * 0.2 / size)
        assert backlog.seconds(depth) == pytest.approx(depth * 0.2 / size)


def test_unknown_lengths_are_taken_to_be_as_long_as_the_newest() -> None:
    """A request that is not prepared yet counts as the mean of those that ran."""
    backlog = after([[10] * 4, [70] * 4] * 20)
    known = predicted(backlog, [40] * 12)

    backlog.add(40)
    backlog.add(40)
    assert backlog.seconds(12) == pytest.approx(known)


def test_only_the_newest_tell_how_long_the_unknown_are() -> None:
    """Once short requests come, those not prepared yet are taken to be short."""
    backlog = after([*[[100] * 4] * 50, *[[10] * 4] * RECENT])

    assert backlog.seconds(20) == pytest.approx(predicted(backlog, [10] * 20))


# -- lengths ------------------------------------------------------------------------------


def test_long_requests_in_front_count_for_more() -> None:
    """With two lengths, each queue is near what it would take: not the mean of both."""
    backlog = after([[8] * 8, [128] * 8] * 20)

    assert predicted(backlog, [8] * 64) == pytest.approx(8 * LAW([8] * 8), rel=1e-3)
    assert predicted(backlog, [128] * 64) == pytest.approx(8 * LAW([128] * 8), rel=1e-3)
    assert predicted(backlog, [128] * 8 + [8] * 56) == pytest.approx(
        LAW([128] * 8) + 7 * LAW([8] * 8), rel=1e-3
    )


def test_lengths_count_as_soon_as_anything_is_said() -> None:
    """The law divides the batches that ran before there was one, too."""
    backlog = after([[8] * 8, [128] * 8] * (RECENT // 2))

    assert predicted(backlog, [128] * 64) == pytest.approx(8 * LAW([128] * 8), rel=1e-3)


@pytest.mark.parametrize("batches", [in_order, by_length])
@pytest.mark.parametrize("size", [1, 4, 16])
@pytest.mark.parametrize(
    "law", [LAW, CostModel(fixed=0.005, per_token=0.0001, per_square=1e-7)], ids=str
)
def test_a_queue_takes_what_is_said(
    batches: Callable[[Sequence[int], int], list[Sequence[int]]], size: int, law: CostModel
) -> None:
    """In batches as before, with their size and their padding, a queue takes about as long.

    One guess is as far off as the few newest batches are unlike all others; no side is preferred.
    """
    ratios = []
    for seed in range(20):
        backlog = after(batches(mixed(1600, seed), size), law)
        queue = mixed(320, seed + 100)
        ratios.append(predicted(backlog, queue) / sum(map(law, batches(queue, size))))

    assert statistics.mean(ratios) == pytest.approx(1.0, abs=0.1)
    assert statistics.median(ratios) == pytest.approx(1.0, abs=0.1)
    assert statistics.stdev(ratios) < 0.25


def test_lengths_do_not_count_where_they_cost_nothing() -> None:
    """A model that takes as long for any length keeps nobody waiting for a long one."""
    backlog = after(in_order(mixed(400, 1), 4), CostModel(fixed=0.1, per_item=0.01))

    assert predicted(backlog, [500] * 8) == pytest.approx(predicted(backlog, [5] * 8), rel=1e-6)


def test_without_a_law_requests_are_all_alike() -> None:
    """Times that follow no law of the lengths are shared evenly, whatever waits."""
    rng = random.Random(5)
    backlog = WaitEstimate()
    seconds = []
    for lengths in cut(mixed(400, 6), 4):
        seconds.append(rng.choice([0.01, 1.0]))
        ran(backlog, lengths, seconds[-1])
    each = sum(seconds[-RECENT:]) / (4 * RECENT)

    assert predicted(backlog, [2] * 10) == pytest.approx(10 * each)
    assert predicted(backlog, [500] * 10) == pytest.approx(10 * each)


# -- what changes -------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [2.0, 0.5])
@pytest.mark.parametrize("warm", [RECENT, 4 * MEMORY])
def test_a_model_that_becomes_slower_is_followed(factor: float, warm: int) -> None:
    """As many batches as are looked at, and the prediction is that of the new speed."""
    queue = mixed(160, 3)
    backlog = after(in_order(mixed(8 * warm, 1), 8))
    before = predicted(backlog, queue)
    for lengths in in_order(mixed(8 * RECENT, 2), 8):
        ran(backlog, lengths, factor * LAW(lengths))
    just_after = predicted(backlog, queue)
    for lengths in in_order(mixed(8 * 4 * MEMORY, 4), 8):
        ran(backlog, lengths, factor * LAW(lengths))
    long_after = predicted(backlog, queue)

    assert just_after == pytest.approx(factor * before, rel=0.15)
    assert long_after == pytest.approx(factor * before, rel=0.15)


def test_a_coarse_clock_stops_nobody() -> None:
    """Batches that took no time at all, for all that the clock tells, are not waited for."""
    backlog = after([[3, 4]] * (2 * RECENT), CostModel())

    assert backlog.seconds(10) == 0.0


# -- the sums -----------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 10_000)), st.randoms(use_true_random=False))
def test_what_has_left_leaves_nothing_behind(lengths: list[int], rng: random.Random) -> None:
    """Whatever the order in which requests come and go, an empty queue is empty."""
    backlog, coming = WaitEstimate(), list(lengths)
    waiting: list[int] = []
    while coming or waiting:
        if coming and rng.random() < 0.6:
            waiting.append(coming.pop())
            backlog.add(waiting[-1])
        elif waiting:
            backlog.discard(waiting.pop(rng.randrange(len(waiting))))
        assert (backlog.known, backlog.tokens) == (len(waiting), sum(waiting))

    assert (backlog.known, backlog.tokens) == (0, 0)
