"""Answers as JSON: numbers and arrays of numpy and torch, images, and no NaN."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import math
from collections.abc import Mapping
from typing import Any

from .sounds import is_sound, wav


def to_json(value: Any) -> bytes:
    """`value` as UTF-8 JSON.

    Numbers and arrays of numpy and torch become numbers and lists; NaN and infinity become null;
    an image becomes base64 PNG, sound base64 WAV beside its rate, bytes base64, a dataclass an
    object, and anything else its text.
    """
    value = _with_files(value)
    try:
        text = _ENCODER.encode(value)
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
        return plain(png(value))
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset)):
        return list(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
    return str(value)


def png(image: Any) -> bytes:
    """An image of Pillow's as a file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


#: made once: `json.dumps` with options makes one for each answer
_ENCODER = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=plain
)


def _with_files(value: Any) -> Any:
    """Sound and masks as files' bytes, in one answer or a list: arrays say nothing of that."""
    if isinstance(value, list) and any(map(_may_hold_arrays, value)):
        return [_with_files(item) for item in value]
    if not _may_hold_arrays(value):
        return value
    if is_sound(value):
        return {**value, "audio": wav(value)}
    if _has_masks(value):
        return {**value, "masks": [_mask(mask) for mask in value["masks"]]}
    return value


def _may_hold_arrays(value: Any) -> bool:
    return isinstance(value, dict) and ("audio" in value or "masks" in value)


def _has_masks(value: Mapping[str, Any]) -> bool:
    """Whether an answer has masks as arrays of booleans, of a shape of height x width each."""
    masks = value.get("masks")
    if not isinstance(masks, list):
        return False
    return all(str(getattr(mask, "dtype", "")).endswith("bool") for mask in masks)


def _mask(mask: Any) -> bytes:
    import numpy as np
    from PIL import Image

    return png(Image.fromarray(np.asarray(mask, dtype=np.uint8) * 255))


def file_of(value: Any, kind: str) -> bytes | None:
    """The one file of the `kind` that an answer is, ``image/png`` or ``audio/wav``; or None."""
    if kind == "audio/wav":
        return wav(value) if is_sound(value) else None
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    parts = value.values() if isinstance(value, Mapping) else [value]
    images = [part for part in parts if hasattr(part, "getbands")]
    return png(images[0]) if len(images) == 1 else None


def is_bulky(value: Any) -> bool:
    """Whether an answer holds what takes long to encode: images, sound, arrays.

    The first hundred of a list are looked at: the rest will be like them.
    """
    items = value[:100] if isinstance(value, list) else [value]
    parts = (item.values() if isinstance(item, dict) else [item] for item in items)
    return any(
        hasattr(x, "shape") or hasattr(x, "getbands")
        for part in parts
        for value in part
        for x in (value if isinstance(value, list) else [value])[:1]
    )


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
