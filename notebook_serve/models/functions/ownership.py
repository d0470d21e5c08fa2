"""Ownership of outputs: copies of values that a function may write to again in its next call."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

#: types that no function can change after it has returned them
IMMUTABLE = {str, int, float, complex, bool, bytes, type(None)}


def own(value: Any) -> Any:
    """Return a value that no later call changes: arrays and containers are copied.

    A function may return views of one buffer, or the same dict for several inputs. Arrays, tensors,
    series and images are copied by their own methods. Other objects are returned as they are.
    """
    kind = type(value)
    if kind in IMMUTABLE:
        return value
    if kind is dict:
        return {key: own(item) for key, item in value.items()}
    if kind is list or kind is tuple:
        return kind([own(item) for item in value])
    if isinstance(value, (dict, list, tuple, bytearray)):
        with contextlib.suppress(Exception):  # a class of the user's that cannot be copied
            return copy.deepcopy(value)
        return value
    return _copy_array(value)


def _copy_array(value: Any) -> Any:
    """Return a copy of an array, tensor, series, table or image, and any other object itself."""
    if hasattr(type(value), "shape") or hasattr(value, "getbands"):
        for method in ("clone", "copy"):  # of torch; of numpy, pandas and Pillow
            if hasattr(value, method):
                return getattr(value, method)()
    return value
