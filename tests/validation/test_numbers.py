"""Checks of numbers, of Python and of numpy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from notebook_serve.errors import OptionError
from notebook_serve.validation.numbers import (
    TINY,
    as_number,
    as_whole_number,
    is_number,
    normalize_number,
    normalize_whole_number,
    plain_number,
)


@dataclass(frozen=True)
class Pair:
    """A frozen value with two numbers."""

    share: float
    count: int


@pytest.mark.parametrize("value", [0, -1, 2.5, math.nan, Fraction(1, 2), np.float32(1), np.int8(1)])
def test_real_numbers_are_numbers(value: Any) -> None:
    """Those of numpy too."""
    assert is_number(value)


@pytest.mark.parametrize("value", [True, np.True_, None, "1", 1j, [1]])
def test_other_values_are_not_numbers(value: Any) -> None:
    """A bool is not a number, and their plain number is NaN."""
    assert not is_number(value)
    assert math.isnan(plain_number(value))


@pytest.mark.parametrize(
    ("value", "plain"), [(np.int64(3), 3), (np.float64(0.5), 0.5), (Fraction(1, 4), 0.25), (7, 7)]
)
def test_a_plain_number_is_of_python(value: Any, plain: float) -> None:
    """Whole numbers stay whole, so that their repr pastes back."""
    assert repr(plain_number(value)) == repr(plain)


def test_the_limits_are_included() -> None:
    """The least and the most value are both allowed."""
    assert as_number("x", 0, "a share", most=1.0) == 0
    assert as_number("x", 1.0, "a share", most=1.0) == 1.0
    assert as_number("x", math.inf, "a time", least=TINY, most=math.inf) == math.inf


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf, 10**400, "0.5", True, None])
def test_a_number_out_of_range_is_rejected(value: Any) -> None:
    """The error has the name, the range and the value."""
    with pytest.raises(OptionError) as caught:
        as_number("x", value, "a share from 0 to 1", most=1.0)
    assert caught.value.message == f"x must be a share from 0 to 1, got {value!r}"


def test_infinity_needs_permission() -> None:
    """Without `most` a number must be finite."""
    with pytest.raises(OptionError, match="x must be a time, got inf"):
        as_number("x", math.inf, "a time")


@pytest.mark.parametrize(("value", "whole"), [(1, 1), (np.uint8(200), 200), (10**30, 10**30)])
def test_whole_numbers(value: Any, whole: int) -> None:
    """Those of numpy become those of Python."""
    found = as_whole_number("n", value)
    assert (found, type(found)) == (whole, int)


@pytest.mark.parametrize("value", [0, -3, 1.0, True, "1", None, math.nan, Fraction(2)])
def test_what_is_not_whole_is_rejected(value: Any) -> None:
    """So is a whole number below the least."""
    with pytest.raises(OptionError) as caught:
        as_whole_number("n", value)
    assert caught.value.message == f"n must be a whole number >= 1, got {value!r}"


def test_a_whole_number_may_have_another_description_and_limit() -> None:
    """The error repeats the given kind."""
    assert as_whole_number("n", 0, least=0) == 0
    with pytest.raises(OptionError, match="n must be a size, got 4"):
        as_whole_number("n", 4, "a size", least=5)


def test_fields_are_replaced_by_plain_numbers() -> None:
    """The repr of a frozen value with numpy's numbers pastes back."""
    pair = Pair(np.float64(0.5), np.int64(3))
    normalize_number(pair, "share", "a share")
    normalize_whole_number(pair, "count")

    assert repr(pair) == "Pair(share=0.5, count=3)"
    with pytest.raises(OptionError, match="count must be a whole number >= 4, got 3"):
        normalize_whole_number(pair, "count", least=4)
