"""Ownership of outputs: no answer changes with the next call of a model."""

from __future__ import annotations

import random
from collections import OrderedDict, UserDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import httpx
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from notebook_serve import Greedy, Server, each
from notebook_serve.models.factory import as_model
from notebook_serve.models.functions.ownership import own

Make = Callable[..., Server]


def numpy_rows() -> Callable[[list[int]], Any]:
    """Return a function whose outputs are rows of one preallocated array."""
    buffer = np.zeros((64, 3))

    def model(inputs: list[int]) -> Any:
        for row, number in enumerate(inputs):
            buffer[row] = number
        return buffer[: len(inputs)]

    return model


def torch_rows() -> Callable[[list[int]], Any]:
    """Return a function whose outputs are rows of one preallocated tensor."""
    buffer = torch.zeros(64, 3)

    def model(inputs: list[int]) -> Any:
        buffer[: len(inputs)] = torch.tensor(inputs, dtype=torch.float32)[:, None]
        return list(buffer[: len(inputs)])

    return model


def nested_rows() -> Callable[[list[int]], Any]:
    """Return a function that puts views of one array into new dicts and tuples."""
    buffer = np.zeros(64)

    def model(inputs: list[int]) -> Any:
        buffer[: len(inputs)] = inputs
        return [{"scores": (buffer[row : row + 1],)} for row in range(len(inputs))]

    return model


def one_dict() -> Callable[[list[int]], Any]:
    """Return a function that writes to the same dicts in each call."""
    rows = [{"value": 0} for _ in range(64)]

    def model(inputs: list[int]) -> Any:
        for row, number in zip(rows, inputs, strict=False):
            row["value"] = number
        return rows[: len(inputs)]

    return model


def first_number(answer: Any) -> int:
    """Return the number in an answer."""
    answer = answer.tolist() if hasattr(answer, "tolist") else answer
    while not isinstance(answer, (int, float)):
        answer = next(iter(answer.values())) if isinstance(answer, dict) else answer[0]
    return int(answer)


MODELS = [numpy_rows, torch_rows, nested_rows, one_dict]


@pytest.mark.parametrize("made", MODELS)
@pytest.mark.parametrize("over_http", [False, True])
def test_a_reused_buffer_gives_each_request_its_own_answer(
    make: Make, made: Callable[[], Any], over_http: bool
) -> None:
    """300 requests from 8 threads, in batches: each answer is that of its input, also later."""
    server = make(made(), policy=Greedy(16))
    numbers = list(range(300))
    random.Random(4).shuffle(numbers)

    with ThreadPoolExecutor(8) as threads, httpx.Client(timeout=60) as client:

        def ask(number: int) -> Any:
            if not over_http:
                return server.predict(number)
            return client.post(server.url, json={"inputs": number}).json()

        answers = list(threads.map(ask, numbers))
    assert [first_number(answer) for answer in answers] == numbers


def test_one_object_for_several_inputs_is_copied(make: Make) -> None:
    """An answer that its caller changes leaves those of others as they are."""
    server = make(lambda inputs: [{"label": ["a"]}] * len(inputs))
    one, other = server.predict(["x", "y"])
    one["label"].append("mine")
    assert other == {"label": ["a"]}


def test_each_owns_an_output_before_the_next_call(make: Make) -> None:
    """A function of one item may return the same array for each."""
    buffer = np.zeros(2)

    def model(number: int) -> Any:
        buffer[:] = number
        return buffer

    server = make(each(model))
    answers = server.predict([1, 2, 3])
    assert [answer.tolist() for answer in answers] == [[1, 1], [2, 2], [3, 3]]


@pytest.mark.parametrize(
    "value",
    [
        np.arange(3),
        np.arange(6).reshape(2, 3)[:, 1],
        torch.arange(3),
        pd.Series([1, 2]),
        pd.DataFrame({"a": [1]}),
        bytearray(b"ab"),
        [1, [2]],
        {"a": [1]},
        ([1],),
        OrderedDict(a=[1]),
        Image.new("RGB", (2, 2)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_copy_is_equal_and_shares_nothing(value: Any) -> None:
    """The copy has the same type, and no part of it is the original's."""
    copied = own(value)
    assert type(copied) is type(value)
    assert copied is not value
    assert str(copied) == str(value) or isinstance(value, Image.Image)
    if isinstance(value, np.ndarray):
        assert not np.shares_memory(copied, value)
    if isinstance(value, Image.Image):
        assert copied.tobytes() == value.tobytes()


@pytest.mark.parametrize("value", ["a", 1, 2.5, None, True, b"x", object(), range(3), 1 + 2j])
def test_other_objects_are_returned_as_they_are(value: Any) -> None:
    """Immutable values need no copy, and unknown objects get none."""
    assert own(value) is value


@dataclass(frozen=True)
class Boxed:
    """A dataclass around an array."""

    value: Any


class Named(NamedTuple):
    """A tuple around an array."""

    value: Any


@pytest.mark.parametrize(
    "box",
    [
        Boxed,
        Named,
        lambda value: deque([value]),
        lambda value: UserDict(value=value),
        lambda value: np.array([value, None], dtype=object),
        np.ma.masked_array,
        lambda value: {"a": {"b": [(value,)]}},
    ],
)
def test_an_array_inside_any_container_is_copied(box: Callable[[Any], Any]) -> None:
    """What a function writes to its buffer later does not reach an answer that holds it."""
    buffer = np.ones(3)
    copied = own(box(buffer))
    before = str(copied)
    buffer[:] = 9
    assert str(copied) == before


def test_a_memoryview_is_copied() -> None:
    """Its bytes stay when the buffer below it changes."""
    buffer = bytearray(b"a")
    copied = own(memoryview(buffer))
    buffer[0] = ord("b")
    assert bytes(copied) == b"a"


def test_a_value_that_cannot_be_copied_is_returned() -> None:
    """A class whose `copy` needs an argument, and a list that contains itself, cost no answer."""

    class Shaped:
        shape = (1,)

        def copy(self, deep: bool) -> Any:
            """Never called rightly."""

    shaped, endless = Shaped(), list[Any]()
    endless.append(endless)
    assert own(shaped) is shaped
    assert own(endless) is endless


def test_each_copies_once() -> None:
    """The output of a function of one item is not copied again with its batch."""
    copies: list[int] = []

    class Array:
        """An array that counts its copies."""

        shape = (1,)

        def copy(self) -> Array:
            """Count and return itself."""
            copies.append(1)
            return self

    model = as_model(each(lambda value: Array()))
    model.run([model.prepare(1, {})])
    assert len(copies) == 1
