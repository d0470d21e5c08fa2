"""Functions that are served: what they may be, and what they may return."""

from __future__ import annotations

import asyncio
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

import httpx
import numpy as np
import pandas as pd
import PIL.Image
import pydantic
import pytest

from notebook_serve import ModelFailed, OptionError, Server, each
from notebook_serve.models.functions.batch_functions import check_batch_function
from notebook_serve.models.functions.batch_outputs import to_output_list

from ...helpers.compare_answers import called

Make = Callable[..., Server]


class Struct(NamedTuple):
    """Two results, of which none is of one input."""

    labels: list[str]
    scores: list[float]


@dataclasses.dataclass
class Record:
    """An input with fields."""

    text: str


class Level(enum.Enum):
    """An input of few."""

    LOW = 1


Text = typing.TypeVar("Text", bound=str)
One = typing.TypeVar("One", str, bytes)
Unknown = typing.TypeVar("Unknown")
Many = typing.TypeVar("Many", bound=list[str])
Named = typing.NewType("Named", str)

# -- what it takes, by its signature ----------------------------------------------------------


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
def test_a_function_of_one_item_is_refused_with_the_line_that_works(annotation: Any) -> None:
    """Of its annotation it is known that it takes no list; `each` makes it one that does."""
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
    """A list, anything that may be one, and what is not known."""
    check_batch_function(annotated(annotation), "function")


def one(text: str) -> str:
    return text


class Caller:
    """An object that is called with one item."""

    def __call__(self, text: str) -> str:
        """Return it."""
        return text

    def method(self, text: str) -> str:
        """Return it."""
        return text


@pytest.mark.parametrize(
    "function", [one, Caller(), Caller().method, functools.partial(one)], ids=called
)
def test_every_kind_of_function_is_looked_at(function: Any) -> None:
    """A function, an object, a method and a partial, annotated by text in this file."""
    with pytest.raises(OptionError, match=r"takes one item \(`text: str`\)"):
        check_batch_function(function, "it")


def test_texts_under_a_star_are_one_item() -> None:
    """The list would be the first of them; without an annotation nothing is known."""

    def join(*texts: str) -> str:
        return "".join(texts)

    def starred(*inputs: Any) -> Any:
        return inputs[0]

    with pytest.raises(OptionError, match=r"`\*texts: str`.*serve\(each\(join\)\)"):
        check_batch_function(join, "join")
    check_batch_function(starred, "starred")


def test_a_function_with_a_cache_is_refused_but_for_each() -> None:
    """A list cannot be looked up; one item can."""

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


def test_a_method_without_its_object_is_refused() -> None:
    """The list would be its object."""
    for method, check in (
        (Caller.method, lambda f: check_batch_function(f, "method")),
        (Caller.method, each),
    ):
        with pytest.raises(
            OptionError, match=r"give the method of an instance: Caller\(...\).method"
        ):
            check(method)


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
def test_a_function_that_cannot_be_called_with_a_list_is_refused(function: Any, said: str) -> None:
    """Every request would fail; so it is said before."""
    with pytest.raises(OptionError, match=said):
        check_batch_function(function, "f")


# -- what it returns --------------------------------------------------------------------------


