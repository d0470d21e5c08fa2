"""Answers as JSON: numbers and arrays of numpy and torch, images, and no NaN."""

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
from .wav import is_sound, wav

#: types that hold no dict
LEAVES = {str, int, float, bool, type(None)}


def to_json(value: Any) -> bytes:
    """`value` as UTF-8 JSON.

    Numbers and arrays of numpy and torch become numbers and lists; NaN and infinity become null;
    an image becomes base64 PNG, sound base64 WAV beside its rate, bytes base64, a dataclass an
    object, a date its ISO text. A series with labels is an object by label, and else a list. Raises
    `ModelFailed` for what has no such form: its repr would be no answer.
    """
    try:
        text = _text(_with_files(value))
    except RecursionError:
        raise ModelFailed("the model's answer contains itself, or is nested too deep") from None
    except Exception as error:
        raise ModelFailed(f"the model's answer cannot be sent as JSON: {error}") from error
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        # Half a surrogate pair has no UTF-8 form; as an escape it is valid JSON.
        return json.dumps(json.loads(text)).encode("ascii")


def _text(value: Any) -> str:
    with contextlib.suppress(ValueError, TypeError):
        return _ENCODER.encode(_with_text_keys(value))
    # A NaN, or keys that are no strings: rare enough to look at every value only then.
    return json.dumps(_clean(value), ensure_ascii=False, allow_nan=False)


def _with_text_keys(value: Any) -> Any:
    """Return `value`; raise `TypeError` if a dict in it has a key that is no string.

    The encoder would write such keys, and two of them may be the same text.
    """
    if isinstance(value, dict):
        if not set(map(type, value)) <= {str}:
            raise TypeError("a key is no string")
        parts: Collection[Any] = value.values()
    elif isinstance(value, (list, tuple)):
        parts = value
    else:
        return value
    if not set(map(type, parts)) <= LEAVES:
        for item in parts:
            _with_text_keys(item)
    return value


def _plain_with_text_keys(value: Any) -> Any:
    return _with_text_keys(plain(value))


