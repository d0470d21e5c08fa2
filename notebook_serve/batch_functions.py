"""Checks of a batch function before it is served, by its signature and its annotations."""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from .errors import OptionError
from .signatures import signature_of

#: types of one input; a batch function takes a list of them
ITEMS = (str, bytes, bytearray, int, float, complex, bool, dict)
#: the same, as annotations that cannot be evaluated are written
WRITTEN = {*(kind.__name__ for kind in ITEMS), "Image", "Image.Image", "PIL.Image.Image"}


def check_batch_function(function: Callable[..., Any], name: str) -> None:
    """Raise `OptionError`, with what to write, for what cannot take a list of inputs."""
    _refuse_other_kinds(function, name)
    try:
        signature = signature_of(function)
    except (TypeError, ValueError):
        return  # a builtin, of which nothing is known
    first = _first(signature, name)
    _refuse_more_required(signature, first, name)
    if _is_item(_evaluated(first.annotation, function)) and first.kind is not first.VAR_POSITIONAL:
        shown = inspect.formatannotation(first.annotation).strip("'\"")
        written = name if inspect.isfunction(function) and name.isidentifier() else "..."
        raise OptionError(
            f"{name} takes one item (`{first.name}: {shown}`), and a batch function a list of "
            f"them; write serve(each({written})), with `from notebook_serve import each`"
        )


def _refuse_other_kinds(function: Callable[..., Any], name: str) -> None:
    call = getattr(function, "__call__", None)  # noqa: B004 - an object's own, maybe async
    for part in (function, call):
        if inspect.iscoroutinefunction(part):
            raise OptionError(
                f"{name} is a coroutine function; the worker is a thread, so give it a plain one, "
                f"such as lambda inputs: asyncio.run({name}(inputs))"
            )
        if inspect.isasyncgenfunction(part) or inspect.isgeneratorfunction(part):
            raise OptionError(
                f"{name} is a generator function; return a list of one output per input"
            )


def _first(signature: inspect.Signature, name: str) -> inspect.Parameter:
    """Return the parameter that takes the inputs."""
    by_place = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.VAR_POSITIONAL,
    )
    for parameter in signature.parameters.values():
        if parameter.kind in by_place:
            return parameter
    raise OptionError(
        f"{name} takes no inputs; a batch function is called with a list of them "
        "(for a function that makes a model, write serve(loader=...))"
    )


def _refuse_more_required(
    signature: inspect.Signature, first: inspect.Parameter, name: str
) -> None:
    """Refuse a second parameter without default that is given by its place."""
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    for parameter in signature.parameters.values():
        if parameter is first or parameter.kind not in by_place:
            continue
        if parameter.default is parameter.empty:
            raise OptionError(
                f"{name} needs two arguments ({first.name}, {parameter.name}), and a batch "
                f"function is called with one list; give `{parameter.name}` a default, or make it "
                f"keyword-only: ({first.name}, *, {parameter.name})"
            )


def _evaluated(annotation: Any, function: Callable[..., Any]) -> Any:
    """Return an annotation that is written as text as what it means, where that is known."""
    annotation = getattr(annotation, "__forward_arg__", annotation)
    if not isinstance(annotation, str):
        return annotation

    def holder() -> None: ...

    holder.__annotations__ = {"first": annotation.strip("'\"")}
    try:
        hints = typing.get_type_hints(holder, _globals(function))
    except Exception:  # a name that only a type checker imports
        return annotation.strip("'\"")
    return hints["first"]


def _globals(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the names of the module where a function, a method or an object's class is."""
    inner = inspect.unwrap(getattr(function, "func", function))  # that of a partial
    inner = getattr(inner, "__func__", inner)
    module = sys.modules.get(getattr(inner, "__module__", ""))
    known: dict[str, Any] = getattr(inner, "__globals__", vars(module) if module else {})
    return known


def _is_item(annotation: Any) -> bool:
    """Return True for the type of one input: of a text, a number, a dict or a picture."""
    if isinstance(annotation, str):
        parts = {part.strip() for part in annotation.split("|")} - {"None"}
        return bool(parts) and all(part.partition("[")[0] in WRITTEN for part in parts)
    origin, members = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _is_item(members[0])
    if origin in (typing.Union, types.UnionType):
        members = tuple(member for member in members if member is not type(None))
        return all(map(_is_item, members))
    if origin is typing.Literal:
        return True
    kind = annotation if origin is None else origin
    if not isinstance(kind, type):
        return False
    picture = kind.__module__.startswith("PIL.") and kind.__name__.endswith("Image")
    return picture or kind is Mapping or issubclass(kind, ITEMS)