class Mine(list[Any]):
    """A list of one's own."""


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ([1, 2], [1, 2]),
        ((1, 2), [1, 2]),
        (Mine([1, 2]), [1, 2]),
        (collections.deque([1, 2]), [1, 2]),
        (range(2), [0, 1]),
        ({"a": 1, "b": 2}.values(), [1, 2]),
        (np.array([1, 2]), [1, 2]),
        (pd.Series([1, 2], index=[7, 9]), [1, 2]),
        (pd.Index(["a", "b"]), ["a", "b"]),
        (pd.Categorical(["a", "b"]), ["a", "b"]),
        (pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}), [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]),
        (pd.DataFrame({"a": [1, 2]}, index=[5, 6]), [{"a": 1}, {"a": 2}]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_an_order_is_one_output_per_input(outputs: Any, expected: list[Any]) -> None:
    """Rows of a table are records, by their columns; anything else is taken by its places."""
    assert to_output_list(outputs, 2, "f") == expected


@pytest.mark.parametrize(
    ("outputs", "hint"),
    [
        (None, "a `return` missing"),
        ("ab", "a str"),
        (b"ab", "a bytes"),
        (memoryview(b"ab"), "a memoryview"),
        ({"a": 1, "b": 2}, "a dict for each input"),
        (collections.UserDict(a=1, b=2), "a dict for each input"),
        ({1, 2}, "no order"),
        ({"a": 1, "b": 2}.items(), "no order"),
        (iter([1, 2]), r"return list\(...\)"),
        (zip([1], [2], strict=True), r"return list\(...\)"),
        (Struct(["a"], [1.0]), "the part of it"),
        (np.array(1.0), "a row for each input"),
        (Struct, "a type"),
        (object(), "a object"),
        (3, "a int"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_none_is_an_error_that_says_what_to_write(outputs: Any, hint: str) -> None:
    """Its parts would be answers to other inputs, or to none."""
    with pytest.raises(TypeError, match=hint):
        to_output_list(outputs, 2, "f")


def test_a_tuple_of_columns_is_no_list_of_outputs() -> None:
    """With as many columns as inputs, each input would be answered with a column."""
    import torch

    columns = (["a", "b"], np.array([1, 2]))
    others = [
        (torch.ones(2), pd.Series([1, 2])),
        (("a", "b"), [1, 2]),
        np.unique(["x", "y"], return_counts=True),
    ]
    for outputs in (columns, *others):
        with pytest.raises(TypeError, match=r"f returned a tuple of 2 columns.*list\(zip\(...\)\)"):
            to_output_list(outputs, 2, "f")
    with pytest.raises(TypeError, match="a tuple of 2 columns"):
        to_output_list((["a"], [1]), 1, "f")
    with pytest.raises(TypeError, match="a tuple of 3 columns"):
        to_output_list(([1, 2], [3, 4], [5, 6]), 2, "f")


@pytest.mark.parametrize(
    ("outputs", "count"),
    [
        ([["a", "b"], [1, 2]], 2),
        ((["a", "b", "c"], ["d"]), 2),
        (("ab", "cd"), 2),
        (({"a": 1, "b": 2}, {"a": 3, "b": 4}), 2),
        ((["a"],), 1),
        ((np.array(1.0), np.array(2.0)), 2),
        (tuple(np.ones((2, 3))), 2),
    ],
    ids=str,
)
def test_any_other_tuple_is_one_output_per_input(outputs: Any, count: int) -> None:
    """A list, texts, dicts, numbers, and results of another length are not columns."""
    assert len(to_output_list(outputs, count, "f")) == count


def test_groups_of_a_table_are_no_outputs() -> None:
    """There may be as many groups as inputs, and they belong to none."""
    frame = pd.DataFrame({"a": ["x", "y"], "b": [1, 2]})
    for groups in (frame.groupby("a"), frame.groupby("a")["b"]):
        with pytest.raises(TypeError, match="groups are not one per input"):
            to_output_list(groups, 2, "f")


def test_a_result_of_torch_with_names_is_no_list() -> None:
    """Values and places of a maximum are two for any number of inputs."""
    import torch

    with pytest.raises(TypeError, match="the part of it"):
        to_output_list(torch.ones(2, 2).max(1), 2, "f")
    assert len(to_output_list(torch.ones(2, 3), 2, "f")) == 2
    with pytest.raises(TypeError, match="a row for each input"):
        to_output_list(torch.tensor(1), 1, "f")


def test_a_table_with_two_columns_of_one_name_is_refused() -> None:
    """One of them would be lost."""
    frame = pd.DataFrame([[1, 2]], columns=["a", "a"])
    with pytest.raises(TypeError, match="two columns of the same name"):
        to_output_list(frame, 1, "f")


def test_tables_of_other_libraries_give_rows() -> None:
    """Polars and pyarrow, by what they offer: going through one gives its columns."""

    class DataFrame:
        columns = ("a",)

        def __len__(self) -> int:
            return 2

        def to_dicts(self) -> list[dict[str, int]]:
            return [{"a": 1}, {"a": 2}]

    class Table:
        columns = ([1, 2],)
        column_names = ("a",)

        def to_pylist(self) -> list[dict[str, int]]:
            return [{"a": 1}, {"a": 2}]

    for table in (DataFrame(), Table()):
        assert to_output_list(table, 2, "f") == [{"a": 1}, {"a": 2}]


def test_an_answer_over_http_is_right_or_an_error(make: Make, client: httpx.Client) -> None:
    """A table is records; an object without a JSON form is a 500 with a sentence, not its repr."""

    def frame(inputs: list[str]) -> pd.DataFrame:
        return pd.DataFrame({"label": inputs, "score": [0.5] * len(inputs)})

    server = make(frame)
    server.add("objects", lambda inputs: [object() for _ in inputs])
    server.add("dicts", lambda inputs: {"a": inputs})
    answer = client.post(server.url, json={"inputs": ["x", "y"]})
    assert answer.json() == [{"label": "x", "score": 0.5}, {"label": "y", "score": 0.5}]
    answer = client.post(server["objects"].url, content="x")
    assert (answer.status_code, answer.json()["type"]) == (500, "ModelFailed")
    assert "holds an object of object" in answer.json()["error"]
    assert "0x" not in answer.text
    answer = client.post(server["dicts"].url, content="x")
    assert answer.status_code == 500
    assert "returned a dict, not a list" in answer.json()["error"]
    with pytest.raises(ModelFailed, match="returned a dict"):
        server["dicts"].predict("x")


# -- each -------------------------------------------------------------------------------------


def divide(number: float, *, by: float = 1.0) -> float:
    """Return a part of a number."""
    return float(number) / float(by)


def test_each_answers_item_by_item(make: Make, client: httpx.Client) -> None:
    """Parameters of the function are those of a request, and the function keeps its name."""
    server = make(each(divide))

    assert server.predict([2, 4], by=2) == [1.0, 2.0]
    assert client.post(server.url, json={"inputs": 3, "parameters": {"by": 2}}).json() == 1.5
    assert client.post(server.url, json={"inputs": 3, "parameters": {"to": 2}}).status_code == 422
    assert server.model.name == "divide"
    assert "one after another" in server.model.why


@pytest.mark.parametrize("worker", ["thread", "process"])
def test_an_item_that_fails_fails_alone(make: Make, worker: str) -> None:
    """The others of its batch are not run again, and the error is the function's own."""
    server = make(each(divide), worker=worker)
    server.pause()

    async def ask() -> list[Any]:
        asked = [asyncio.ensure_future(server.apredict(number)) for number in (1, "x", 2, "y")]
        await asyncio.sleep(0)  # all are in the queue
        server.resume()
        return await asyncio.gather(*asked, return_exceptions=True)

    one, wrong, other, *_ = asyncio.run(ask())
    assert (one, other) == (1.0, 2.0)
    assert isinstance(wrong, ModelFailed)
    assert "could not convert string to float" in str(wrong)
    assert isinstance(wrong.__cause__, ValueError)
    (batch,) = server.batches()
    assert (len(batch.lengths), batch.retries) == (4, 0)


def test_each_is_a_batch_function_of_its_own() -> None:
    """Called by its author it raises; it reads well, and keeps a measure of length."""

    def measured(text: str) -> str:
        return text

    measured.length = len  # type: ignore[attr-defined]
    assert each(divide)([2, 4], by=2) == [1.0, 2.0]
    with pytest.raises(ZeroDivisionError):
        each(divide)([1], by=0)
    assert repr(each(divide)) == "each(divide)"
    assert each(divide).__doc__ == divide.__doc__
    assert each(each(divide)).function is divide
    assert each(measured).length is len


@pytest.mark.parametrize(
    ("function", "said"),
    [(3, "not int"), (no_inputs, "takes no item"), (only_named, "takes no item")],
    ids=called,
)
def test_each_takes_a_function_of_one_item(function: Any, said: str) -> None:
    """Anything else is refused where it is wrapped."""
    with pytest.raises(OptionError, match=said):
        each(function)


def test_each_refuses_coroutines_and_generators() -> None:
    """Their answers would be objects that nobody awaits."""

    async def later(text: str) -> str:
        return text

    def parts(text: str) -> Any:
        yield text

    async def some(text: str) -> Any:
        yield text

    for function, said in ((later, "coroutine"), (parts, "generator"), (some, "a generator")):
        with pytest.raises(OptionError, match=said):
            each(function)


@pytest.mark.parametrize("annotation", [list[str], Sequence[bytes], "list[str]"], ids=called)
def test_each_refuses_a_function_of_a_list_of_texts(annotation: Any) -> None:
    """Its items would be taken apart, letter by letter."""
    with pytest.raises(OptionError, match=r"already takes a list \(.*\); write serve\(function\)"):
        each(annotated(annotation))


@pytest.mark.parametrize("annotation", [list, list[float], list[dict[str, str]], str], ids=called)
def test_each_takes_a_function_of_one_list(annotation: Any) -> None:
    """A vector of numbers or a chat may be one item."""
    assert each(annotated(annotation))([["a"]]) == [["a"]]


def test_each_takes_a_class() -> None:
    """It makes an object of an item."""
    assert each(int)(["1", "2"]) == [1, 2]
