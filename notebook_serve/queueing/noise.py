"""Noise of batch durations: random variation around the cost model, with correlation in time."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from ..validation.numbers import as_number

#: the number of batches needed to estimate an autocorrelation
FEW = 50
#: pairs of batches that are this many batches apart are compared
LAGS = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89)
#: candidate correlation times in seconds, in steps of a fifth root of ten
TIMES = tuple(10 ** (power / 5) for power in range(-10, 6))
#: the largest value of each field
LIMITS = {"spread": 100.0, "autocorrelation": 1.0, "correlation_time": 1e9}


@dataclass(frozen=True)
class Noise:
    """A random factor of batch durations: log-normal, with mean 1.

    `spread` is its coefficient of variation. The variance of its logarithm has two parts. The share
    `autocorrelation` is common to batches that run close in time, because a machine is slow for a
    while and then faster: batches that start `t` seconds apart have ``exp(-t / correlation_time)``
    of it in common. The rest is independent. All workers of a simulation share the common part, as
    they would on one machine.

    Correlation lengthens queues: a queue that grew in a slow second is still there in the next one,
    while independent noise averages out.
    """

    spread: float = 0.0
    autocorrelation: float = 0.0
    #: seconds
    correlation_time: float = 0.0

    def __post_init__(self) -> None:
        for name, most in LIMITS.items():
            kind = f"a number from 0 to {most:g}"
            value = as_number(f"{name} of noise", getattr(self, name), kind, most=most)
            object.__setattr__(self, name, value)

    def __bool__(self) -> bool:
        return self.spread > 0


class Factors:
    """A generator of random factors, one for each batch, given its start time.

    The common part is an Ornstein-Uhlenbeck process (Uhlenbeck and Ornstein, "On the Theory of the
    Brownian Motion", Physical Review 36, 1930), sampled exactly. Start times must not decrease.
    """

    def __init__(self, noise: Noise, draw: random.Random) -> None:
        variance = math.log1p(noise.spread**2)
        self._mean = -variance / 2
        self._common_deviation = math.sqrt(noise.autocorrelation * variance)
        self._own_deviation = math.sqrt((1 - noise.autocorrelation) * variance)
        self._rate = 1 / noise.correlation_time if noise.correlation_time else math.inf
        self._draw = draw
        self._at, self._common = -math.inf, 0.0

    def __call__(self, now: float) -> float:
        """Return the factor of a batch that starts at `now`."""
        mean = self._mean
        if self._common_deviation:
            mean += self._common_deviation * self._advance(now)
        return self._draw.lognormvariate(mean, self._own_deviation)

    def _advance(self, now: float) -> float:
        """Return the common part at `now`, as a standard normal number."""
        if now > self._at:
            kept = math.exp(-(now - self._at) * self._rate)
            fresh = math.sqrt(1 - kept * kept) * self._draw.gauss(0, 1)
            self._common = kept * self._common + fresh
            self._at = now
        return self._common


def fit_autocorrelation(times: Sequence[float], logs: Sequence[float]) -> tuple[float, float]:
    """Return the autocorrelation and the correlation time of residuals.

    `logs` are logarithms of observed over expected durations, of batches that started at `times`,
    in order. The mean products of pairs, at ten lags, are fitted by an exponential decay: least
    squares for its height, and a grid search from 10 ms to 10 s for its time. Returns zeros if
    there are fewer than `FEW` batches, or no correlation.
    """
    count = len(logs)
    if count < FEW:
        return 0.0, 0.0
    mean = math.fsum(logs) / count
    rest = [value - mean for value in logs]
    variance = math.fsum(value * value for value in rest) / count
    if variance < 1e-12:
        return 0.0, 0.0
    #: by distance in time, in steps of a fifth root of ten: sums of distances, products and pairs
    sums: defaultdict[int, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for lag in LAGS:
        for i in range(count - lag):
            apart = max(times[i + lag] - times[i], 1e-6)
            cell = sums[math.floor(5 * math.log10(apart))]
            cell[0] += apart
            cell[1] += rest[i] * rest[i + lag] / variance
            cell[2] += 1
    cells = [(apart / n, product / n, n) for apart, product, n in sums.values()]
    best = 0.0, 0.0, 0.0
    for time in TIMES:
        shape = [(math.exp(-apart / time), product, n) for apart, product, n in cells]
        across = sum(n * value * product for value, product, n in shape)
        along = sum(n * value * value for value, _, n in shape)
        height = min(1.0, max(0.0, across / along)) if along else 0.0
        best = max(best, (2 * height * across - height * height * along, height, time))
    return best[1], best[2]
