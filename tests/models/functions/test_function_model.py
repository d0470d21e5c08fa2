from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from notebook_serve import each
from notebook_serve.errors import InvalidInput
from notebook_serve.models.base import Prepared
from notebook_serve.models.functions.function_model import FunctionModel

from ...helpers.compare_answers import called


def double(inputs: list[Any]) -> list[Any]:
    """A plain batch function."""
    return [item * 2 for item in inputs]


def scaled(inputs: list[int], factor: int = 1, *, offset: int = 0) -> list[int]:
    """A batch function with parameters."""
    return [item * factor + offset for item in inputs]


class Scaler:
    """An object that is called like a function, and knows the length of an input."""

    def __init__(self, factor: int) -> None:
        self.factor = factor

    def __call__(self, inputs: list[int], offset: int = 0) -> list[int]:
        """Run a batch."""
        return scaled(inputs, self.factor, offset=offset)

    def method(self, inputs: list[int], offset: int = 0) -> list[int]:
        """Run a batch, by another name."""
        return self(inputs, offset)

    def length(self, item: int) -> int:
        """How much work an input is."""
        return abs(item)


def answers(model: FunctionModel, inputs: Sequence[Any], /, **parameters: Any) -> list[Any]:
    """What the model answers to `inputs` in one batch."""
    items = [model.prepare(item, parameters) for item in inputs]
    outputs = model.run(items)
    return [model.finish(item, output) for item, output in zip(items, outputs, strict=True)]


def returning(value: Any) -> FunctionModel:
    """A model whose function returns `value`, whatever it is given."""

    def fixed(inputs: list[Any]) -> Any:
        return value

    return FunctionModel(fixed)


# -- what may serve -----------------------------------------------------------------------

shout: Callable[[list[str]], list[str]] = lambda inputs: [text.upper() for text in inputs]  # noqa: E731


@pytest.mark.parametrize(
    ("function", "name", "inputs", "expected"),
    [
        (double, "double", [1, 2], [2, 4]),
        (shout, "<lambda>", ["a", "b"], ["A", "B"]),
        (functools.partial(scaled, factor=3), "partial", [1, 2], [3, 6]),
        (Scaler(5), "Scaler", [1, 2], [5, 10]),
        (Scaler(5).method, "method", [1, 2], [5, 10]),
        (sorted, "sorted", [2, 1], [1, 2]),
        (list, "list", ["a"], ["a"]),
        (np.sqrt, "sqrt", [4.0, 9.0], [2.0, 3.0]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_anything_callable_serves(
    function: Any, name: str, inputs: list[Any], expected: list[Any]
) -> None:
    """Functions, lambdas, partials, methods, objects and builtins run, under a name to show."""
    model = FunctionModel(function)

    assert model.name == name
    assert model.task == "function"
    assert answers(model, inputs) == expected


# -- what it must return ------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 2, 4, 7])
def test_the_number_of_outputs_is_checked(size: int) -> None:
    """Fewer or more outputs than inputs would be answers to other people's questions."""
    with pytest.raises(ValueError, match=f"fixed returned {size} outputs for 3 inputs"):
        answers(returning([0] * size), [1, 2, 3])


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, "NoneType"),
        (3, "int"),
        ("abc", "str"),
        (b"abc", "bytes"),
        ({"a": 1, "b": 2, "c": 3}, "dict"),
        ((item for item in "abc"), "generator"),
        (map(str, range(3)), "map"),
    ],
    ids=["None", "int", "str", "bytes", "dict", "generator", "map"],
)
def test_what_is_no_list_is_refused(value: Any, kind: str) -> None:
    """The author of the function reads what it returned in the place of one output per input."""
    with pytest.raises(TypeError, match=f"^fixed returned a {kind}, not a list of one output per"):
        answers(returning(value), [1, 2, 3])


@pytest.mark.parametrize(
    "value",
    [{3, 1, 2}, frozenset("abc"), bytearray(b"abc")],
    ids=["set", "frozenset", "bytearray"],  # their reprs differ from process to process
)
def test_what_has_no_order_is_refused(value: Any) -> None:
    """A set has as many members as there were inputs, and nobody knows which is whose."""
    with pytest.raises(TypeError):
        answers(returning(value), [1, 2, 3])


