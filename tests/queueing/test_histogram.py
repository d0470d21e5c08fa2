"""Histograms, compared with counting values one by one."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notebook_serve.queueing.histogram import SECONDS, SHARES, Histogram

values = st.lists(st.floats(0, 100, allow_nan=False) | st.sampled_from([*SECONDS, *SHARES]))


@given(values=values)
def test_each_bound_counts_what_is_at_most_as_large(values: list[float]) -> None:
    """A value equal to a bound counts as below it, and infinity counts all values."""
    histogram = Histogram(SECONDS)
    for value in values:
        histogram.add(value)

    expected = [(bound, sum(value <= bound for value in values)) for bound in (*SECONDS, math.inf)]

    assert list(histogram.cumulative()) == expected
    assert histogram.total == len(values)
    assert histogram.sum == pytest.approx(sum(values))


def test_a_value_may_come_several_times() -> None:
    """Adding a value several times equals adding it so often."""
    histogram = Histogram((1.0, 2.0))
    histogram.add(2.0, times=3)
    histogram.add(5.0)

    assert list(histogram.cumulative()) == [(1.0, 0), (2.0, 3), (math.inf, 4)]
    assert histogram.sum == 11.0


def test_a_copy_stays_as_it_is() -> None:
    """Values added later are not in a copy."""
    histogram = Histogram((1.0,))
    histogram.add(0.5)
    copy = histogram.copy()
    histogram.add(0.5)

    assert (copy.total, histogram.total) == (1, 2)


@pytest.mark.parametrize("bounds", [SECONDS, SHARES])
def test_bounds_rise(bounds: tuple[float, ...]) -> None:
    """The bounds are sorted, because they are searched by bisection."""
    assert list(bounds) == sorted(set(bounds))
