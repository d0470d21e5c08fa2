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
        """Return the length of an input."""
        return abs(item)


def answers(model: FunctionModel, inputs: Sequence[Any], /, **parameters: Any) -> list[Any]:
    """Return the answers to `inputs` in one batch."""
    items = [model.prepare(item, parameters) for item in inputs]
    outputs = model.run(items)
    return [model.finish(item, output) for item, output in zip(items, outputs, strict=True)]


def returning(value: Any) -> FunctionModel:
    """Return a model with a function that returns `value` for all inputs."""

    def fixed(inputs: list[Any]) -> Any:
        return value

    return FunctionModel(fixed)


# -- callables ----------------------------------------------------------------------------

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
    """Functions, lambdas, partials, methods, objects and builtins run, and have a name."""
    model = FunctionModel(function)

    assert model.name == name
    assert model.task == "function"
    assert answers(model, inputs) == expected


# -- return values ------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 2, 4, 7])
def test_the_number_of_outputs_is_checked(size: int) -> None:
    """Fewer or more outputs than inputs could not be assigned to inputs."""
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
def test_a_value_other_than_a_list_is_an_error(value: Any, kind: str) -> None:
    """The error names the type that the function returned."""
    with pytest.raises(TypeError, match=f"^fixed returned a {kind}, not a list of one output per"):
        answers(returning(value), [1, 2, 3])


@pytest.mark.parametrize(
    "value",
    [{3, 1, 2}, frozenset("abc"), bytearray(b"abc")],
    ids=["set", "frozenset", "bytearray"],  # their reprs differ from process to process
)
def test_a_set_of_outputs_is_an_error(value: Any) -> None:
    """A set has no order, so its members belong to no input."""
    with pytest.raises(TypeError):
        answers(returning(value), [1, 2, 3])


def test_an_array_without_a_size_is_rejected() -> None:
    """A zero-dimensional array is not a list of outputs."""
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
    """Tuples and views work like lists; the rows of an array are outputs."""
    model = returning(value)
    outputs = model.run([model.prepare(item, {}) for item in "xy"])

    assert type(outputs) is list
    assert [np.asarray(output).tolist() for output in outputs] == expected


def test_a_tensor_is_a_list_of_its_rows() -> None:
    """A torch model may return its tensor."""
    import torch

    outputs = answers(returning(torch.arange(6).reshape(3, 2)), "abc")

    assert [output.tolist() for output in outputs] == [[0, 1], [2, 3], [4, 5]]


def test_errors_of_the_function_are_not_wrapped() -> None:
    """The engine needs the original exception to find the failing input."""

    def fails(inputs: list[Any]) -> list[Any]:
        raise ZeroDivisionError("by zero")

    with pytest.raises(ZeroDivisionError, match="by zero"):
        answers(FunctionModel(fails), [1])


# -- inputs -------------------------------------------------------------------------------


def test_the_function_is_called_once_with_a_list() -> None:
    """One call receives the whole batch, in order, as a list."""
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
def test_only_a_list_is_split(inputs: Any, expected: list[Any] | None) -> None:
    """A list is split once; any other value is one input."""
    assert FunctionModel(double).split(inputs, {}) == expected


def test_an_input_is_passed_on_as_it_is() -> None:
    """Inputs and outputs are unchanged; without parameters the group is empty."""
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
    """All keyword parameters except the inputs are allowed; others are rejected by name."""
    model = FunctionModel(function)

    for name in allowed or []:
        assert model.prepare(1, {name: 2}).parameters == {name: 2}
    for name in ("inputs", "rest", "more", "self", "made_up"):
        with pytest.raises(InvalidInput, match=f"does not take the parameter '{name}'") as caught:
            model.prepare(1, {name: 2})
        if allowed is not None:
            assert caught.value.message.endswith("takes: " + (", ".join(allowed) or "none"))


def test_a_function_that_takes_any_parameters_is_given_any() -> None:
    """The author checks ``**rest``; only the name of the inputs is reserved."""

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
    """Parameters of a request override those of a partial."""
    assert answers(FunctionModel(function), [1, 2], **parameters) == expected


def test_a_parameter_without_default_is_required() -> None:
    """A request without it is rejected before the model runs."""

    def needs(inputs: list[int], *, factor: int) -> list[int]:
        return scaled(inputs, factor)

    with pytest.raises(InvalidInput, match="needs the parameter 'factor'"):
        FunctionModel(needs).prepare(1, {})


# -- lengths ------------------------------------------------------------------------------


def measured(length: Any) -> FunctionModel:
    """Return a model with a function that has this attribute ``length``."""

    def function(inputs: list[Any]) -> list[Any]:
        return inputs

    function.length = length  # type: ignore[attr-defined]
    return FunctionModel(function)


def test_a_function_may_measure_its_inputs() -> None:
    """With an attribute ``length`` each input has a length, and `prepares` is true."""
    model = measured(len)

    assert model.prepares
    assert [model.prepare(text, {}).length for text in ("", "a", "abc")] == [0, 1, 3]


def test_an_object_may_measure_its_inputs() -> None:
    """A method ``length`` works too."""
    model = FunctionModel(Scaler(2))

    assert model.prepares
    assert model.prepare(-7, {}).length == 7


def test_without_a_measure_every_input_is_one() -> None:
    """All inputs have length 1, and `prepares` is false."""
    model = FunctionModel(double)

    assert not model.prepares
    assert model.prepare("a long text", {}).length == 1


def test_a_length_is_a_whole_number() -> None:
    """Numbers of numpy and floats are converted to int."""
    length = measured(lambda item: np.float32(item)).prepare(7, {}).length

    assert (length, type(length)) == (7, int)


@pytest.mark.parametrize("item", [5, None, "nan"])
def test_an_input_that_cannot_be_measured_is_invalid(item: Any) -> None:
    """The input is invalid, and the cause is chained."""
    model = measured(lambda value: float(value) if value == "nan" else len(value))

    with pytest.raises(InvalidInput, match=r"function\.length failed for this input") as caught:
        model.prepare(item, {})
    assert isinstance(caught.value.__cause__, (TypeError, ValueError))


def test_a_length_is_not_negative() -> None:
    """A negative length would break the count of padded tokens."""
    with pytest.raises(InvalidInput):
        measured(lambda item: -1).prepare("a", {})