def test_an_array_without_a_size_is_refused() -> None:
    """A number as an array is no list of outputs, though arrays have a length."""
    with pytest.raises(TypeError):
        answers(returning(np.array(1.0)), [1])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((1, 2), [1, 2]),
        (np.array([1, 2]), [1, 2]),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        ({"a": 1, "b": 2}.values(), [1, 2]),
        (range(2), [0, 1]),
    ],
    ids=["tuple", "vector", "matrix", "view", "range"],
)
def test_anything_ordered_is_a_list_of_outputs(value: Any, expected: list[Any]) -> None:
    """A tuple is as good as a list, and an array's rows are the outputs."""
    model = returning(value)
    outputs = model.run([model.prepare(item, {}) for item in "xy"])

    assert type(outputs) is list
    assert [np.asarray(output).tolist() for output in outputs] == expected


def test_a_tensor_is_a_list_of_its_rows() -> None:
    """A model of torch may return what it computed as it is."""
    import torch

    outputs = answers(returning(torch.arange(6).reshape(3, 2)), "abc")

    assert [output.tolist() for output in outputs] == [[0, 1], [2, 3], [4, 5]]


def test_what_the_function_raises_goes_through() -> None:
    """The engine needs the function's own exception, to blame the right input."""

    def fails(inputs: list[Any]) -> list[Any]:
        raise ZeroDivisionError("by zero")

    with pytest.raises(ZeroDivisionError, match="by zero"):
        answers(FunctionModel(fails), [1])


# -- what it is given ---------------------------------------------------------------------


def test_the_function_is_called_once_with_a_list() -> None:
    """One call has the whole batch, in order, as a list."""
    calls: list[Any] = []

    def seen(inputs: list[Any]) -> list[Any]:
        calls.append(inputs)
        return inputs

    answers(FunctionModel(seen), ("c", "a", "b"))

    assert calls == [["c", "a", "b"]]


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [([1, 2], [1, 2]), ([[1], [2]], [[1], [2]]), ([], []), ("ab", None), ((1, 2), None)],
)
def test_a_list_is_many_inputs(inputs: Any, expected: list[Any] | None) -> None:
    """Only a list is split, and only once; anything else is one input."""
    assert FunctionModel(double).split(inputs, {}) == expected


def test_an_input_is_passed_on_as_it_is() -> None:
    """Nothing is done to the input or the output, and without parameters there is no group."""
    model, thing = FunctionModel(double), object()
    item = model.prepare(thing, {})

    assert item == Prepared(thing, 1, "", {})
    assert model.finish(item, thing) is thing


# -- parameters ---------------------------------------------------------------------------


def named(
    inputs: list[Any], /, other: Any = None, *more: Any, only: Any = None, **rest: Any
) -> list[Any]:
    """A function with parameters of every kind."""
    return [(other, only)] * len(inputs)


def starred(*inputs: Any, only: Any = None) -> list[Any]:
    """A function that takes its inputs under a star."""
    return [only for _ in inputs[0]]


