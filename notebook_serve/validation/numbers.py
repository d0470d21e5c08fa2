"""Checks of numbers: each raises `OptionError` with the name, the expected kind and the value."""

from __future__ import annotations

import math
import operator
import sys
from numbers import Integral, Real
from typing import Any

from ..errors import OptionError

#: the smallest positive number that can still be divided by, and the largest finite one
TINY, HUGE = sys.float_info.min, sys.float_info.max


def is_number(value: Any) -> bool:
    """Return True for a real number of Python or numpy; a bool is not one."""
    return isinstance(value, Real) and not isinstance(value, bool)


def plain_number(value: Any) -> float:
    """Return a number of Python or numpy as one of Python; NaN for any other value."""
    if not is_number(value):
        return math.nan
    return int(value) if isinstance(value, Integral) else float(value)


def as_number(name: str, value: Any, kind: str, *, least: float = 0.0, most: float = HUGE) -> float:
    """Return `value` as a plain number from `least` to `most`.

    `kind` describes that range for the error: "a number of seconds >= 0".
    """
    number = plain_number(value)
    if not least <= number <= most:
        raise OptionError(f"{name} must be {kind}, got {value!r}")
    return number


def as_whole_number(name: str, value: Any, kind: str = "", *, least: int = 1) -> int:
    """Return `value` as a plain whole number of at least `least`."""
    try:
        whole = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        whole = least - 1
    if whole < least:
        raise OptionError(f"{name} must be {kind or f'a whole number >= {least}'}, got {value!r}")
    return whole


def normalize_number(
    owner: object, name: str, kind: str, *, least: float = 0.0, most: float = HUGE
) -> None:
    """Replace a field by its plain number, so that the repr of `owner` pastes back."""
    value = as_number(name, getattr(owner, name), kind, least=least, most=most)
    object.__setattr__(owner, name, value)


def normalize_whole_number(owner: object, name: str, kind: str = "", *, least: int = 1) -> None:
    """Replace a field by its plain whole number."""
    object.__setattr__(owner, name, as_whole_number(name, getattr(owner, name), kind, least=least))
