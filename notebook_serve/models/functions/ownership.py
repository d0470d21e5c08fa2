"""Ownership of outputs: copies of values that a function may write to again in its next call."""

from __future__ import annotations

import contextlib
import copy
from collections import deque
from collections.abc import Mapping, MutableSet
from dataclasses import is_dataclass
from typing import Any

#: types that no function can change after it has returned them
IMMUTABLE = {str, int, float, complex, bool, bytes, type(None)}

#: other containers, which may hold arrays
CONTAINERS = (Mapping, MutableSet, list, tuple, deque, bytearray)


def own(value: Any) -> Any:
    """Return a value that no later call changes: arrays and containers are copied.

    A function may return views of one buffer, or the same dict for several inputs. Arrays, tensors,
    series and images are copied by their own methods, containers and dataclasses with their parts.
    Other objects, and those that cannot be copied, are returned as they are.
    """
    with contextlib.suppress(Exception):  # a value that contains itself, a class that cannot
        return _copy(value)
    return value


def _copy(value: Any) -> Any:
    kind = type(value)
    if kind in IMMUTABLE:
        return value
    if kind is dict:
        return {key: _copy(item) for key, item in value.items()}
    if kind is list or kind is tuple:
        return kind([_copy(item) for item in value])
    if kind is memoryview:
        return memoryview(value.tobytes())
    has_objects = getattr(getattr(value, "dtype", None), "kind", "") == "O"  # of numpy
    if has_objects or isinstance(value, CONTAINERS) or is_dataclass(value):
        return copy.deepcopy(value)
    if hasattr(kind, "shape") or hasattr(value, "getbands"):
        for method in ("clone", "copy"):  # of torch; of numpy, pandas and Pillow
            if hasattr(value, method):
                return getattr(value, method)()
    return value
