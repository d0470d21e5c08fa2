"""JSON encoding of answers, with numbers, arrays, images, sound and tables."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import io
import json
import math
import sys
from collections import UserString
from collections.abc import Collection, Mapping, Sequence, Set, ValuesView
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

from ..errors import ModelFailed
from ..models.functions.batch_outputs import is_table, table_rows
from .wav import encode_wav, is_sound

#: types that contain no dict, array or image
LEAVES = {str, int, float, bool, type(None)}


def to_json(value: Any) -> bytes:
    """Encode `value` as UTF-8 JSON.

    Numbers and arrays of numpy and torch become numbers and lists; NaN and infinity become null. An
    image becomes base64 PNG, sound base64 WAV beside its rate, and bytes base64. A dataclass
    becomes an object, a date its ISO text. A series becomes an object if it has labels, else a
    list. Raises `ModelFailed` for other objects.
    """
    try:
        text = _ENCODER.encode(value) if type(value) is str else _to_text(_encode_files(value))
    except RecursionError:
        raise ModelFailed("the model's answer contains itself, or is nested too deep") from None
    except Exception as error:
        raise ModelFailed(f"the model's answer cannot be sent as JSON: {error}") from error
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        # A lone surrogate has no UTF-8 form; as an escape it is valid JSON.
        return json.dumps(json.loads(text)).encode("ascii")


def _to_text(value: Any) -> str:
    with contextlib.suppress(ValueError, TypeError):
        return _ENCODER.encode(_check_keys(value))
    # A NaN, or a key that is not a string: only these rare values need the slow path.
    return json.dumps(_clean(value), ensure_ascii=False, allow_nan=False)


def _check_keys(value: Any) -> Any:
    """Return `value`; raise `TypeError` if a dict in it has a key that is not a string.

    The encoder would accept such keys, and two of them may be the same text.
    """
    if isinstance(value, dict):
        if not set(map(type, value)) <= {str}:
            raise TypeError("a key is not a string")
        parts: Collection[Any] = value.values()
    elif isinstance(value, (list, tuple)):
        parts = value
    else:
        return value
    if not set(map(type, parts)) <= LEAVES:
        for item in parts:
            _check_keys(item)
    return value


def _to_plain_checked(value: Any) -> Any:
    return _check_keys(to_plain(value))


def to_plain(value: Any) -> Any:
    """Convert a value to one that JSON has a form for (`json.dumps`'s ``default``).

    Raises `TypeError` if there is none.
    """
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, UserString):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    if is_table(value):
        return table_rows(value)
    if isinstance(value, type):
        raise TypeError(_describe_unsupported(value))
    if hasattr(value, "save") and hasattr(value, "getbands"):
        return to_plain(encode_png(value))
    if any(hasattr(value, name) for name in ("dtype", "tolist", "to_pylist", "__array__")):
        return _convert_array(value)
    if isinstance(value, (Set, Sequence, ValuesView)):
        return list(value)
    fields = _fields(value)
    return _convert_scalar(value) if fields is None else fields


def _convert_array(value: Any) -> Any:
    """Convert an array, a tensor, a series, or one of their numbers to lists and numbers."""
    if hasattr(value, "detach"):
        return _convert_tensor(value.detach().cpu())
    if _has_labels(value):
        return _convert_labelled(value)
    dtype: Any = getattr(value, "dtype", None)
    if names := getattr(dtype, "names", None):
        return _convert_records(value, names)
    if getattr(dtype, "kind", "") in ("m", "M"):
        return _convert_times(value)
    if getattr(dtype, "itemsize", 0) > LARGEST.get(getattr(dtype, "kind", ""), math.inf):
        return value.astype(complex if dtype.kind == "c" else float).tolist()
    for method in ("to_pylist", "tolist", "to_list"):
        if hasattr(value, method):
            return getattr(value, method)()
    if hasattr(value, "__array__"):
        import numpy as np

        return np.asarray(value).tolist()
    raise TypeError(_describe_unsupported(value))


def _has_labels(series: Any) -> bool:
    """Return True for a pandas series with an index other than 0, 1, 2 and so on."""
    index: Any = getattr(series, "index", None)
    if not hasattr(index, "inferred_type"):
        return False
    return type(index).__name__ != "RangeIndex" or (index.start, index.step) != (0, 1)


def _convert_labelled(series: Any) -> dict[Any, Any]:
    """Convert a series to a dict; raise `TypeError` if one label has two values."""
    if not series.index.is_unique:
        raise TypeError("it contains a series with two values for one label")
    return dict(series.to_dict())


def _convert_tensor(tensor: Any) -> Any:
    if tensor.is_nested:
        return [_convert_tensor(part) for part in tensor.unbind()]
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.layout is not sys.modules["torch"].strided:
        tensor = tensor.to_dense()
    return (tensor.double() if tensor.is_floating_point() else tensor).tolist()


def _convert_records(value: Any, names: Sequence[str]) -> Any:
    """Convert an array with named fields to dicts, one for each item."""
    if getattr(value, "shape", ()) == ():
        return {name: value[name] for name in names}
    return [_convert_records(item, names) for item in value]


def _convert_times(value: Any) -> Any:
    """Convert times of numpy to ISO texts, and durations to seconds."""
    import numpy as np

    times: Any = np.asarray(value)
    if times.dtype.kind == "O":  # with a time zone
        return times.tolist()
    if times.dtype.kind == "m":
        return (times / np.timedelta64(1, "s")).tolist()
    missing: Any = None
    return np.where(np.isnat(times), missing, np.datetime_as_string(times).astype(object)).tolist()


def _fields(value: Any) -> dict[str, Any] | None:
    """Return the fields of a dataclass, or an instance of pydantic or attrs; None for others."""
    if dataclasses.is_dataclass(value):
        return {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
    if callable(getattr(value, "model_dump", None)):
        return dict(value.model_dump())
    if hasattr(value, "__attrs_attrs__"):
        return {item.name: getattr(value, item.name) for item in value.__attrs_attrs__}
    return None


def _convert_scalar(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if hasattr(value, "as_py"):  # a pyarrow scalar
        return value.as_py()
    if type(value).__name__ in ("NaTType", "NAType"):  # a missing value in a table
        return None
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, (Decimal, UUID, PurePath)):
        return str(value)
    raise TypeError(_describe_unsupported(value))


def _describe_unsupported(value: Any) -> str:
    kind = type(value).__name__
    found = f"the class {value.__name__}" if isinstance(value, type) else f"an object of {kind}"
    return f"it contains {found}; return numbers, strings, lists, dicts or arrays"


def encode_png(image: Any) -> bytes:
    """Encode an image of Pillow as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


#: bytes of the largest numbers that Python has as well, by numpy's letter for their kind
LARGEST = {"f": 8, "c": 16}
#: made once, because `json.dumps` with options makes an encoder for each call
_ENCODER = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_to_plain_checked
)


