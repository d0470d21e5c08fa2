"""Answers as JSON: numbers and arrays of numpy and torch, images, and no NaN."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import math
from collections.abc import Mapping
from typing import Any


def to_json(value: Any) -> bytes:
    """`value` as UTF-8 JSON.

    Numbers and arrays of numpy and torch become numbers and lists; NaN and infinity become null;
    an image becomes base64 PNG, bytes base64, a dataclass an object, and anything else its text.
    """
    try:
        text = json.dumps(
            value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=plain
        )
    except (ValueError, TypeError):
        # A NaN, or keys that are no strings: rare enough to look at every value only then.
        text = json.dumps(_clean(value), ensure_ascii=False, allow_nan=False)
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        # Half a surrogate pair has no UTF-8 form; as an escape it is valid JSON.
        return json.dumps(json.loads(text)).encode("ascii")


def plain(value: Any) -> Any:
    """A value that JSON does not know as one that it knows (`json.dumps`'s ``default``)."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        return (value.double() if value.is_floating_point() else value).tolist()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode("ascii")
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "save") and hasattr(value, "getbands"):
        buffer = io.BytesIO()
        value.save(buffer, format="PNG")
        return plain(buffer.getvalue())
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset)):
        return list(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
    return str(value)


def _clean(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, (list, tuple)):
        return [_clean(item) for item in value]
    if isinstance(value, Mapping):
        return {_key(key): _clean(item) for key, item in value.items()}
    return _clean(plain(value))


def _key(key: Any) -> Any:
    # What json.dumps knows as a key, it spells itself (true, null); the rest is text.
    return key if key is None or isinstance(key, (str, int)) else str(key)
