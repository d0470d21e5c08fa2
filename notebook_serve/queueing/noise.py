"""How batches vary around what they cost: how much, and how long a slow spell lasts."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

from ..errors import OptionError

#: fewer batches than this say nothing of spells
FEW = 50
#: how many batches apart those are that are compared with each other
LAGS = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89)
#: the correlation times among which the best is looked for: steps of a fifth root of ten
TIMES = tuple(10 ** (power / 5) for power in range(-10, 6))
#: the most that makes sense
LIMITS = {"spread": 100.0, "autocorrelation": 1.0, "correlation_time": 1e9}


@dataclass(frozen=True)
class Noise:
    """Batches take what a cost model says times a random factor, log-normal with mean 1.

    `spread` is its coefficient of variation. Of the variance of its logarithm, the share
    `autocorrelation` belongs to the machine's spells: it is slow for a while, and then faster, and
    two batches that start `t` seconds apart share ``exp(-t / correlation_time)`` of it. The rest is
    each batch's own. All workers of a simulation share the spells, as they would one machine.

    Spells matter for what waits: a queue that a slow second has filled is still there in the next,
    where as much noise from batch to batch would have evened out.
    """

    spread: float = 0.0
    autocorrelation: float = 0.0
    #: seconds
    correlation_time: float = 0.0

    def __post_init__(self) -> None:
        for name, most in LIMITS.items():
            value = getattr(self, name)
            number = isinstance(value, Real) and not isinstance(value, bool)
            if not number or not 0 <= value <= most:
                raise OptionError(f"{name} of noise is a number from 0 to {most:g}, not {value!r}")

    def __bool__(self) -> bool:
        return self.spread > 0


class Factors:
    """The factor of each batch in turn, as a function of when it starts.

    The spells are an Ornstein-Uhlenbeck process (Uhlenbeck and Ornstein, "On the Theory of the
    Brownian Motion", Physical Review 36, 1930), known exactly at the times that are asked for,
    which must not go back.
    """

    def __init__(self, noise: Noise, draw: random.Random) -> None:
        variance = math.log1p(noise.spread**2)
        self._mean = -variance / 2
        self._slow = math.sqrt(noise.autocorrelation * variance)
        self._own = math.sqrt((1 - noise.autocorrelation) * variance)
        self._rate = 1 / noise.correlation_time if noise.correlation_time else math.inf
        self._draw = draw
        self._at, self._spell = -math.inf, 0.0

    def __call__(self, now: float) -> float:
        """The factor of a batch that starts at `now`."""
        mean = self._mean
        if self._slow:
            mean += self._slow * self._spell_at(now)
        return self._draw.lognormvariate(mean, self._own)

    def _spell_at(self, now: float) -> float:
        if now > self._at:
            kept = math.exp(-(now - self._at) * self._rate)
            self._spell = kept * self._spell + math.sqrt(1 - kept * kept) * self._draw.gauss(0, 1)
            self._at = now
        return self._spell


def spells(times: Sequence[float], logs: Sequence[float]) -> tuple[float, float]:
    """The autocorrelation and the correlation time of what is left of batches' seconds.

    `logs` are the logarithms of what batches took over what they were expected to take, of batches
    that started at `times`, in order. What the products of two of them are on average, at ten
    distances, is fitted by an exponential: least squares over its height, and the best of a grid of
    times from 10 ms to 10 s. Zeros where there are too few, or nothing is common to them.
    """
    count = len(logs)
    if count < FEW:
        return 0.0, 0.0
    mean = math.fsum(logs) / count
    rest = [value - mean for value in logs]
    variance = math.fsum(value * value for value in rest) / count
    if variance < 1e-12:
        return 0.0, 0.0
    #: sums of products by their distance in time, in steps of a fifth; with how many there are
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