def _encode_files(value: Any) -> Any:
    """Return `value` with the sound and the masks of an answer, or of each in a list, as files."""
    if isinstance(value, list) and any(map(_may_have_files, value)):
        return [_encode_files(item) for item in value]
    if not isinstance(value, dict) or not _may_have_files(value):
        return value
    if is_sound(value):
        return {**value, "audio": encode_wav(value)}
    if _has_masks(value):
        return {**value, "masks": [_encode_mask(mask) for mask in value["masks"]]}
    return value


def _may_have_files(value: Any) -> bool:
    return isinstance(value, dict) and ("audio" in value or "masks" in value)


def _has_masks(value: Mapping[str, Any]) -> bool:
    """Return True if an answer has masks: arrays of booleans, with the shape (height, width)."""
    masks = value.get("masks")
    if not isinstance(masks, list):
        return False
    return all(str(getattr(mask, "dtype", "")).endswith("bool") for mask in masks)


def _encode_mask(mask: Any) -> bytes:
    import numpy as np
    from PIL import Image

    return encode_png(Image.fromarray(np.asarray(mask, dtype=np.uint8) * 255))


def to_file(value: Any, kind: str) -> bytes | None:
    """Encode an answer as one file of the `kind` ``image/png`` or ``audio/wav``.

    Returns None if it is not exactly one image or sound.
    """
    if kind == "audio/wav":
        return encode_wav(value) if is_sound(value) else None
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    parts = value.values() if isinstance(value, Mapping) else [value]
    images = [part for part in parts if hasattr(part, "getbands")]
    return encode_png(images[0]) if len(images) == 1 else None


def is_slow_to_encode(value: Any) -> bool:
    """Return True if an answer contains images, sound or arrays.

    Only the first hundred items of a list are examined, because the others are alike.
    """
    if type(value) in LEAVES:
        return False
    items = value[:100] if isinstance(value, list) else [value]
    parts = (item.values() if isinstance(item, dict) else [item] for item in items)
    return any(
        # `shape` is read from the class, because a nested tensor raises for it.
        hasattr(type(x), "shape") or hasattr(x, "getbands")
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
        return _clean_dict(value)
    return _clean(to_plain(value))


def _clean_dict(value: Mapping[Any, Any]) -> dict[str, Any]:
    keys: dict[str, Any] = {}
    for key in value:
        text = _key_text(key)
        if text in keys:
            raise TypeError(
                f"it contains a dict with the keys {keys[text]!r} and {key!r}, which are the same "
                "text in JSON; rename one"
            )
        keys[text] = key
    return {text: _clean(value[key]) for text, key in keys.items()}


def _key_text(key: Any) -> str:
    """Return a dict's key as JSON writes it; raise `TypeError` if it has no such form."""
    if isinstance(key, Enum):
        return _key_text(key.value)
    if isinstance(key, str):
        return str(key)
    if key is None or isinstance(key, int) or (isinstance(key, float) and math.isfinite(key)):
        return json.dumps(key)
    if isinstance(key, (date, time)) and key == key:
        return key.isoformat()
    if getattr(getattr(key, "dtype", None), "kind", "") in tuple("biufM"):  # a numpy scalar
        value = to_plain(key)
        if value == value and value is not None:
            return _key_text(value)
    raise TypeError(
        f"it contains a dict with a key of {type(key).__name__}; use keys that are strings, "
        "numbers or dates"
    )
