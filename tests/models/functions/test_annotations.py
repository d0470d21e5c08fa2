"""Annotations that mean one input, and annotations that mean a list."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import pytest

from notebook_serve.models.functions.annotations import (
    evaluate_annotation,
    is_item,
    is_list_of_texts,
)

from ...helpers.compare_answers import called

if TYPE_CHECKING:
    from decimal import Decimal


def of_text(text: str) -> str:
    return text


def of_texts(texts: list[str]) -> list[str]:
    return texts


def of_unknown(number: Decimal) -> Decimal:
    return number


class Model:
    """An object with a method and a call."""

    def __call__(self, texts: list[str]) -> list[str]:
        """Return the texts."""
        return texts


@pytest.mark.parametrize(
    ("function", "annotation", "expected"),
    [
        (of_text, "str", str),
        (of_texts, "list[str]", list[str]),
        (Model(), "list[str]", list[str]),
        (Model().__call__, "Sequence[str]", Sequence[str]),
        (functools.partial(of_text), "'str'", str),
        (of_unknown, "Decimal", "Decimal"),
        (of_unknown, "'Decimal'", "Decimal"),
        (len, "str", str),
        (of_text, int, int),
    ],
    ids=called,
)
def test_text_is_evaluated_in_the_module_of_the_function(
    function: Callable[..., Any], annotation: Any, expected: Any
) -> None:
    """A name that is imported for type checkers only stays text."""
    assert evaluate_annotation(annotation, function) == expected


@pytest.mark.parametrize("annotation", [str, "str", "Image.Image", Annotated[int, "n"]], ids=called)
def test_an_item_is_not_a_list(annotation: Any) -> None:
    """The two checks never agree on an annotation."""
    assert is_item(annotation)
    assert not is_list_of_texts(annotation)


@pytest.mark.parametrize(
    "annotation", [list[str], Sequence[bytes], Annotated[list[str], "texts"]], ids=called
)
def test_a_list_of_texts_is_not_an_item(annotation: Any) -> None:
    """Annotated lists count too."""
    assert is_list_of_texts(annotation)
    assert not is_item(annotation)


@pytest.mark.parametrize("annotation", [list, list[float], Any, object, "Unknown"], ids=called)
def test_other_annotations_are_neither(annotation: Any) -> None:
    """Functions with these annotations are accepted both bare and under `each`."""
    assert not is_item(annotation)
    assert not is_list_of_texts(annotation)
