"""Return values of batch functions as lists of outputs."""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any, NamedTuple

import httpx
import numpy as np
import pandas as pd
import pytest

from notebook_serve import ModelFailed, Server
from notebook_serve.models.functions.batch_outputs import to_output_list

Make = Callable[..., Server]


class Struct(NamedTuple):
    """Two results, neither of which belongs to one input."""

    labels: list[str]
    scores: list[float]


class Mine(list[Any]):
    """A subclass of list."""


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
def test_ordered_values_become_a_list(outputs: Any, expected: list[Any]) -> None:
    """Rows of a table become dicts by column; other values are taken by position."""
    assert to_output_list(outputs, 2, "f") == expected


@pytest.mark.parametrize(
    ("outputs", "hint"),
    [
        (None, "is a `return` missing"),
        ("ab", "a str"),
        (b"ab", "a bytes"),
        (memoryview(b"ab"), "a memoryview"),
        ({"a": 1, "b": 2}, "a dict for each input"),
        (collections.UserDict(a=1, b=2), "a dict for each input"),
        ({1, 2}, "no order"),
        ({"a": 1, "b": 2}.items(), "no order"),
        (iter([1, 2]), r"return list\(...\)"),
        (zip([1], [2], strict=True), r"return list\(...\)"),
        (Struct(["a"], [1.0]), "the field that holds"),
        (np.array(1.0), "a row for each input"),
        (Struct, "a type"),
        (object(), "a object"),
        (3, "a int"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_values_are_errors_with_a_suggestion(outputs: Any, hint: str) -> None:
    """Their parts do not belong to one input each."""
    with pytest.raises(TypeError, match=hint):
        to_output_list(outputs, 2, "f")


def test_a_tuple_of_columns_is_no_list_of_outputs() -> None:
    """With as many columns as inputs, each column would pass for an output."""
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
    """Lists, texts, dicts, numbers, and results of another length are not columns."""
    assert len(to_output_list(outputs, count, "f")) == count


def test_groups_of_a_table_are_no_outputs() -> None:
    """The number of groups may equal that of the inputs by chance."""
    frame = pd.DataFrame({"a": ["x", "y"], "b": [1, 2]})
    for groups in (frame.groupby("a"), frame.groupby("a")["b"]):
        with pytest.raises(TypeError, match="groups are not one per input"):
            to_output_list(groups, 2, "f")


def test_a_result_of_torch_with_names_is_no_list() -> None:
    """A maximum has two parts, values and indices, for any number of inputs."""
    import torch

    with pytest.raises(TypeError, match="the field that holds"):
        to_output_list(torch.ones(2, 2).max(1), 2, "f")
    assert len(to_output_list(torch.ones(2, 3), 2, "f")) == 2
    with pytest.raises(TypeError, match="a row for each input"):
        to_output_list(torch.tensor(1), 1, "f")


def test_a_table_with_two_columns_of_one_name_is_rejected() -> None:
    """One of the columns would be lost."""
    frame = pd.DataFrame([[1, 2]], columns=["a", "a"])
    with pytest.raises(TypeError, match="two columns of the same name"):
        to_output_list(frame, 1, "f")


def test_tables_of_other_libraries_give_rows() -> None:
    """Tables of polars and pyarrow are recognised by their methods; iteration gives columns."""

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
    """A table becomes dicts; an object without a JSON form is a 500 without its repr."""

    def frame(inputs: list[str]) -> pd.DataFrame:
        return pd.DataFrame({"label": inputs, "score": [0.5] * len(inputs)})

    server = make(frame)
    server.add("objects", lambda inputs: [object() for _ in inputs])
    server.add("dicts", lambda inputs: {"a": inputs})
    answer = client.post(server.url, json={"inputs": ["x", "y"]})
    assert answer.json() == [{"label": "x", "score": 0.5}, {"label": "y", "score": 0.5}]
    answer = client.post(server["objects"].url, content="x")
    assert (answer.status_code, answer.json()["type"]) == (500, "ModelFailed")
    assert "contains an object of object" in answer.json()["error"]
    assert "0x" not in answer.text
    answer = client.post(server["dicts"].url, content="x")
    assert answer.status_code == 500
    assert "returned a dict, not a list" in answer.json()["error"]
    with pytest.raises(ModelFailed, match="returned a dict"):
        server["dicts"].predict("x")
