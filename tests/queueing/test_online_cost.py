from __future__ import annotations

import copy
import math
import pickle
import random
import statistics
from collections.abc import Iterable

import pytest

from notebook_serve.queueing.cost_model import FEW, CostModel, Fit
from notebook_serve.queueing.online_cost import BATCHES, MEMORY, SECONDS, OnlineCost
from notebook_serve.records import BatchRecord

LAW = CostModel(0.0065, 0.0004, 0.00017)

Lengths = tuple[int, ...]


def shapes(count: int, seed: int = 0, *, sizes: int = 16, most: int = 128) -> list[Lengths]:
    """The lengths of each of `count` random batches."""
    rng = random.Random(seed)
    return [tuple(rng.randint(4, most) for _ in range(rng.randint(1, sizes))) for _ in range(count)]


def ran(law: OnlineCost, lengths: Lengths, seconds: float, retries: int = 0) -> None:
    """Tell of a batch that took so long."""
    law.learn(BatchRecord(0, "full", lengths, 0.0, seconds, retries=retries))


def teach(
    law: OnlineCost,
    batches: Iterable[Lengths],
    factor: float = 1.0,
    *,
    noise: float = 0.0,
    seed: int = 0,
    cost: CostModel = LAW,
) -> OnlineCost:
    """Tell of batches that took `factor` times what `cost` says, give or take the noise."""
    rng = random.Random(seed)
    for lengths in batches:
        ran(law, lengths, factor * cost(lengths) * rng.lognormvariate(0.0, noise))
    return law


def off(model: CostModel | None, factor: float = 1.0) -> float:
    """How far off a model is on average, as a share, where the law is `factor` times `LAW`."""
    assert model is not None
    batches = shapes(200, 99)
    return statistics.fmean(abs(model(each) / (factor * LAW(each)) - 1) for each in batches)


# -- until there is one -------------------------------------------------------------------


def test_there_is_no_law_before_enough_batches() -> None:
    """With one batch less than a fit wants there is none, and with that one there is."""
    law = OnlineCost()
    batches = shapes(FEW)
    teach(law, batches[:-1])
    before = law.latest, law.trusted
    teach(law, batches[-1:])

    assert before == (None, None)
    assert off(law.latest) < 1e-6
    assert law.trusted == law.latest


def test_there_is_no_law_before_enough_seconds() -> None:
    """Where batches are short it is not fitted so often that the fits would be felt."""
    law, tiny = OnlineCost(), CostModel(fixed=1e-5, per_token=1e-7)
    spent, fits, before = 0.0, 0, law.latest
    for lengths in shapes(5000):
        spent += tiny(lengths)
        ran(law, lengths, tiny(lengths))
        fits += law.latest is not before
        before = law.latest

    assert 1 <= fits <= spent / SECONDS


@pytest.mark.parametrize(
    "batches",
    [
        [(30,) * 4] * 100,
        [(length,) for length in range(1, 101)],
        [(30,) * size for size in range(1, 17)] * 6,
    ],
    ids=["all alike", "one at a time", "one length"],
)
def test_what_cannot_tell_the_terms_apart_is_not_trusted(batches: list[Lengths]) -> None:
    """Such batches have a law that is good for more of their kind, and for no others."""
    law = teach(OnlineCost(), batches)

    assert law.trusted is None
    assert law.latest is not None
    assert law.latest.warnings
    assert law.latest(batches[3]) == pytest.approx(LAW(batches[3]), rel=1e-6)


def test_what_tells_them_apart_is_trusted_once_there_is_enough_of_it() -> None:
    """The law is found however long all was alike before."""
    law = teach(OnlineCost(), [(30,) * 4] * 1000)
    before = law.trusted
    teach(law, shapes(2 * BATCHES))

    assert before is None
    assert off(law.trusted) < 0.01


def test_what_is_trusted_stays_so_while_all_is_alike() -> None:
    """Traffic of one shape, and long after the memory of others, does not take it away."""
    law = teach(OnlineCost(), shapes(100))
    teach(law, [(30,) * 4] * (10 * MEMORY))

    assert off(law.trusted) < 1e-6
    assert law.latest is not None
    assert law.latest.warnings


def test_inputs_without_a_length_have_a_law_of_their_number() -> None:
    """Where every length is 1 there are two terms, which sizes alone tell apart."""
    law = teach(OnlineCost(), [(1,) * size for size in range(1, 17)] * 3)

    assert law.trusted is not None
    assert law.trusted.seconds(5, 1) == pytest.approx(LAW.seconds(5, 1))


def test_times_without_a_law_make_none() -> None:
    """Seconds that have nothing to do with the batch are not called a law of it."""
    law, rng = OnlineCost(), random.Random(3)
    found = []
    for lengths in shapes(2000):
        ran(law, lengths, rng.choice([0.001, 0.01, 0.1, 1.0]))
        found.append(law.latest)

    assert found == [None] * 2000


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("noise", [0.3, 0.5])
def test_of_noisy_batches_it_takes_more_until_there_is_a_law_and_then_it_stays(
    noise: float, seed: int
) -> None:
    """Single batches of a fast device vary by half and more; how they do on average is known."""
    law = teach(OnlineCost(), shapes(MEMORY, seed), noise=noise, seed=seed)
    mean = math.exp(noise**2 / 2)  # of the factors by which they vary
    found = law.trusted
    kept = 0
    for number, lengths in enumerate(shapes(1000, seed + 10)):
        teach(law, [lengths], noise=noise, seed=number)
        kept += law.trusted is not None

    assert off(found, mean) < 0.25
    assert kept > 800  # now and then chance looks like a change, and it is learned anew


