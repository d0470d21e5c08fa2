"""Objects as bytes, for another process: what a cell defines by value, large arrays as they are.

Functions and classes of a notebook's cells are sent by value, because the other process has not
run the cells. The memory of large tensors and arrays stays out of the pickle, so that it is copied
once, or not at all.
"""

from __future__ import annotations

import functools
import io
import math
import pickle
import sys
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from ..extras import require

cloudpickle = require("cloudpickle", "process")

#: arrays of fewer bytes stay in the pickle
SMALL = 32_768


#: how to make a value again: a function and its arguments, as pickle's ``__reduce__`` has them
Way = Callable[[Any], Any]


def dumps(
    value: Any, *, devices: bool = True, ways: Mapping[type, Way] = MappingProxyType({})
) -> tuple[memoryview, list[memoryview]]:
    """`value` as a pickle, and the memory of its large arrays, which is not copied.

    With ``devices=False`` tensors arrive in the host's memory, wherever they were. `ways` are for
    types that are to be sent otherwise than usual.
    """
    file, buffers = io.BytesIO(), list[memoryview]()

    def stays(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < SMALL:
            return True
        buffers.append(raw)
        return False

    pickler = _Pickler(file, protocol=5, buffer_callback=stays)
    pickler.ways = {**_own_ways(devices), **ways}
    pickler.dump(value)
    return file.getbuffer(), buffers


def loads(data: Any, buffers: Iterable[Any] = ()) -> Any:
    """What `dumps` made bytes of; its arrays use the memory of `buffers`."""
    return pickle.loads(data, buffers=buffers)  # noqa: S301  # it comes from our own process


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc, name-defined]
    """Cloudpickle's, with ways of its own for some types."""

    ways: Mapping[type, Way]

    def reducer_override(self, value: Any) -> Any:
        """How to make `value` again."""
        way = self.ways.get(type(value))
        return super().reducer_override(value) if way is None else way(value)


def _own_ways(devices: bool) -> dict[type, Way]:
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "Tensor"):  # not, or not yet
        return {_Cached: _reduce_cached}
    return {
        _Cached: _reduce_cached,
        torch.Tensor: functools.partial(_reduce_tensor, devices=devices),
    }


def shapes_only() -> dict[type, Way]:
    """Ways that send a model's parameters as shapes, without what they are made of."""
    torch = sys.modules.get("torch")
    return {} if torch is None else {torch.nn.Parameter: _reduce_to_shape}


# -- functions that remember what they returned -------------------------------------------------

_Cached = type(functools.lru_cache(len))


def _reduce_cached(value: Any) -> Any:
    # Pickle knows them by name only, and one that was made of a partial has none.
    module = sys.modules.get(getattr(value, "__module__", ""))
    name = getattr(value, "__qualname__", "")
    known = name and module is not None and module.__name__ != "__main__"
    if known and getattr(module, name, None) is value:
        return name
    return _cached, (value.__wrapped__, value.cache_parameters())


def _cached(function: Any, parameters: dict[str, Any]) -> Any:
    return functools.lru_cache(**parameters)(function)


# -- tensors ------------------------------------------------------------------------------------


def _reduce_tensor(value: Any, devices: bool) -> Any:
    import torch

    plain = value.layout is torch.strided and not value.is_quantized and not value.is_meta
    if not plain or value.requires_grad or value.is_conj() or value.is_neg():
        return NotImplemented  # as torch itself does it
    where = str(value.device) if devices and value.device.type != "cpu" else ""
    flat = value.cpu().contiguous().view(-1).view(torch.uint8)
    return _tensor, (pickle.PickleBuffer(flat.numpy()), value.dtype, tuple(value.shape), where)


def _tensor(buffer: Any, dtype: Any, shape: tuple[int, ...], where: str) -> Any:
    import torch

    if not math.prod(shape):
        made = torch.empty(shape, dtype=dtype)
    else:
        made = torch.frombuffer(buffer, dtype=dtype).view(shape)
    return made.to(where) if where else made


def _reduce_to_shape(value: Any) -> Any:
    return _shape_only, (tuple(value.shape), value.dtype, value.requires_grad)


def _shape_only(shape: tuple[int, ...], dtype: Any, requires_grad: bool) -> Any:
    import torch

    made = torch.empty(shape, dtype=dtype, device="meta")
    return torch.nn.Parameter(made, requires_grad)
