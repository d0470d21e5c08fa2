"""Histograms: counts of all values by size, in constant memory."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate

#: upper bounds for times, in seconds: from a millisecond to half a minute
SECONDS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0),
)
#: upper bounds for shares, from 0 to 1
SHARES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

#: upper bounds for batch sizes, from 1 to 1024
SIZES = tuple(float(2**n) for n in range(11))


class Histogram:
    """Counts of values between `bounds`, and the sum of the values.

    Not thread-safe: its owner holds a lock.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        #: values in each interval; the last interval is above all bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float, times: int = 1) -> None:
        """Count a value, `times` times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    def copy(self) -> Histogram:
        """Return an independent copy."""
        copied = Histogram(self.bounds)
        copied.counts, copied.sum = self.counts.copy(), self.sum
        return copied

    @property
    def total(self) -> int:
        """Number of values."""
        return sum(self.counts)

    def cumulative(self) -> Iterator[tuple[float, int]]:
        """Return each bound with the number of values up to it; the last bound is infinity."""
        return zip((*self.bounds, float("inf")), accumulate(self.counts), strict=True)

    def __repr__(self) -> str:
        return f"<Histogram: {self.total} values>"
