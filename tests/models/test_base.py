"""The `Model` protocol's helpers: prepared inputs, groups, and the description of a model."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notebook_serve.errors import InvalidInput
from notebook_serve.models.base import (
    Model,
    Prepared,
    ServedModel,
    check_one_input,
    group_name,
    unique_group_name,
)

from ..helpers.compare_answers import called

TEXTS = ["a", "b"]


@pytest.mark.parametrize(
    "inputs",
    [
        *(tuple(TEXTS), set(TEXTS), frozenset(TEXTS), dict.fromkeys(TEXTS).keys()),
        *({1: "a"}.values(), np.array(TEXTS), np.array(TEXTS, object), pd.Series(TEXTS)),
        *(pd.Index(TEXTS), iter(TEXTS), (text for text in TEXTS), map(str, TEXTS)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_texts_in_other_containers_are_rejected(inputs: Any) -> None:
    """They could mean one input or several."""
    with pytest.raises(InvalidInput, match=r"write list\(...\) of it for its items, or \[...\]"):
        check_one_input(inputs)


@pytest.mark.parametrize(
    "inputs",
    [
        *("ab", b"ab", 1, (1, 2), ("a", 1), (), {"a": "b"}, np.ones(2), np.array("a"), {1}),
        *(pd.Series([1, 2]), pd.Series({"a": "x", "b": 1}), io.BytesIO(b"ab"), np.str_("a")),
        pd.DataFrame({"a": ["x"]}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_anything_else_is_one_input(inputs: Any) -> None:
    """A function may take numbers, a vector, a file or a row as one input."""
    check_one_input(inputs)


# -- groups -------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.0, 1.0, "", "1"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=1), inner),
    max_leaves=4,
)


parameter_sets = st.dictionaries(st.sampled_from(["a", "b"]), json_values, max_size=2)


@settings(max_examples=100, deadline=None)
@given(parameter_sets, parameter_sets)
def test_equal_parameters_share_a_group(one: dict[str, Any], two: dict[str, Any]) -> None:
    """Names are equal exactly if parameters are, where ``True``, 1 and 1.0 all differ."""

    def same(a: Any, b: Any) -> bool:
        if type(a) is not type(b) or not isinstance(a, (list, dict)):
            return type(a) is type(b) and bool(a == b)
        if isinstance(a, dict):
            return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
        return len(a) == len(b) and all(map(same, a, b))

    assert (group_name(one) == group_name(two)) == same(one, two)


def test_the_order_of_parameters_does_not_matter() -> None:
    """Requests with the same parameters in another order share a batch."""
    assert group_name({"a": 1, "b": {"c": 2, "d": 3}}) == group_name(
        {"b": {"d": 3, "c": 2}, "a": 1}
    )


def test_no_parameters_are_the_group_without_a_name() -> None:
    """The common case has an empty name."""
    assert group_name({}) == ""


@pytest.mark.parametrize(
    "value", [object(), {1, 2}, b"x", np.arange(2), {1: 2, "a": 3}], ids=called
)
def test_objects_that_are_not_json_stay_alone(value: Any) -> None:
    """Their equality cannot be established, so they never share a batch."""
    parameters: Mapping[str, Any] = {"a": value}

    assert (
        len({group_name(parameters), group_name(parameters), group_name({}), unique_group_name()})
        == 4
    )


@pytest.mark.parametrize(
    ("one", "two"), [((1, 2), [1, 2]), ({1: 2}, {"1": 2})], ids=["tuple", "whole key"]
)
def test_only_equal_parameters_share_a_group(one: Any, two: Any) -> None:
    """Parameters with the same JSON but other types have different groups."""
    assert one != two
    assert group_name({"a": one}) != group_name({"a": two})


# -- descriptions -------------------------------------------------------------------------


class Reverse:
    """The least that a `Model` needs."""

    name, task, prepares = "reverse", "reversal", False
    accepts = frozenset({"text", "json"})

    def split(self, inputs: Any, parameters: Mapping[str, Any]) -> list[Any] | None:
        """Return the items of a list."""
        return inputs if isinstance(inputs, list) else None

    def prepare(self, inputs: Any, parameters: Mapping[str, Any]) -> Prepared:
        """Prepare one input."""
        return Prepared(inputs)

    def run(self, items: Sequence[Prepared]) -> list[Any]:
        """Run a batch."""
        return [item.inputs[::-1] for item in items]

    def finish(self, item: Prepared, output: Any) -> Any:
        """Return the output unchanged."""
        return output


def test_a_class_of_the_user_is_described() -> None:
    """A model without `batched` and `why` counts as batched, and has no row for weights."""
    model = Reverse()
    about = ServedModel.of(model)

    assert isinstance(model, Model)
    assert about == ServedModel(
        "reverse", "reversal", True, "its class implements `Model`", ("json", "text")
    )
    assert "weights" not in repr(about)
    assert "json, text" in about._repr_html_()


def test_a_description_names_the_reason_and_the_weights() -> None:
    """The table has one row for each field."""
    about = ServedModel("n", "t", False, "beams", ("text",), "folder")

    for text in ("no, one at a time", "beams", "folder"):
        assert text in repr(about)
        assert text in about._repr_html_()


def test_a_prepared_input_survives_a_pickle() -> None:
    """Every field arrives in the worker process."""
    item = Prepared([1], 3, "group", {"a": 1}, "source", "key")

    assert pickle.loads(pickle.dumps(item)) == item