def test_a_device_on_which_every_batch_takes_as_long_has_a_law_that_says_so() -> None:
    """Whatever the size: then the larger the batch, the better, and padding costs nothing."""
    flat = CostModel(fixed=0.005)
    law = teach(OnlineCost(), shapes(2 * MEMORY, sizes=64), noise=0.5, cost=flat)

    found = law.trusted or law.latest
    assert found is not None
    assert found.seconds(64, 128) < 2 * found.seconds(1, 10)


# -- a change -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("factor", [0.1, 0.5, 1.5, 2.0, 10.0])
@pytest.mark.parametrize("before", [FEW, 5 * MEMORY])
def test_a_change_of_the_model_is_followed(factor: float, before: int, seed: int) -> None:
    """Once it is seen to be wrong the law is dropped, and learned anew from what ran since."""
    law = teach(OnlineCost(), shapes(before, seed), noise=0.1, seed=seed)
    old, dropped, found = law.trusted, None, None
    for number, lengths in enumerate(shapes(100, seed + 10)):
        teach(law, [lengths], factor, noise=0.1, seed=number)
        if law.latest is None and dropped is None:
            dropped = number
        if dropped is not None and law.trusted is not None and found is None:
            found = number

    assert off(old) < 0.1
    assert off(law.trusted, factor) < 0.1
    if dropped is None:  # newer batches mended it before it was seen to be wrong
        assert before == FEW
        assert factor == 1.5
    else:
        assert found is not None
        assert dropped < 20
        assert found - dropped <= FEW


def test_a_small_change_is_followed_without_dropping_anything() -> None:
    """A law that is a little wrong is still the best there is, until newer batches mend it."""
    law = teach(OnlineCost(), shapes(5 * MEMORY), noise=0.05)
    for lengths in shapes(2 * MEMORY, 1):
        teach(law, [lengths], 1.15)
        assert law.trusted is not None

    assert off(law.trusted, 1.15) < 0.05


@pytest.mark.parametrize("factor", [0.0, 5.0, 1000.0])
def test_one_batch_that_was_held_up_changes_nothing(factor: float) -> None:
    """A pause of the machine, or a tick that the clock missed, is no change of the model."""
    law = teach(OnlineCost(), shapes(60), noise=0.05)
    ran(law, (30,) * 4, factor * LAW((30,) * 4))
    after = law.trusted
    teach(law, shapes(BATCHES, 1), noise=0.05)

    assert after is not None
    assert off(law.trusted) < 0.1


def test_a_slow_first_batch_does_not_delay_the_law() -> None:
    """Models warm up: the first batch often takes many times what it takes later."""
    law = OnlineCost()
    ran(law, (20, 30), 100 * LAW((20, 30)))
    teach(law, shapes(3 * BATCHES))

    assert off(law.trusted) < 0.1


def test_a_batch_that_was_run_again_in_parts_tells_nothing() -> None:
    """Its seconds are of several forwards, the failed one among them."""
    one, other = teach(OnlineCost(), shapes(30)), teach(OnlineCost(), shapes(30))
    for lengths in shapes(100, 1):
        ran(other, lengths, 3 * LAW(lengths), retries=2)

    assert pickle.dumps(other) == pickle.dumps(one)


def test_a_clock_too_coarse_to_see_a_batch_spoils_nothing() -> None:
    """Batches of no time at all make a law of nothing, and no error."""
    law = OnlineCost()
    for lengths in shapes(300):
        ran(law, lengths, 0.0)
    for lengths in shapes(300, 1):
        ran(law, lengths, LAW(lengths))

    assert off(law.trusted) < 0.01


def test_a_clock_that_becomes_too_coarse_takes_the_law_away() -> None:
    """Where batches take no time all of a sudden, there is no law, and there is one afterwards."""
    law = teach(OnlineCost(), shapes(100))
    for lengths in shapes(100, 1):
        ran(law, lengths, 0.0)
    without = law.latest
    teach(law, shapes(60, 2))

    assert without is None
    assert off(law.trusted) < 0.01


# -- what it costs ------------------------------------------------------------------------


def test_it_keeps_no_batches() -> None:
    """What is kept is as large after ten thousand batches as after a hundred."""
    law = teach(OnlineCost(), shapes(100))
    before = len(pickle.dumps(law))
    teach(law, shapes(10_000, 1))

    assert len(pickle.dumps(law)) <= before + 64


def test_it_is_fitted_once_in_many_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch costs a few sums; the fit, which costs more, comes every so many."""
    fits = []
    solve = Fit.solve

    def counted(fit: Fit) -> CostModel:
        fits.append(fit)
        return solve(fit)

    monkeypatch.setattr(Fit, "solve", counted)
    teach(OnlineCost(), shapes(1000), noise=0.1)

    assert 1 <= len(fits) <= 1000 / BATCHES + 3  # the first is made in three steps


def test_a_copy_learns_by_itself() -> None:
    """A copy has what was learned, and neither learns from the other."""
    one = OnlineCost()
    for number in range(5):
        one.learn(BatchRecord(number, "", (3, 4), 0.0, 0.01))
    other = copy.deepcopy(one)
    assert other.batches == one.batches == 5
    other.learn(BatchRecord(5, "", (3, 4), 0.0, 0.01))
    assert (one.batches, other.batches) == (5, 6)