def plain(value: Any) -> Any:
    """Return a value that JSON does not know as one that it knows (`json.dumps`'s ``default``).

    Raises `TypeError` for an object that has no such form.
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
        raise TypeError(_no_form(value))
    if hasattr(value, "save") and hasattr(value, "getbands"):
        return plain(png(value))
    if any(hasattr(value, name) for name in ("dtype", "tolist", "to_pylist", "__array__")):
        return _plain_array(value)
    if isinstance(value, (Set, Sequence, ValuesView)):
        return list(value)
    fields = _fields(value)
    return _plain_scalar(value) if fields is None else fields


def _plain_array(value: Any) -> Any:
    """Return an array, a tensor, a series, or one number of such, as lists and numbers."""
    if hasattr(value, "detach"):
        return _plain_tensor(value.detach().cpu())
    if _has_labels(value):
        return _by_label(value)
    dtype: Any = getattr(value, "dtype", None)
    if names := getattr(dtype, "names", None):
        return _plain_records(value, names)
    if getattr(dtype, "kind", "") in ("m", "M"):
        return _plain_times(value)
    if getattr(dtype, "itemsize", 0) > LARGEST.get(getattr(dtype, "kind", ""), math.inf):
        return value.astype(complex if dtype.kind == "c" else float).tolist()
    for method in ("to_pylist", "tolist", "to_list"):
        if hasattr(value, method):
            return getattr(value, method)()
    if hasattr(value, "__array__"):
        import numpy as np

        return np.asarray(value).tolist()
    raise TypeError(_no_form(value))


def _has_labels(series: Any) -> bool:
    """Return True for a series of pandas whose index is not just 0, 1, 2 and so on."""
    index: Any = getattr(series, "index", None)
    if not hasattr(index, "inferred_type"):
        return False
    return type(index).__name__ != "RangeIndex" or (index.start, index.step) != (0, 1)


def _by_label(series: Any) -> dict[Any, Any]:
    """Return a series as a dict; raise `TypeError` where one label has two values."""
    if not series.index.is_unique:
        raise TypeError("it holds a series with two values of one label")
    return dict(series.to_dict())


def _plain_tensor(tensor: Any) -> Any:
    if tensor.is_nested:
        return [_plain_tensor(part) for part in tensor.unbind()]
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.layout is not sys.modules["torch"].strided:
        tensor = tensor.to_dense()
    return (tensor.double() if tensor.is_floating_point() else tensor).tolist()


def _plain_records(value: Any, names: Sequence[str]) -> Any:
    """Return an array with named fields as dicts, one for each place."""
    if getattr(value, "shape", ()) == ():
        return {name: value[name] for name in names}
    return [_plain_records(item, names) for item in value]


def _plain_times(value: Any) -> Any:
    """Return times of numpy as ISO texts, and spans of time in seconds."""
    import numpy as np

    times: Any = np.asarray(value)
    if times.dtype.kind == "O":  # with a time zone
        return times.tolist()
    if times.dtype.kind == "m":
        return (times / np.timedelta64(1, "s")).tolist()
    missing: Any = None
    return np.where(np.isnat(times), missing, np.datetime_as_string(times).astype(object)).tolist()


def _fields(value: Any) -> dict[str, Any] | None:
    """Return what an object is made of, where its class says that."""
    if dataclasses.is_dataclass(value):
        return {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
    if callable(getattr(value, "model_dump", None)):
        return dict(value.model_dump())
    if hasattr(value, "__attrs_attrs__"):
        return {item.name: getattr(value, item.name) for item in value.__attrs_attrs__}
    return None


def _plain_scalar(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if hasattr(value, "as_py"):  # a value of pyarrow
        return value.as_py()
    if type(value).__name__ in ("NaTType", "NAType"):  # what is missing in a table
        return None
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, (Decimal, UUID, PurePath)):
        return str(value)
    raise TypeError(_no_form(value))


def _no_form(value: Any) -> str:
    kind = type(value).__name__
    what = f"the class {value.__name__}" if isinstance(value, type) else f"an object of {kind}"
    return f"it holds {what}; return numbers, strings, lists, dicts or arrays"


def png(image: Any) -> bytes:
    """An image of Pillow's as a file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


#: bytes of the largest numbers that Python has too, by numpy's letter for their kind
LARGEST = {"f": 8, "c": 16}
#: made once: `json.dumps` with options makes one for each answer
_ENCODER = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain_with_text_keys
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
        # Asked of the class: a nested tensor raises when it is asked for its shape.
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
        return _cleaned_dict(value)
    return _clean(plain(value))


def _cleaned_dict(value: Mapping[Any, Any]) -> dict[str, Any]:
    keys: dict[str, Any] = {}
    for key in value:
        text = _key(key)
        if text in keys:
            raise TypeError(
                f"it holds a dict with the keys {keys[text]!r} and {key!r}, which are the same "
                "text in JSON; rename one"
            )
        keys[text] = key
    return {text: _clean(value[key]) for text, key in keys.items()}


def _key(key: Any) -> str:
    """Return a key of a dict as JSON writes it; raise `TypeError` for what is no text or number."""
    if isinstance(key, Enum):
        return _key(key.value)
    if isinstance(key, str):
        return str(key)
    if key is None or isinstance(key, int) or (isinstance(key, float) and math.isfinite(key)):
        return json.dumps(key)
    if isinstance(key, (date, time)) and key == key:
        return key.isoformat()
    if getattr(getattr(key, "dtype", None), "kind", "") in tuple("biufM"):  # a number of numpy
        value = plain(key)
        if value == value and value is not None:
            return _key(value)
    raise TypeError(
        f"it holds a dict with a key of {type(key).__name__}; write keys that are strings, "
        "numbers or dates"
    )
