"""Pickles for another process: definitions of cells by value, large arrays beside the pickle.

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

#: a function that returns, as ``__reduce__`` does, how to rebuild a value
Reducer = Callable[[Any], Any]


def dumps(
    value: Any, *, devices: bool = True, reducers: Mapping[type, Reducer] = MappingProxyType({})
) -> tuple[memoryview, list[memoryview]]:
    """Return `value` as a pickle, and the memory of its large arrays, without copying that.

    With ``devices=False`` tensors of any device arrive in the host's memory. `reducers` replace
    the usual way of sending a type.
    """
    file, buffers = io.BytesIO(), list[memoryview]()

    def stays_in_pickle(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < SMALL:
            return True
        buffers.append(raw)
        return False

    pickler = _Pickler(file, protocol=5, buffer_callback=stays_in_pickle)
    pickler.reducers = {**_default_reducers(devices), **reducers}
    pickler.dump(value)
    return file.getbuffer(), buffers


def loads(data: Any, buffers: Iterable[Any] = ()) -> Any:
    """Return the value that `dumps` pickled; its arrays use the memory of `buffers`."""
    return pickle.loads(data, buffers=buffers)  # noqa: S301  # it comes from our own process


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc, name-defined]
    """Cloudpickle's pickler, with other reducers for some types."""

    reducers: Mapping[type, Reducer]

    def reducer_override(self, value: Any) -> Any:
        """Reduce `value` with the reducer of its type, if there is one."""
        reducer = self.reducers.get(type(value))
        return super().reducer_override(value) if reducer is None else reducer(value)


def _default_reducers(devices: bool) -> dict[type, Reducer]:
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "Tensor"):  # not imported, or only in part
        return {_CachedFunction: _reduce_cached_function}
    return {
        _CachedFunction: _reduce_cached_function,
        torch.Tensor: functools.partial(_reduce_tensor, devices=devices),
    }


def weightless_reducers() -> dict[type, Reducer]:
    """Return reducers that send a model's parameters as shapes, without their numbers."""
    torch = sys.modules.get("torch")
    return {} if torch is None else {torch.nn.Parameter: _reduce_parameter_to_shape}


# -- functions with a cache ---------------------------------------------------------------------

_CachedFunction = type(functools.lru_cache(len))


def _reduce_cached_function(value: Any) -> Any:
    # Pickle finds them by name only, and the cache of a partial has no name.
    module = sys.modules.get(getattr(value, "__module__", ""))
    name = getattr(value, "__qualname__", "")
    is_named = name and module is not None and module.__name__ != "__main__"
    if is_named and getattr(module, name, None) is value:
        return name
    return _make_cached_function, (value.__wrapped__, value.cache_parameters())


def _make_cached_function(function: Any, parameters: dict[str, Any]) -> Any:
    return functools.lru_cache(**parameters)(function)


# -- tensors ------------------------------------------------------------------------------------


def _reduce_tensor(value: Any, devices: bool) -> Any:
    import torch

    is_plain = value.layout is torch.strided and not value.is_quantized and not value.is_meta
    if not is_plain or value.requires_grad or value.is_conj() or value.is_neg():
        return NotImplemented  # torch's own way
    device = str(value.device) if devices and value.device.type != "cpu" else ""
    flat = value.cpu().contiguous().view(-1).view(torch.uint8)
    return _make_tensor, (
        pickle.PickleBuffer(flat.numpy()),
        value.dtype,
        tuple(value.shape),
        device,
    )


def _make_tensor(buffer: Any, dtype: Any, shape: tuple[int, ...], device: str) -> Any:
    import torch

    if not math.prod(shape):
        tensor = torch.empty(shape, dtype=dtype)
    else:
        tensor = torch.frombuffer(buffer, dtype=dtype).view(shape)
    return tensor.to(device) if device else tensor


def _reduce_parameter_to_shape(value: Any) -> Any:
    return _make_meta_parameter, (tuple(value.shape), value.dtype, value.requires_grad)


def _make_meta_parameter(shape: tuple[int, ...], dtype: Any, requires_grad: bool) -> Any:
    import torch

    return torch.nn.Parameter(torch.empty(shape, dtype=dtype, device="meta"), requires_grad)
