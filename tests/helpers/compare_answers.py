"""Comparison of two answers: shapes, types and numbers; and the id of a value in a test."""

from __future__ import annotations

import numbers
from typing import Any

from notebook_serve.display import strip_addresses


def assert_same(expected: Any, actual: Any, tolerance: float = 1e-4, at: str = "answer") -> None:
    """Compare two answers, naming the first place where they differ."""
    if hasattr(expected, "getbands"):
        assert expected.size == actual.size, f"{at}: sizes differ"
        assert expected.mode == actual.mode, f"{at}: modes differ"
        # A number between two integers may be rounded to either.
        pairs = zip(expected.tobytes(), actual.tobytes(), strict=True)
        assert all(one == other or abs(one - other) == 1 for one, other in pairs), f"{at}: pictures"
        return
    if hasattr(expected, "tolist") and hasattr(expected, "shape"):
        assert tuple(expected.shape) == tuple(actual.shape), f"{at}: shapes differ"
        _assert_close(expected, actual, tolerance, at)
        return
    if isinstance(expected, dict):
        assert isinstance(actual, dict), f"{at}: {actual!r} is no dict"
        assert expected.keys() == actual.keys(), f"{at}: keys differ"
        for key, value in expected.items():
            assert_same(value, actual[key], tolerance, f"{at}[{key!r}]")
    elif isinstance(expected, (list, tuple)):
        assert isinstance(actual, (list, tuple)), f"{at}: {actual!r} is no list"
        assert len(expected) == len(actual), f"{at}: {len(expected)} items, got {len(actual)}"
        for index, value in enumerate(expected):
            assert_same(value, actual[index], tolerance, f"{at}[{index}]")
    elif isinstance(expected, numbers.Real) and not isinstance(expected, numbers.Integral):
        assert abs(float(expected) - float(actual)) <= tolerance, f"{at}: {expected} != {actual}"
    else:
        assert expected == actual, f"{at}: {expected!r} != {actual!r}"


def _assert_close(expected: Any, actual: Any, tolerance: float, at: str) -> None:
    """Compare two arrays or tensors of one shape."""
    import numpy as np

    one, other = np.asarray(expected), np.asarray(actual)
    if one.dtype.kind == "f":
        one, other = one.astype("float64"), other.astype("float64")
    else:
        tolerance = 0
    assert np.allclose(one, other, rtol=0, atol=tolerance, equal_nan=True), f"{at}: arrays differ"


def called(value: object) -> str:
    """What a parametrised test calls a value: the same in every process, without its address."""
    return strip_addresses(repr(value))
