from __future__ import annotations

import base64
import collections
import dataclasses
import datetime as dt
import decimal
import enum
import io
import json
import math
import pathlib
import types
import uuid
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notebook_serve.errors import ModelFailed
from notebook_serve.http.json_encoding import is_slow_to_encode, to_json, to_plain

from ..helpers.compare_answers import called


def never(constant: str) -> Any:
    """Reject a constant that strict JSON lacks."""
    raise AssertionError(f"{constant} is no JSON")


def loaded(value: Any) -> Any:
    """Encode `value` and parse it by the strict rules: UTF-8, and no NaN."""
    return json.loads(to_json(value).decode("utf-8"), parse_constant=never)


def trees(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return a strategy for JSON values with these leaves."""
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=15,
    )


numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | st.text()


@settings(max_examples=100, deadline=None)
@given(trees(scalars))
def test_plain_json_goes_there_and_back(value: Any) -> None:
    """JSON values survive a round trip: types, order and all digits."""
    assert loaded(value) == value
    assert repr(loaded(value)) == repr(value)


def cleaned(value: Any) -> Any:
    """Return `value` with None for NaN and infinity."""
    if isinstance(value, list):
        return [cleaned(item) for item in value]
    if isinstance(value, dict):
        return {key: cleaned(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


@settings(max_examples=100, deadline=None)
@given(trees(scalars | st.sampled_from([math.nan, math.inf, -math.inf])))
def test_what_is_no_finite_number_becomes_null(value: Any) -> None:
    """NaN and infinity become null at any depth, and nothing else changes."""
    assert repr(loaded(value)) == repr(cleaned(value))


any_text = st.text(st.characters(exclude_categories=()))


@settings(max_examples=100, deadline=None)
@given(trees(any_text | st.just(math.nan)), any_text)
def test_half_a_surrogate_pair_is_valid_json(value: Any, key: str) -> None:
    """A text without a UTF-8 form is still answered, and reads the same."""
    halves = {f"{key} \udc80": ["\ud800 " + key, value]}
    read = json.loads(to_json(halves).decode("utf-8"), parse_constant=never)

    # Two halves side by side are one character once they are read.
    assert repr(read) == repr(json.loads(json.dumps(cleaned(halves))))


def test_text_is_not_escaped_without_need() -> None:
    """Text in any script is not escaped, and there are no spaces."""
    assert to_json({"a": ["Straße", "東京"]}) == '{"a":["Straße","東京"]}'.encode()


# -- numpy --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float64(0.1), 0.1),
        (np.float32(0.5), 0.5),
        (np.float16(0.25), 0.25),
        (np.int64(2**62), 2**62),
        (np.uint8(255), 255),
        (np.bool_(True), True),
        (np.str_("text"), "text"),
        (np.bytes_(b"abc"), "YWJj"),
        (np.array(1.5), 1.5),
        (np.array([]), []),
        (np.array([[1, 2], [3, 4]], dtype=np.int32), [[1, 2], [3, 4]]),
        (np.array([0.1, 0.2]), [0.1, 0.2]),
        (np.array([True, False]), [True, False]),
        (np.array([np.float32(1), None, "x", [1]], dtype=object), [1.0, None, "x", [1]]),
        (np.float64("nan"), None),
        (np.float32("inf"), None),
        (np.float16("-inf"), None),
        (np.array(math.nan), None),
        (np.array([1.0, math.nan, math.inf]), [1.0, None, None]),
        (np.array([[1, math.nan]], dtype=np.float32), [[1.0, None]]),
        (np.array([np.float32("nan"), {"a": math.inf}], dtype=object), [None, {"a": None}]),
    ],
    ids=repr,
)
def test_numpy_becomes_plain(value: Any, expected: Any) -> None:
    """Scalars become numbers and arrays lists, alone or nested."""
    assert repr(loaded(value)) == repr(expected)
    assert repr(loaded({"a": [value, {"b": value}]})) == repr({"a": [expected, {"b": expected}]})


# -- torch --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64", "int64", "bool"])
def test_tensors_become_plain(dtype: str) -> None:
    """Tensors of any type become lists of numbers; a tensor of one number becomes that number."""
    import torch

    tensor = torch.tensor([[0, 1], [1, 0]], dtype=getattr(torch, dtype))
    expected = tensor.tolist()

    assert repr(loaded(tensor)) == repr(expected)
    assert repr(loaded({"a": (tensor[0], tensor[0, 1])})) == repr(
        {"a": [expected[0], expected[0][1]]}
    )


def test_bfloat16_has_its_own_value() -> None:
    """A number of few bits is written with its exact value."""
    import torch

    assert loaded(torch.tensor([1.1, 3.0], dtype=torch.bfloat16)) == [1.1015625, 3.0]


@pytest.mark.parametrize("number", [0.1, 1 + 1e-12, 1e300])
def test_a_tensor_of_doubles_keeps_its_digits(number: float) -> None:
    """Tensors of 64 bits are written with as many digits as numpy arrays."""
    import torch

    assert loaded(torch.tensor([number], dtype=torch.float64)) == [number]


def test_a_tensor_that_wants_gradients_is_written() -> None:
    """Parameters, and results computed from them with gradients, become numbers."""
    import torch

    weight = torch.ones(2, requires_grad=True)

    assert loaded({"weight": weight, "twice": weight * 2}) == {
        "weight": [1.0, 1.0],
        "twice": [2.0, 2.0],
    }


def test_a_tensor_may_hold_nan() -> None:
    """NaN in a tensor in a list becomes null."""
    import torch

    tensor = torch.tensor([[1.0, math.nan], [math.inf, -math.inf]])

    assert loaded([tensor, tensor[0, 1], tensor.bfloat16()]) == [
        [[1.0, None], [None, None]],
        None,
        [[1.0, None], [None, None]],
    ]


# -- keys ---------------------------------------------------------------------------------

KEYS: dict[Any, int] = {
    1: 1,
    2.5: 2,
    None: 3,
    False: 4,
    np.int64(7): 5,
    dt.date(2026, 1, 2): 6,
    "a": 7,
    np.str_("b"): 8,
}


def test_keys_become_strings() -> None:
    """Keys that are numbers, texts or dates are written as JSON writes those."""
    assert loaded(KEYS) == {
        "1": 1,
        "2.5": 2,
        "null": 3,
        "false": 4,
        "7": 5,
        "2026-01-02": 6,
        "a": 7,
        "b": 8,
    }
    assert loaded({np.float32(0.5): math.nan}) == {"0.5": None}


@pytest.mark.parametrize("key", [None, True, False])
@pytest.mark.parametrize("neighbour", [math.nan, {np.int64(1): 3}], ids=["NaN", "odd key"])
def test_a_key_does_not_depend_on_what_is_beside_it(key: Any, neighbour: Any) -> None:
    """A key is written the same with and without a NaN nearby."""
    assert loaded({key: 1}).keys() == loaded([{key: 1}, neighbour])[0].keys()


class Shade(str, enum.Enum):
    """Texts with names."""

    DARK = "dark"


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (Shade.DARK, "dark"),
        (np.bool_(True), "true"),
        (True, "true"),
        (np.float64(0.5), "0.5"),
        (np.longdouble(0.5), "0.5"),
        (dt.datetime(2026, 1, 2, 3, tzinfo=dt.timezone.utc), "2026-01-02T03:00:00+00:00"),
        (np.datetime64("2026-01-02"), "2026-01-02"),
        (pd.Timestamp("2026-01-02"), "2026-01-02T00:00:00"),
    ],
    ids=called,
)
def test_a_key_is_written_as_the_value_is(key: Any, text: str) -> None:
    """A key of numpy is a number, an enum its value, a date its ISO text."""
    assert loaded({key: 1}) == {text: 1}
    assert loaded({"a": [Point({key: 1})]}) == {"a": [{"x": {text: 1}, "y": None}]}


@pytest.mark.parametrize(
    "key",
    [
        *((1, 2), b"a", object(), len, int, math.nan, math.inf, np.float64("nan"), pd.NaT),
        *(np.datetime64("NaT"), frozenset({1}), 1j, dt.timedelta(1), pd.Interval(0, 1)),
    ],
    ids=called,
)
def test_a_key_that_is_no_text_or_number_is_an_error(key: Any) -> None:
    """The message names the type of the key."""
    for value in ({key: 1}, [{"a": Point({key: 1})}]):
        with pytest.raises(ModelFailed, match=f"a key of {type(key).__name__}"):
            to_json(value)


@pytest.mark.parametrize(
    "value",
    [
        {1: "a", "1": "b"},
        {None: 1, "null": 2},
        {1.0: 1, "1.0": 2},
        {True: 1, "true": 2},
        {np.int64(3): 1, "3": 2},
        {Shade.DARK: 1, 1: 2, "1": 3},
    ],
    ids=called,
)
def test_two_keys_of_one_text_are_an_error(value: Any) -> None:
    """Two keys with one text are rejected, because a parser would lose one value."""
    for answer in (value, [{"a": value}], Point(value), types.MappingProxyType(value)):
        with pytest.raises(ModelFailed, match="the same text in JSON; rename one"):
            to_json(answer)


# -- the rest -----------------------------------------------------------------------------


@dataclasses.dataclass
class Point:
    """A dataclass."""

    x: Any
    y: Any = None


class Colour(enum.Enum):
    """An enum."""

    RED = 1


class Pair(NamedTuple):
    """A named tuple."""

    a: Any
    b: Any


class Row(pydantic.BaseModel):
    """A model of pydantic."""

    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)

    label: str
    score: Any


class Opaque:
    """An object without a JSON form."""

    def __str__(self) -> str:
        return "opaque"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"\x00\xff", "AP8="),
        (bytearray(b"abc"), "YWJj"),
        ((1, (2, 3)), [1, [2, 3]]),
        ((1, (math.nan, 3)), [1, [None, 3]]),
        ({5}, [5]),
        (frozenset({"a"}), ["a"]),
        (types.MappingProxyType({"a": {1}}), {"a": [1]}),
        (Point(1, Point(np.float32(2), {3})), {"x": 1, "y": {"x": 2.0, "y": [3]}}),
        (Point(np.array([math.nan]), b"abc"), {"x": [None], "y": "YWJj"}),
        (Colour.RED, 1),
        (Pair(1, {2}), [1, [2]]),
        (range(3), [0, 1, 2]),
        (collections.deque([1, {2}]), [1, [2]]),
        ({"a": 1}.values(), [1]),
        (collections.UserDict(a={5}), {"a": [5]}),
        (dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.timezone.utc), "2026-01-02T03:04:05+00:00"),
        (dt.date(2026, 1, 2), "2026-01-02"),
        (dt.time(3, 4), "03:04:00"),
        (dt.timedelta(minutes=1.5), 90.0),
        (decimal.Decimal("0.10"), "0.10"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (pathlib.PurePosixPath("a/b"), "a/b"),
        (Row(label="x", score=np.float32(0.5)), {"label": "x", "score": 0.5}),
        ([math.nan, {5}, b"abc"], [None, [5], "YWJj"]),
    ],
    ids=called,
)
def test_usual_objects_have_a_json_form(value: Any, expected: Any) -> None:
    """Bytes are base64, sets lists, dataclasses and models of pydantic objects, dates ISO texts."""
    assert loaded(value) == expected
    assert loaded({"a": [value]}) == {"a": [expected]}


SELF: list[Any] = []
SELF.append(SELF)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (Opaque(), "an object of Opaque"),
        (object(), "an object of object"),
        (Point, "the class Point"),
        (1 + 2j, "an object of complex"),
        (np.array([1j]), "an object of complex"),
        (np.clongdouble(1), "an object of complex"),
        (pd.Series([1], index=pd.MultiIndex.from_tuples([(1, "a")])), "a key of tuple"),
        (pd.Series([1, 2], index=["a", "a"]), "two values for one label"),
        (pd.DataFrame([[1]], columns=pd.MultiIndex.from_tuples([(1, "a")])), "a key of tuple"),
        ((item for item in "ab"), "an object of generator"),
        (iter([1]), "an object of list_iterator"),
        (len, "an object of builtin_function_or_method"),
        (math, "an object of module"),
        (ValueError("x"), "an object of ValueError"),
        (np.array([Opaque()], dtype=object), "an object of Opaque"),
        (SELF, "contains itself"),
    ],
    ids=called,
)
@pytest.mark.parametrize("around", [0, math.nan], ids=["plain", "NaN beside it"])
def test_what_has_no_json_form_is_an_error(value: Any, said: str, around: Any) -> None:
    """The message names the type of the object."""
    for answer in (value, {"a": [value, around]}, [Point(value)]):
        with pytest.raises(ModelFailed, match=said):
            to_json(answer)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.array([(1, 0.5)], dtype=[("id", int), ("score", float)]), [{"id": 1, "score": 0.5}]),
        (np.array([(1, 0.5)], dtype=[("id", int), ("score", float)])[0], {"id": 1, "score": 0.5}),
        (np.datetime64("2026-01-02T03:04:05", "ns"), "2026-01-02T03:04:05.000000000"),
        (np.array(["2026-01-02", "NaT"], dtype="datetime64[D]"), ["2026-01-02", None]),
        (np.timedelta64(1500, "ms"), 1.5),
        (np.ma.array([1, 2], mask=[True, False]), [None, 2]),
        (pd.DataFrame({"a": [1, 2], "b": ["x", None]}), [{"a": 1, "b": "x"}, {"a": 2, "b": None}]),
        (pd.Series([1.5, math.nan]), [1.5, None]),
        (pd.Series({"label": "x", "score": 0.5}), {"label": "x", "score": 0.5}),
        (pd.Series([1, 2], index=[7, 9]), {"7": 1, "9": 2}),
        (pd.Series([3, 3, 5]).value_counts(), {"3": 2, "5": 1}),
        (pd.Series([1], index=pd.CategoricalIndex(["x"])), {"x": 1}),
        (pd.Series([1], index=pd.to_datetime(["2026-01-02"])), {"2026-01-02T00:00:00": 1}),
        (np.longdouble(1.5), 1.5),
        (np.array([1.5, math.nan], np.longdouble), [1.5, None]),
        (collections.UserString("ab"), "ab"),
        (pd.Index(["a", "b"]), ["a", "b"]),
        (pd.Categorical(["a", "b", "a"]), ["a", "b", "a"]),
        (pd.Timestamp("2026-01-02 03:04"), "2026-01-02T03:04:00"),
        (pd.Timedelta(minutes=1), 60.0),
        ([pd.NaT, pd.NA], [None, None]),
        (pd.Series(pd.to_datetime(["2026-01-02"])), ["2026-01-02T00:00:00.000000"]),
        (pd.Series(pd.to_datetime(["2026-01-02"], utc=True)), ["2026-01-02T00:00:00+00:00"]),
    ],
    ids=called,
)
def test_tables_and_times_become_plain(value: Any, expected: Any) -> None:
    """Rows become objects by column, also in an array with fields; times become ISO texts."""
    assert loaded(value) == expected
    assert loaded({"a": [value]}) == {"a": [expected]}


def test_a_sparse_tensor_becomes_plain() -> None:
    """A sparse tensor becomes its dense numbers."""
    import torch

    dense = torch.tensor([[0.0, 2.0], [0.0, 0.0]])
    assert loaded(dense.to_sparse()) == dense.tolist()


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors", "ignore:.*quantize")
def test_tensors_of_rare_kinds_become_plain() -> None:
    """Nested tensors become lists of unequal length, and quantised ones their values."""
    import torch

    for layout in (torch.strided, torch.jagged):
        parts = [torch.ones(1), torch.ones(2)]
        nested = torch.nested.nested_tensor(parts, layout=layout)
        assert is_slow_to_encode(nested)
        assert loaded({"a": nested}) == {"a": [[1.0], [1.0, 1.0]]}
    assert loaded(torch.quantize_per_tensor(torch.ones(2), 0.5, 0, torch.quint8)) == [1.0, 1.0]


def test_a_picture_that_has_no_png_is_an_error() -> None:
    """An image mode without a PNG form is named in the error."""
    image = pytest.importorskip("PIL.Image")

    with pytest.raises(ModelFailed, match="cannot write mode HSV as PNG"):
        to_json(image.new("HSV", (2, 2)))


def test_a_set_keeps_its_members() -> None:
    """All members of a set are there, in any order, with NaN as null."""
    assert sorted(loaded({3, 1, 2})) == [1, 2, 3]
    assert sorted(loaded({1.0, math.nan}), key=str) == [1.0, None]


def test_a_view_of_bytes_is_base64_too() -> None:
    """A ``memoryview`` is written like its bytes."""
    assert loaded(memoryview(b"abc")) == "YWJj"


def test_an_image_becomes_a_png() -> None:
    """An image becomes base64 of a PNG with the same pixels."""
    image = pytest.importorskip("PIL.Image")
    picture = image.new("RGB", (3, 2), (255, 0, 7))
    picture.putpixel((2, 1), (1, 2, 3))

    read = image.open(io.BytesIO(base64.b64decode(loaded({"mask": picture})["mask"])))

    assert read.format == "PNG"
    assert read.tobytes() == picture.tobytes()


def test_plain_leaves_nothing_that_json_does_not_know() -> None:
    """`to_plain` can be the ``default`` of ``json.dumps``."""
    assert json.dumps({"a": np.arange(2), "b": {1}}, default=to_plain) == '{"a": [0, 1], "b": [1]}'
