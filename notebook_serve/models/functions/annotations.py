"""Annotations of a function's first parameter: do they mean one input or a list?"""

from __future__ import annotations

import collections.abc
import dataclasses
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

#: types of one input; a batch function takes a list
ITEMS = (
    *(str, bytes, bytearray, memoryview, int, float, complex, bool, dict, Enum),
    *(PurePath, date, time, timedelta, Decimal, UUID),
)
#: types of one input in other libraries, by name, so that none is imported
OTHERS = {"DataFrame", "Series", "BaseModel"}
#: the same types as text, for annotations that cannot be evaluated
ITEM_NAMES = {
    *(kind.__name__ for kind in ITEMS),
    *("Path", "datetime", "datetime.datetime", "datetime.date", "Callable"),
    *("Image", "Image.Image", "PIL.Image.Image", "DataFrame", "pd.DataFrame", "pd.Series"),
}
#: generic types that include lists
LISTS = (list, Sequence, collections.abc.MutableSequence, Iterable, collections.abc.Collection)


def evaluate_annotation(annotation: Any, function: Callable[..., Any]) -> Any:
    """Evaluate an annotation that is text; return the text if a name in it is unknown."""
    annotation = getattr(annotation, "__forward_arg__", annotation)
    if not isinstance(annotation, str):
        return annotation

    def holder() -> None: ...

    holder.__annotations__ = {"first": annotation.strip("'\"")}
    try:
        hints = typing.get_type_hints(holder, _globals(function))
    except Exception:  # a name that is imported for type checkers only
        return annotation.strip("'\"")
    return hints["first"]


def _globals(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the globals of the module of a function, a method or an object's class."""
    inner = inspect.unwrap(getattr(function, "func", function))  # the function of a partial
    inner = getattr(inner, "__func__", inner)
    module = sys.modules.get(getattr(inner, "__module__", ""))
    known: dict[str, Any] = getattr(inner, "__globals__", vars(module) if module else {})
    return known


def is_item(annotation: Any) -> bool:
    """Return True for the type of one input, such as a text, a number, a dict or an image."""
    if isinstance(annotation, str):
        parts = {part.strip() for part in annotation.split("|")} - {"None"}
        return bool(parts) and all(part.partition("[")[0] in ITEM_NAMES for part in parts)
    origin, members = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return is_item(members[0])
    if origin in (typing.Union, types.UnionType):
        members = tuple(member for member in members if member is not type(None))
        return all(map(is_item, members))
    if origin is typing.Literal:
        return True
    if isinstance(annotation, typing.TypeVar):
        choices = annotation.__constraints__ or (annotation.__bound__,)
        return all(map(is_item, choices))
    if hasattr(annotation, "__supertype__"):  # a NewType
        return is_item(annotation.__supertype__)
    kind = annotation if origin is None else origin
    return isinstance(kind, type) and _is_item_type(kind)


def _is_item_type(kind: type) -> bool:
    if issubclass(kind, ITEMS) or kind in (Mapping, collections.abc.Callable):
        return True
    if issubclass(kind, Sequence):
        return hasattr(kind, "_fields")  # a named tuple
    image = kind.__module__.startswith("PIL.") and kind.__name__.endswith("Image")
    other = not OTHERS.isdisjoint(base.__name__ for base in kind.__mro__)
    return image or other or dataclasses.is_dataclass(kind)


def is_list_of_texts(annotation: Any) -> bool:
    """Return True for a list of texts or bytes; a list of numbers or messages may be one input."""
    origin, members = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return is_list_of_texts(members[0])
    return origin in LISTS and len(members) == 1 and members[0] in (str, bytes)
