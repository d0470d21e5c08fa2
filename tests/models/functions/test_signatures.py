"""Signatures of functions, and their parts in error messages."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from notebook_serve.models.functions.signatures import (
    called_parts,
    format_parameter,
    format_reference,
    is_cached,
    name_of,
    signature_of,
    why_unbound,
)

if TYPE_CHECKING:
    from decimal import Decimal


def price(item: Decimal, *rest: Decimal) -> Decimal:
    return item


@functools.lru_cache
def cached(item: str) -> str:
    return item


class Model:
    """An object that is called."""

    def __call__(self, item: str) -> str:
        """Return the item."""
        return item

    def method(self, item: str) -> str:
        """Return the item."""
        return item


def test_an_annotation_may_name_a_type_that_is_not_imported() -> None:
    """Python 3.14 would raise for it by default."""
    first, rest = signature_of(price).parameters.values()

    assert format_parameter(first) == "`item: Decimal`"
    assert format_parameter(rest) == "`*rest: Decimal`"


@pytest.mark.parametrize("function", [dict, max], ids=["type", "builtin"])
def test_some_builtins_have_no_signature(function: Callable[..., Any]) -> None:
    """The caller handles the error."""
    try:
        found = signature_of(function)
    except (TypeError, ValueError):
        return
    assert isinstance(found, inspect.Signature)  # a later Python knows it


def test_only_a_method_of_a_class_lacks_its_object() -> None:
    """The advice names the class; bound methods and functions need none."""
    advice = why_unbound(Model.method, signature_of(Model.method))

    assert advice.endswith("give the method of an instance: Model(...).method")
    for function in (Model().method, Model(), price, len):
        assert why_unbound(function, signature_of(function)) == ""


@pytest.mark.parametrize(
    ("function", "name", "reference"),
    [
        (price, "price", "price"),
        (cached, "cached", "cached"),
        (Model(), "Model", "..."),
        (Model().method, "method", "..."),
        (lambda item: item, "<lambda>", "..."),
        (functools.partial(price), "partial", "..."),
    ],
    ids=["function", "cached", "object", "method", "lambda", "partial"],
)
def test_names_of_functions(function: Any, name: str, reference: str) -> None:
    """Only a plain function has a name that can be pasted into a line of code."""
    assert name_of(function) == name
    assert format_reference(function) == reference


def test_the_function_under_a_cache_is_checked_too() -> None:
    """A cache of a coroutine function is not a coroutine function itself."""
    assert is_cached(cached)
    assert not is_cached(price)
    assert cached.__wrapped__ in called_parts(cached)
    assert called_parts(price)[0] is price
