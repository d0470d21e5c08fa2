"""Checks of a batch function before it is served, by its signature and annotations."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from ...errors import OptionError
from .annotations import evaluate_annotation, is_item
from .signatures import (
    called_parts,
    format_parameter,
    format_reference,
    is_cached,
    signature_of,
    why_unbound,
)


def check_batch_function(function: Callable[..., Any], name: str) -> None:
    """Raise `OptionError`, with a line that works, if `function` cannot take a list of inputs."""
    _reject_other_kinds(function, name)
    try:
        signature = signature_of(function)
    except (TypeError, ValueError):
        return  # a builtin without a known signature
    first = _first_parameter(signature, name)
    unbound = why_unbound(function, signature)
    if unbound:
        raise OptionError(unbound)
    _reject_more_required(signature, first, name)
    line = f"serve(each({format_reference(function)}))"
    if is_item(evaluate_annotation(first.annotation, function)):
        raise OptionError(
            f"{name} takes one item ({format_parameter(first)}), but a batch function takes a "
            f"list; write {line}, with `from notebook_serve import each`"
        )
    if is_cached(function):
        raise OptionError(
            f"{name} caches its results, but a list cannot be a key of the cache; "
            f"write {line}, with a function of one item"
        )


def _reject_other_kinds(function: Callable[..., Any], name: str) -> None:
    for part in called_parts(function):
        if inspect.iscoroutinefunction(part):
            raise OptionError(
                f"{name} is a coroutine function; the worker thread needs a plain function, "
                f"such as lambda inputs: asyncio.run({name}(inputs))"
            )
        if inspect.isasyncgenfunction(part) or inspect.isgeneratorfunction(part):
            raise OptionError(
                f"{name} is a generator function; return a list of one output per input"
            )


def _first_parameter(signature: inspect.Signature, name: str) -> inspect.Parameter:
    """Return the parameter that receives the inputs."""
    positional = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.VAR_POSITIONAL,
    )
    for parameter in signature.parameters.values():
        if parameter.kind in positional:
            return parameter
    raise OptionError(
        f"{name} takes no inputs; a batch function is called with a list of inputs "
        "(for a function that returns a model, write serve(loader=...))"
    )


def _reject_more_required(
    signature: inspect.Signature, first: inspect.Parameter, name: str
) -> None:
    """Reject a second positional parameter without a default."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    for parameter in signature.parameters.values():
        if parameter is first or parameter.kind not in positional:
            continue
        if parameter.default is parameter.empty:
            raise OptionError(
                f"{name} needs two arguments ({first.name}, {parameter.name}), but a batch "
                f"function is called with one list; give `{parameter.name}` a default, or make it "
                f"keyword-only: ({first.name}, *, {parameter.name})"
            )
