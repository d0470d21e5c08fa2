"""Signatures of functions, also where an annotation names what is not imported."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature; raises `TypeError` or `ValueError` where there is none.

    From Python 3.14 on annotations are evaluated here, and a name that only a type checker imports
    would raise; so those that cannot be are left as references.
    """
    if sys.version_info >= (3, 14):
        from annotationlib import Format

        return inspect.signature(function, annotation_format=Format.FORWARDREF)
    return inspect.signature(function)


def why_unbound(function: Callable[..., Any], signature: inspect.Signature) -> str:
    """Return what to write for a method that is taken from its class; empty for any other.

    Nothing would give it the object.
    """
    first = next(iter(signature.parameters), "")
    if first != "self" or not inspect.isfunction(function) or "." not in function.__qualname__:
        return ""
    kind, name = function.__qualname__.split(".")[-2:]
    return f"{name} is a method without its object; give a method of an object: {kind}(...).{name}"


def is_cached(function: Callable[..., Any]) -> bool:
    """Return True for a function under `functools.lru_cache`."""
    return hasattr(function, "cache_info") and hasattr(function, "__wrapped__")


def called_parts(function: Callable[..., Any]) -> list[Any]:
    """Return what runs when a function or an object is called: one may be a coroutine function."""
    call = getattr(function, "__call__", None)  # noqa: B004 - an object's own, maybe async
    cached = [function.__wrapped__] if is_cached(function) else []  # type: ignore[attr-defined]
    return [function, call, *cached]


def name_of(function: Callable[..., Any]) -> str:
    """Return what a function is called, or the class of an object that is called."""
    return str(getattr(function, "__name__", type(function).__name__))


def shown(parameter: inspect.Parameter) -> str:
    """Return a parameter as it is written."""
    star = "*" if parameter.kind is parameter.VAR_POSITIONAL else ""
    annotation = inspect.formatannotation(parameter.annotation)
    return f"`{star}{parameter.name}: {annotation}`".replace("'", "").replace('"', "")


def written(function: Callable[..., Any]) -> str:
    """Return how a function can be written in a call, if it has a name."""
    name = name_of(function)
    plain = inspect.isfunction(inspect.unwrap(function)) and not inspect.ismethod(function)
    return name if plain and name.isidentifier() else "..."
