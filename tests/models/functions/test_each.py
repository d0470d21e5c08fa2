"""`each`, which wraps a function of one item."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import pytest

from notebook_serve import ModelFailed, OptionError, Server, each

from ...helpers.compare_answers import called

Make = Callable[..., Server]


def divide(number: float, *, by: float = 1.0) -> float:
    """Return the quotient."""
    return float(number) / float(by)


def test_each_answers_item_by_item(make: Make, client: httpx.Client) -> None:
    """Requests set parameters of the function, and the model has its name."""
    server = make(each(divide))

    assert server.predict([2, 4], by=2) == [1.0, 2.0]
    assert client.post(server.url, json={"inputs": 3, "parameters": {"by": 2}}).json() == 1.5
    assert client.post(server.url, json={"inputs": 3, "parameters": {"to": 2}}).status_code == 422
    assert server.model.name == "divide"
    assert "one after another" in server.model.why


@pytest.mark.parametrize("worker", ["thread", "process"])
def test_an_item_that_fails_fails_alone(make: Make, worker: str) -> None:
    """The other items do not run again, and the cause is the function's own error."""
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
    """A direct call raises; name, docstring and ``length`` are kept."""

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


def no_inputs() -> None:
    return None


def only_named(*, inputs: Any) -> None:
    return None


@pytest.mark.parametrize(
    ("function", "said"),
    [(3, "not int"), (no_inputs, "takes no item"), (only_named, "takes no item")],
    ids=called,
)
def test_each_takes_a_function_of_one_item(function: Any, said: str) -> None:
    """The error is raised by `each`."""
    with pytest.raises(OptionError, match=said):
        each(function)


def test_each_rejects_coroutines_and_generators() -> None:
    """Their results are objects to await or iterate, not answers."""

    async def later(text: str) -> str:
        return text

    def parts(text: str) -> Any:
        yield text

    async def some(text: str) -> Any:
        yield text

    for function, said in ((later, "coroutine"), (parts, "generator"), (some, "a generator")):
        with pytest.raises(OptionError, match=said):
            each(function)


def annotated(annotation: Any) -> Callable[..., Any]:
    """Return a function with this annotation of its first parameter."""

    def function(x: Any) -> Any:
        return x

    function.__annotations__ = {"x": annotation}
    return function


@pytest.mark.parametrize("annotation", [list[str], Sequence[bytes], "list[str]"], ids=called)
def test_each_rejects_a_function_of_a_list_of_texts(annotation: Any) -> None:
    """A text would be iterated letter by letter."""
    with pytest.raises(OptionError, match=r"already takes a list \(.*\); write serve\(function\)"):
        each(annotated(annotation))


@pytest.mark.parametrize("annotation", [list, list[float], list[dict[str, str]], str], ids=called)
def test_each_takes_a_function_of_one_list(annotation: Any) -> None:
    """A vector of numbers or a chat may be one item."""
    assert each(annotated(annotation))([["a"]]) == [["a"]]


def test_each_takes_a_class() -> None:
    """A class is a function of one item."""
    assert each(int)(["1", "2"]) == [1, 2]