@pytest.mark.parametrize(
    ("function", "allowed"),
    [
        (double, []),
        (scaled, ["factor", "offset"]),
        (starred, ["only"]),
        (Scaler(2), ["offset"]),
        (Scaler(2).method, ["offset"]),
        (functools.partial(scaled, factor=3), ["factor", "offset"]),
        (functools.partial(scaled, offset=3), ["factor", "offset"]),
        (sorted, ["key", "reverse"]),
        (np.sqrt, None),
        (str, None),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_the_signature_says_which_parameters_are_allowed(
    function: Any, allowed: list[str] | None
) -> None:
    """All that can be given by keyword, except the inputs; the rest is refused by name."""
    model = FunctionModel(function)

    for name in allowed or []:
        assert model.prepare(1, {name: 2}).parameters == {name: 2}
    for name in ("inputs", "rest", "more", "self", "made_up"):
        with pytest.raises(InvalidInput, match=f"does not take the parameter '{name}'") as caught:
            model.prepare(1, {name: 2})
        if allowed is not None:
            assert caught.value.message.endswith("takes: " + (", ".join(allowed) or "none"))


def test_a_function_that_takes_any_parameters_is_given_any() -> None:
    """What it collects under two stars is the author's to check; only the inputs are fixed."""

    def gather(texts: list[str], *, only: int = 0, **rest: Any) -> list[Any]:
        return [(only, rest)] * len(texts)

    def one(text: str, **rest: Any) -> Any:
        return rest

    for function in (gather, each(one)):
        model = FunctionModel(function)
        assert model.prepare("a", {"made_up": 1}).parameters == {"made_up": 1}
    assert answers(FunctionModel(gather), ["a"], only=1, other=2) == [(1, {"other": 2})]
    assert answers(FunctionModel(each(one)), ["a"], inputs=3) == [{"inputs": 3}]
    with pytest.raises(InvalidInput, match="'texts' must be left out"):
        FunctionModel(gather).prepare("a", {"texts": ["b"]})
    with pytest.raises(InvalidInput, match="'text' must be left out"):
        FunctionModel(each(one)).prepare("a", {"text": "b"})
    # Where the inputs have no name, that name is free.
    assert answers(FunctionModel(named), [1], inputs=2, only=3) == [(None, 3)]


@pytest.mark.parametrize(
    ("function", "parameters", "expected"),
    [
        (scaled, {"factor": 3}, [3, 6]),
        (scaled, {"factor": 3, "offset": 1}, [4, 7]),
        (functools.partial(scaled, factor=3), {}, [3, 6]),
        (functools.partial(scaled, factor=3), {"offset": 1}, [4, 7]),
        (functools.partial(scaled, factor=3), {"factor": 4}, [4, 8]),
        (Scaler(2), {"offset": 1}, [3, 5]),
        (named, {"other": 1, "only": 2}, [(1, 2), (1, 2)]),
        (starred, {"only": 5}, [5, 5]),
    ],
    ids=called,
)
def test_parameters_reach_the_function(
    function: Any, parameters: dict[str, Any], expected: list[Any]
) -> None:
    """What a request gives by name is given to the function by name, over what it was made with."""
    assert answers(FunctionModel(function), [1, 2], **parameters) == expected


def test_a_parameter_without_default_is_required() -> None:
    """A request that lacks it is refused at the door, and not blamed on the model."""

    def needs(inputs: list[int], *, factor: int) -> list[int]:
        return scaled(inputs, factor)

    with pytest.raises(InvalidInput, match="needs the parameter 'factor'"):
        FunctionModel(needs).prepare(1, {})


# -- lengths ------------------------------------------------------------------------------


def measured(length: Any) -> FunctionModel:
    """A model whose function has this attribute ``length``."""

    def function(inputs: list[Any]) -> list[Any]:
        return inputs

    function.length = length  # type: ignore[attr-defined]
    return FunctionModel(function)


def test_a_function_may_measure_its_inputs() -> None:
    """With an attribute ``length`` each input has a length, and preparing is work."""
    model = measured(len)

    assert model.prepares
    assert [model.prepare(text, {}).length for text in ("", "a", "abc")] == [0, 1, 3]


def test_an_object_may_measure_its_inputs() -> None:
    """A method ``length`` does as well as an attribute."""
    model = FunctionModel(Scaler(2))

    assert model.prepares
    assert model.prepare(-7, {}).length == 7


def test_without_a_measure_every_input_is_one() -> None:
    """All inputs are alike, and preparing costs nothing."""
    model = FunctionModel(double)

    assert not model.prepares
    assert model.prepare("a long text", {}).length == 1


def test_a_length_is_a_whole_number() -> None:
    """Numbers of numpy and numbers with a point are made whole."""
    length = measured(lambda item: np.float32(item)).prepare(7, {}).length

    assert (length, type(length)) == (7, int)


@pytest.mark.parametrize("item", [5, None, "nan"])
def test_an_input_that_cannot_be_measured_is_invalid(item: Any) -> None:
    """What the function cannot measure it cannot take; the cause is chained."""
    model = measured(lambda value: float(value) if value == "nan" else len(value))

    with pytest.raises(InvalidInput, match=r"function\.length failed for this input") as caught:
        model.prepare(item, {})
    assert isinstance(caught.value.__cause__, (TypeError, ValueError))


def test_a_length_is_not_negative() -> None:
    """A length below nothing would make nonsense of the padding of every batch it is in."""
    with pytest.raises(InvalidInput):
        measured(lambda item: -1).prepare("a", {})


# -- groups -------------------------------------------------------------------------------
