"""What goes from one process to another: messages, parcels, tensors and exceptions."""

from __future__ import annotations

import dataclasses
import functools
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from notebook_serve.models.base import Prepared
from notebook_serve.workers.channel import READ_SIZE, Channel
from notebook_serve.workers.pickling import SMALL, dumps, loads, weightless_reducers
from notebook_serve.workers.remote_errors import RemoteError
from notebook_serve.workers.shared_model import SharedModel

from ..helpers.small_models import pipeline, tokenizer


@pytest.fixture
def channels() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = map(Channel, socket.socketpair())
    yield ours, theirs
    ours.close()
    theirs.close()


def sent(channels: tuple[Channel, Channel], *messages: Any) -> list[Any]:
    """What arrives at the other end."""

    def send() -> None:
        for message in messages:
            channels[0].send(message)

    thread = threading.Thread(target=send)
    thread.start()
    received = [channels[1].receive() for _ in messages]
    thread.join()
    return received


SIZES = [
    0,
    1,
    SMALL - 1,
    SMALL,
    READ_SIZE - 100,
    READ_SIZE,
    READ_SIZE + 1,
    3 * READ_SIZE + 7,
    5_000_000,
]


def test_messages_arrive_whole_and_in_order(channels: tuple[Channel, Channel]) -> None:
    """Of any size, several in a row, with many arrays in one."""
    messages: list[Any] = [np.arange(size, dtype=np.uint8) for size in SIZES]
    messages += [[np.full(SMALL, n, np.uint8) for n in range(40)], {"a": b"x" * 200_000}, "last"]

    for expected, found in zip(messages, sent(channels, *messages), strict=True):
        if isinstance(expected, np.ndarray):
            assert np.array_equal(expected, found)
            found[...] = 0  # it is the reader's own
        elif isinstance(expected, list):
            assert [int(array[-1]) for array in found] == list(range(40))
        else:
            assert expected == found


def test_who_waits_hears_that_nobody_will_send(channels: tuple[Channel, Channel]) -> None:
    channels[0].shut_down()
    channels[0].shut_down()
    with pytest.raises(EOFError):
        channels[1].receive()
    with pytest.raises(OSError, match="Broken pipe"):
        channels[1].send("x")


DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool, torch.complex64]


@settings(max_examples=60)
@given(st.lists(st.integers(0, 60), max_size=4), st.sampled_from(DTYPES), st.booleans())
def test_tensors_arrive_as_they_were(shape: list[int], dtype: Any, transposed: bool) -> None:
    """Of every shape, type and layout, also those of no elements and of inference."""
    with torch.inference_mode():
        value = (torch.rand(shape) * 100).to(dtype)
        value = value.T if transposed and value.ndim == 2 else value
    data, buffers = dumps([value, value])
    first, second = loads(data, [bytearray(buffer) for buffer in buffers])
    assert first is second  # once in the message
    assert first.dtype is value.dtype
    assert first.shape == value.shape
    assert torch.equal(first, value)


def test_a_model_without_weights_is_all_but_its_numbers() -> None:
    pipe = pipeline("fill-mask")
    data, buffers = dumps(pipe, reducers=weightless_reducers())
    front = loads(data, map(bytearray, buffers))
    assert all(weight.is_meta for weight in front.model.parameters())
    assert [weight.shape for weight in front.model.parameters()] == [
        weight.shape for weight in pipe.model.parameters()
    ]
    assert front.tokenizer("the queue")["input_ids"] == tokenizer()("the queue")["input_ids"]


def test_tied_weights_stay_tied_and_each_who_opens_a_parcel_has_his_own() -> None:
    """Weights are mapped from one file; who writes to them writes to a copy."""
    tied = torch.nn.Parameter(torch.ones(100_000))
    told: list[tuple[int, int]] = []
    parcel = SharedModel.pack({"a": tied, "b": tied}, lambda done, size: told.append((done, size)))
    first, second = parcel.open(), parcel.open()
    parcel.close()
    with torch.no_grad():
        first["a"].fill_(7)
    assert first["a"] is first["b"]
    assert float(second["a"].detach().sum()) == 100_000
    assert float(tied.detach().sum()) == 100_000
    assert told[-1][0] == told[-1][1] > 400_000
    assert parcel.sizes[1] == 400_000


def test_functions_that_remember_are_sent() -> None:
    """Those of modules by name, others by value, with their limits."""

    @functools.lru_cache(maxsize=3)
    def mine(value: int) -> int:
        return value + 1

    bound = functools.lru_cache(functools.partial(max, 5))
    found = loads(*dumps([mine, bound, os.path.join]))
    assert (found[0](1), found[1](3), found[2]) == (2, 5, os.path.join)
    assert found[0].cache_parameters() == mine.cache_parameters()


class Needy(ValueError):
    """Wants more than it keeps."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")
        self.a = a

    def __str__(self) -> str:
        return f"needs {self.args[0]}"


class Secretive(Exception):
    """Says what cannot be sent."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __str__(self) -> str:
        return f"locked: {self.lock.locked()}"


def test_exceptions_arrive_as_they_were() -> None:
    """Of the same type and words; or of the same name and words, where the type is of no use."""
    cases = [Needy(1, 2), OSError(2, "missing", "a file"), KeyError("x"), StopIteration(4)]
    for case in cases:
        made = loads(*dumps(RemoteError.of(case))).rebuild()
        assert type(made) is type(case)
        assert (str(made), made.args) == (str(case), case.args)
        assert vars(made) == vars(case)
    made = RemoteError.of(Secretive()).rebuild()
    assert (type(made).__name__, str(made)) == ("Secretive", "locked: False")
    assert str(RemoteError.of(SystemExit(3)).rebuild()) == "3"


def test_a_prepared_input_arrives_with_all_that_it_had() -> None:
    """Every field, though its pickle is made of a list of them."""
    sent = Prepared({"x": 1}, 7, "a group", {"top_k": 2}, "a text", '{"top_k": 2}')
    for field in dataclasses.fields(Prepared):
        assert getattr(sent, field.name) != field.default
    assert loads(*dumps([sent, sent])) == [sent, sent]
