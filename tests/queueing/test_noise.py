"""Noise of batch durations: drawn as configured, estimated from records, and felt by the queue."""

from __future__ import annotations

import math
import random
import statistics
from typing import Any

import pytest

from notebook_serve import CostModel, Greedy, LengthAware, NoBatching, Noise, simulate
from notebook_serve.errors import OptionError
from notebook_serve.queueing.noise import FEW, Factors, fit_autocorrelation
from notebook_serve.records import BatchRecord
from notebook_serve.traffic import Poisson, Uniform

COST = CostModel(fixed=0.010, per_token=0.0002)
SPELLS = Noise(0.2, 0.7, 0.5)


@pytest.mark.parametrize("name", ["spread", "autocorrelation", "correlation_time"])
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, 2e9, "0", None, True])
def test_wrong_options_are_rejected(name: str, value: Any) -> None:
    """The error names the field."""
    with pytest.raises(OptionError, match=name):
        Noise(**{name: value})


@pytest.mark.parametrize("noise", [Noise(0.3), SPELLS, Noise(0.5, 1.0, 2.0), Noise(0.2, 0.5, 0.0)])
def test_factors_have_the_mean_and_the_spread_asked_for(noise: Noise) -> None:
    """Batches far apart are independent, with any autocorrelation."""
    draw = Factors(noise, random.Random(1))
    logs = [math.log(draw(100.0 * n)) for n in range(20_000)]
    sigma = math.sqrt(math.log1p(noise.spread**2))

    assert statistics.fmean(logs) == pytest.approx(-(sigma**2) / 2, abs=4 * sigma / math.sqrt(2e4))
    assert statistics.stdev(logs) == pytest.approx(sigma, rel=4 / math.sqrt(4e4))


def test_batches_near_each_other_are_alike() -> None:
    """Batches share the configured part of the variance, which decays with time."""
    gap = 0.5
    draw = Factors(Noise(0.2, 0.8, 1.0), random.Random(2))
    logs = [math.log(draw(gap * n)) for n in range(50_000)]
    for lag in (1, 2, 4):
        said = statistics.correlation(logs[:-lag], logs[lag:])

        assert said == pytest.approx(0.8 * math.exp(-gap * lag), abs=0.03)


def test_batches_that_start_together_share_the_common_noise() -> None:
    """Two workers of one machine share the noise."""
    draw = Factors(Noise(0.2, 1.0, 1.0), random.Random(3))

    assert draw(5.0) == draw(5.0) != draw(6.0)


@pytest.mark.parametrize("noise", [SPELLS, Noise(0.1, 0.9, 2.0), Noise(0.3, 0.4, 0.1)], ids=repr)
def test_what_was_simulated_is_found_again(noise: Noise) -> None:
    """The estimate from the batches of a run equals the configured noise."""
    report = simulate(
        LengthAware(8), Poisson(40.0, n=20_000), COST, lengths=Uniform(1, 50), noise=noise
    )
    found = CostModel.fit(report.batches).noise

    assert found.spread == pytest.approx(noise.spread, rel=0.15)
    assert found.autocorrelation == pytest.approx(noise.autocorrelation, abs=0.12)
    assert found.correlation_time == pytest.approx(noise.correlation_time, rel=0.6)


def test_independent_noise_has_no_autocorrelation() -> None:
    """Independent noise has no autocorrelation."""
    report = simulate(Greedy(8), Poisson(40.0, n=20_000), COST, noise=0.2)

    assert CostModel.fit(report.batches).noise.autocorrelation < 0.05


@pytest.mark.parametrize(
    "logs",
    [[], [0.1] * (FEW - 1), [0.0] * 500, [0.1] * 500, [0.1, -0.1] * 250],
    ids=["none", "few", "nothing", "always as much", "to and fro"],
)
def test_where_there_is_nothing_to_find_nothing_is(logs: list[float]) -> None:
    """Few batches, no noise or independent noise give no autocorrelation."""
    share, time = fit_autocorrelation([0.1 * n for n in range(len(logs))], logs)

    assert share * time < 0.05


def test_batches_of_one_moment_are_no_trouble() -> None:
    """A coarse clock may give many batches the same start."""
    draw = random.Random(4)
    share, _ = fit_autocorrelation([1.0] * 200, [draw.gauss(0.0, 0.1) for _ in range(200)])

    assert 0.0 <= share <= 1.0


def test_the_order_of_the_batches_does_not_matter() -> None:
    """Batches are sorted by their start."""
    report = simulate(NoBatching(), Poisson(40.0, n=3000), COST, noise=SPELLS)
    batches = list(report.batches)
    mixed = random.Random(5).sample(batches, len(batches))

    assert CostModel.fit(mixed).noise.autocorrelation == pytest.approx(
        CostModel.fit(batches).noise.autocorrelation
    )


def test_a_batch_of_no_seconds_gives_no_noise() -> None:
    """A coarse clock gives durations of 0."""
    batches = [BatchRecord(n, "idle", (1,), started=float(n), seconds=0.0) for n in range(100)]

    assert not CostModel.fit(batches).noise


def test_a_model_that_was_not_fitted_has_no_noise() -> None:
    """A fitted model keeps its noise as JSON."""
    assert not COST.noise
    fitted = CostModel(fixed=0.1, error=0.2, autocorrelation=0.5, correlation_time=3.0)
    assert CostModel.from_json(fitted.to_json()).noise == Noise(0.2, 0.5, 3.0)


def test_a_machine_may_be_slow_at_times() -> None:
    """Durations are multiplied by the factor at the start of the batch, with or without noise."""

    def slowdown(now: float) -> float:
        return 3.0 if 10.0 <= now < 20.0 else 1.0

    for policy in (NoBatching(), LengthAware()):  # with events left out, and with all of them
        report = simulate(policy, [0.0, 10.0, 20.0], COST, lengths=10, slowdown=slowdown)
        noisy = simulate(
            policy, [0.0, 10.0], COST, lengths=10, slowdown=slowdown, noise=0.2, seed=3
        )
        plain = simulate(policy, [0.0, 10.0], COST, lengths=10, noise=0.2, seed=3)

        assert [batch.seconds for batch in report.batches] == pytest.approx([0.012, 0.036, 0.012])
        assert noisy.batches[0].seconds == plain.batches[0].seconds
        assert noisy.batches[1].seconds == pytest.approx(3 * plain.batches[1].seconds)


@pytest.mark.parametrize("factor", [-1.0, math.nan, math.inf])
def test_a_slowdown_that_makes_no_sense_is_rejected(factor: float) -> None:
    """Start times must not decrease."""
    with pytest.raises(OptionError, match="number of seconds"):
        simulate(NoBatching(), [0.0], COST, slowdown=lambda now: factor)


def test_correlated_noise_lengthens_the_longest_waits() -> None:
    """Equal noise makes a longer tail if it is correlated, at a load below capacity."""
    arrivals = Poisson(50.0, n=100_000)
    own, spell = (
        simulate(NoBatching(), arrivals, COST, lengths=10, noise=noise)
        for noise in (Noise(0.3), Noise(0.3, 0.9, 5.0))
    )

    assert spell.latency.p95 > 1.2 * own.latency.p95
    assert spell.throughput == pytest.approx(own.throughput, rel=0.01)
