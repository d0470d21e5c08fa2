"""Pickles for another process."""

from __future__ import annotations

import dataclasses
import functools
import os
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from notebook_serve.models.base import Prepared
from notebook_serve.workers.pickling import SMALL, dumps, loads, weightless_reducers

from ..helpers.small_models import pipeline, tokenizer

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool, torch.complex64]


@settings(max_examples=60)
@given(st.lists(st.integers(0, 60), max_size=4), st.sampled_from(DTYPES), st.booleans())
def test_tensors_arrive_as_they_were(shape: list[int], dtype: Any, transposed: bool) -> None:
    """Pickle tensors of every shape, type and layout, empty and inference tensors too."""
    with torch.inference_mode():
        value = (torch.rand(shape) * 100).to(dtype)
        value = value.T if transposed and value.ndim == 2 else value
    data, buffers = dumps([value, value])
    first, second = loads(data, [bytearray(buffer) for buffer in buffers])
    assert first is second  # once in the message
    assert first.dtype is value.dtype
    assert first.shape == value.shape
    assert torch.equal(first, value)


@pytest.mark.parametrize(("size", "expected"), [(SMALL - 1, 0), (SMALL, 1)])
def test_large_arrays_stay_out_of_the_pickle(size: int, expected: int) -> None:
    """From `SMALL` bytes on, the memory of an array is a buffer of its own, without a copy."""
    array = np.zeros(size, np.uint8)
    data, buffers = dumps(array)
    array[:] = 1

    assert len(buffers) == expected
    assert (data.nbytes > size) is (expected == 0)
    assert all(buffer[0] == 1 for buffer in buffers)


def test_a_model_without_weights_has_shapes_only() -> None:
    """The copy for preparing and finishing has a tokenizer, and weights without numbers."""
    pipe = pipeline("fill-mask")
    data, buffers = dumps(pipe, reducers=weightless_reducers())
    copy = loads(data, map(bytearray, buffers))
    assert all(weight.is_meta for weight in copy.model.parameters())
    assert [weight.shape for weight in copy.model.parameters()] == [
        weight.shape for weight in pipe.model.parameters()
    ]
    assert copy.tokenizer("the queue")["input_ids"] == tokenizer()("the queue")["input_ids"]


def test_functions_with_a_cache_are_sent() -> None:
    """Send those of modules by name, and others by value, with the size of their cache."""

    @functools.lru_cache(maxsize=3)
    def add_one(value: int) -> int:
        return value + 1

    bound = functools.lru_cache(functools.partial(max, 5))
    found = loads(*dumps([add_one, bound, os.path.join]))
    assert (found[0](1), found[1](3), found[2]) == (2, 5, os.path.join)
    assert found[0].cache_parameters() == add_one.cache_parameters()


def test_reducers_replace_the_usual_way_of_a_type() -> None:
    """A reducer is called for values of exactly its type."""

    def hide(value: Any) -> Any:
        return str, ("hidden",)

    data, buffers = dumps([complex(1, 2), 3.0], reducers={complex: hide})

    assert loads(data, buffers) == ["hidden", 3.0]


def test_values_that_cannot_be_sent_are_named() -> None:
    """The error is pickle's own."""
    with pytest.raises((TypeError, pickle.PicklingError), match="generator"):
        dumps(n for n in range(3))


def test_a_prepared_input_arrives_with_every_field() -> None:
    """Its own ``__reduce__`` lists the fields, and must not miss one."""
    item = Prepared({"x": 1}, 7, "a group", {"top_k": 2}, "a text", '{"top_k": 2}')
    for field in dataclasses.fields(Prepared):
        assert getattr(item, field.name) != field.default
    assert loads(*dumps([item, item])) == [item, item]
