"""Checks of a batch function before it is served, by its signature and its annotations."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from ...errors import OptionError
from .annotations import evaluated, is_item
from .signatures import called_parts, is_cached, shown, signature_of, why_unbound, written


def check_batch_function(function: Callable[..., Any], name: str) -> None:
    """Raise `OptionError`, with what to write, for what cannot take a list of inputs."""
    _refuse_other_kinds(function, name)
    try:
        signature = signature_of(function)
    except (TypeError, ValueError):
        return  # a builtin, of which nothing is known
    first = _first(signature, name)
    unbound = why_unbound(function, signature)
    if unbound:
        raise OptionError(unbound)
    _refuse_more_required(signature, first, name)
    if is_item(evaluated(first.annotation, function)):
        raise OptionError(
            f"{name} takes one item ({shown(first)}), and a batch function a list of them; "
            f"write serve(each({written(function)})), with `from notebook_serve import each`"
        )
    if is_cached(function):
        raise OptionError(
            f"{name} caches its results, and its argument, a list, cannot be looked up; "
            f"write serve(each({written(function)})), with a function of one item"
        )


def _refuse_other_kinds(function: Callable[..., Any], name: str) -> None:
    for part in called_parts(function):
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
