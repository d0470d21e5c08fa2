"""Signatures of functions, even if an annotation cannot be evaluated."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature. Raises `TypeError` or `ValueError` if there is none.

    Python 3.14 evaluates annotations here, and a name that is imported for type checkers only would
    raise. So annotations that cannot be evaluated stay references.
    """
    if sys.version_info >= (3, 14):
        from annotationlib import Format

        return inspect.signature(function, annotation_format=Format.FORWARDREF)
    return inspect.signature(function)


def why_unbound(function: Callable[..., Any], signature: inspect.Signature) -> str:
    """Return advice for a method that was taken from its class; empty for any other callable.

    Such a method would get the batch as ``self``.
    """
    first = next(iter(signature.parameters), "")
    if first != "self" or not inspect.isfunction(function) or "." not in function.__qualname__:
        return ""
    kind, name = function.__qualname__.split(".")[-2:]
    return (
        f"{name} is a method without its object; give the method of an instance: {kind}(...).{name}"
    )


def is_cached(function: Callable[..., Any]) -> bool:
    """Return True for a function under `functools.lru_cache`."""
    return hasattr(function, "cache_info") and hasattr(function, "__wrapped__")


def called_parts(function: Callable[..., Any]) -> list[Any]:
    """Return the functions that run in a call of `function`; one may be a coroutine function."""
    call = getattr(function, "__call__", None)  # noqa: B004 - of an object, possibly async
    cached = [function.__wrapped__] if is_cached(function) else []  # type: ignore[attr-defined]
    return [function, call, *cached]


def name_of(function: Callable[..., Any]) -> str:
    """Return the name of a function, or the class name of a callable object."""
    return str(getattr(function, "__name__", type(function).__name__))


def format_parameter(parameter: inspect.Parameter) -> str:
    """Return a parameter as it stands in a signature, in backticks."""
    star = "*" if parameter.kind is parameter.VAR_POSITIONAL else ""
    annotation = inspect.formatannotation(parameter.annotation)
    return f"`{star}{parameter.name}: {annotation}`".replace("'", "").replace('"', "")


def format_reference(function: Callable[..., Any]) -> str:
    """Return the name of a function for a line of code, or ``...`` if it has none."""
    name = name_of(function)
    plain = inspect.isfunction(inspect.unwrap(function)) and not inspect.ismethod(function)
    return name if plain and name.isidentifier() else "..."
