"""Checks of a batch function before it is served."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import enum
import functools
import typing
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Optional

import numpy as np
import pandas as pd
import PIL.Image
import pydantic
import pytest

from notebook_serve import OptionError, Server, each
from notebook_serve.models.functions.batch_functions import check_batch_function

from ...helpers.compare_answers import called

Make = Callable[..., Server]


class Struct(NamedTuple):
    """Two results, neither of which belongs to one input."""

    labels: list[str]
    scores: list[float]


@dataclasses.dataclass
class Record:
    """An input with fields."""

    text: str


class Level(enum.Enum):
    """An input with few values."""

    LOW = 1


Text = typing.TypeVar("Text", bound=str)
One = typing.TypeVar("One", str, bytes)
Unknown = typing.TypeVar("Unknown")
Many = typing.TypeVar("Many", bound=list[str])
Named = typing.NewType("Named", str)


def annotated(annotation: Any) -> Callable[..., Any]:
    """Return a function with this annotation of its first parameter."""

    def function(x: Any) -> Any:
        return x

    function.__annotations__ = {"x": annotation}
    return function


@pytest.mark.parametrize(
    "annotation",
    [
        *(str, bytes, bytearray, int, float, complex, bool, dict, dict[str, int]),
        *("str", "'str'", "bytes | None", "dict[str, int]", "PIL.Image.Image", "Optional[int]"),
        *("Image.Image", "Image", "float"),
        *(Optional[str], str | None, str | bytes, typing.Union[int, float]),  # noqa: UP007, UP045
        *(Annotated[str, "a text"], Mapping[str, int], typing.Dict[str, int], Literal["a", "b"]),  # noqa: UP006
        *(PIL.Image.Image, memoryview, Path, dt.datetime, dt.date, Decimal),
        *(Record, Struct, Level, pd.DataFrame, pd.Series, pydantic.BaseModel),
        *(Callable, Callable[[int], int], Text, Named, One, "Path", "pd.DataFrame"),
    ],
    ids=called,
)
def test_a_function_of_one_item_is_rejected_with_the_line_that_works(annotation: Any) -> None:
    """The annotation means one item; `each` wraps the function."""
    with pytest.raises(OptionError, match=r"serve\(each\(function\)\)"):
        check_batch_function(annotated(annotation), "function")


@pytest.mark.parametrize(
    "annotation",
    [
        *(list, list[str], Sequence[str], typing.List[int], collections.abc.Iterable[str]),  # noqa: UP006
        *("list[str]", "Sequence[str]", "str | list[str]", "Item", "list[Item]"),
        *(str | list[str], Any, object, np.ndarray, tuple[str, ...], None, "None"),
        *(Annotated[list[str], "texts"], Unknown, Many, Record | list[Record], list[Record]),
    ],
    ids=called,
)
def test_any_other_annotation_is_accepted(annotation: Any) -> None:
    """Lists, types that may be lists, and unknown types pass."""
    check_batch_function(annotated(annotation), "function")


def one(text: str) -> str:
    return text


class Caller:
    """An object that is called with one item."""

    def __call__(self, text: str) -> str:
        """Return the text."""
        return text

    def method(self, text: str) -> str:
        """Return the text."""
        return text


@pytest.mark.parametrize(
    "function", [one, Caller(), Caller().method, functools.partial(one)], ids=called
)
def test_every_kind_of_callable_is_checked(function: Any) -> None:
    """Functions, objects, methods and partials, with annotations that are text in this file."""
    with pytest.raises(OptionError, match=r"takes one item \(`text: str`\)"):
        check_batch_function(function, "it")


def test_texts_under_a_star_are_one_item() -> None:
    """The list would be the first text; without an annotation the function passes."""

    def join(*texts: str) -> str:
        return "".join(texts)

    def starred(*inputs: Any) -> Any:
        return inputs[0]

    with pytest.raises(OptionError, match=r"`\*texts: str`.*serve\(each\(join\)\)"):
        check_batch_function(join, "join")
    check_batch_function(starred, "starred")


def test_a_function_with_a_cache_is_rejected_but_for_each() -> None:
    """A list cannot be a key of the cache; one item can."""

    @functools.lru_cache
    def slow(x: Any) -> Any:
        return x

    @functools.cache
    async def later(x: Any) -> Any:
        return x

    class Model:
        @functools.cache  # noqa: B019
        def run(self, x: Any) -> Any:
            return x

    with pytest.raises(OptionError, match=r"caches its results.*serve\(each\(slow\)\)"):
        check_batch_function(slow, "slow")
    with pytest.raises(OptionError, match=r"caches its results.*serve\(each\(...\)\)"):
        check_batch_function(Model().run, "run")
    assert each(slow)([1, 1]) == [1, 1]
    assert slow.cache_info().hits == 1
    with pytest.raises(OptionError, match="coroutine function"):
        check_batch_function(later, "later")
    with pytest.raises(OptionError, match="coroutine function"):
        each(later)


def test_a_method_without_its_object_is_rejected() -> None:
    """The list would be ``self``."""
    for method, check in (
        (Caller.method, lambda f: check_batch_function(f, "method")),
        (Caller.method, each),
    ):
        with pytest.raises(
            OptionError, match=r"give the method of an instance: Caller\(...\).method"
        ):
            check(method)


async def coroutine(inputs: list[Any]) -> list[Any]:
    """Return the inputs, but only if awaited."""
    return inputs


async def stream(inputs: list[Any]) -> collections.abc.AsyncIterator[Any]:
    """Yield the inputs."""
    yield inputs


class Async:
    """An object with a coroutine as its call."""

    async def __call__(self, inputs: list[Any]) -> list[Any]:
        """Run a batch."""
        return inputs


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (coroutine, "coroutine"),
        (functools.partial(coroutine), "partial"),
        (Async(), "Async"),
        (Async().__call__, "__call__"),
    ],
)
def test_a_coroutine_function_is_rejected(function: Any, name: str) -> None:
    """The error is raised in the cell, before any request is enqueued."""
    with pytest.raises(OptionError, match=f"^{name} is a coroutine function"):
        check_batch_function(function, name)


def generator(inputs: list[Any]) -> collections.abc.Iterator[Any]:
    """Yield the answers one by one."""
    yield from inputs


@pytest.mark.parametrize("function", [stream, generator])
def test_a_generator_function_is_rejected(function: Any) -> None:
    """A call returns a generator instead of a list."""
    with pytest.raises(OptionError, match="is a generator function; return a list"):
        check_batch_function(function, "f")


def no_inputs() -> None:
    return None


def only_named(*, inputs: Any) -> None:
    return None


def two(inputs: Any, other: Any) -> None:
    return None


def two_by_place(inputs: Any, other: Any, /) -> None:
    return None


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (no_inputs, "takes no inputs"),
        (only_named, "takes no inputs"),
        (lambda: 1, r"write serve\(loader=...\)"),
        (two, r"needs two arguments \(inputs, other\).*keyword-only: \(inputs, \*, other\)"),
        (two_by_place, "needs two arguments"),
    ],
    ids=called,
)
def test_a_function_that_cannot_be_called_with_a_list_is_rejected(function: Any, said: str) -> None:
    """The error comes before any request fails."""
    with pytest.raises(OptionError, match=said):
        check_batch_function(function, "f")
