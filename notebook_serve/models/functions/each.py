"""Wrapping of a function of one item as a batch function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from ...errors import OptionError
from ..bisection import Failure
from ..tasks import is_pipeline
from ..unservable import why_unservable
from .annotations import evaluate_annotation, is_list_of_texts
from .ownership import own
from .signatures import (
    called_parts,
    format_parameter,
    format_reference,
    name_of,
    signature_of,
    why_unbound,
)


class Each:
    """A batch function that calls another function with one input at a time; `each` creates it.

    It has the other function's named parameters after the first.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.__name__ = name_of(function)
        self.__doc__ = getattr(function, "__doc__", None)
        if hasattr(function, "length"):
            self.length = function.length

    @property
    def __signature__(self) -> inspect.Signature:
        signature = signature_of(self.function)
        first, *more = signature.parameters.values()
        inputs = first.replace(name="inputs", annotation=list, kind=first.POSITIONAL_ONLY)
        named = [item for item in more if item.kind is not item.VAR_POSITIONAL]
        return signature.replace(parameters=[inputs, *named], return_annotation=list)

    def __call__(self, inputs: Sequence[Any], /, **parameters: Any) -> list[Any]:
        """Return the answer to each of `inputs`; an error of the function is not caught."""
        return [own(self.function(item, **parameters)) for item in inputs]

    def outcomes(self, inputs: Sequence[Any], /, **parameters: Any) -> list[Any]:
        """Return the answer or the `Failure` for each of `inputs`."""
        return [self._outcome(item, parameters) for item in inputs]

    def _outcome(self, item: Any, parameters: dict[str, Any]) -> Any:
        try:
            return own(self.function(item, **parameters))  # before the next call changes it
        except Exception as error:
            return Failure(error)

    def __repr__(self) -> str:
        return f"each({self.__name__})"


def each(function: Callable[..., Any]) -> Each:
    """Wrap a function of one item as a batch function: ``serve(each(describe))``.

    The items of a batch run one after another, so a batch takes as long as its items together. An
    item that fails does not fail the others. A function that takes a list at once is faster
    without `each`. Requests may set keyword parameters of the function.

    >>> def shout(text: str, mark: str = "!") -> str:
    ...     return text.upper() + mark
    >>> each(shout)
    each(shout)
    >>> each(shout)(["a", "b"], mark="?")
    ['A?', 'B?']
    """
    if isinstance(function, Each):
        return function
    if is_pipeline(function):
        raise OptionError("a pipeline already takes a list; write serve(pipe)")
    # A class is a function of one item: `int` is.
    advice = "" if isinstance(function, type) else why_unservable(function)
    if advice:
        raise OptionError(advice)
    name = name_of(function)
    if not callable(function):
        raise OptionError(f"each takes a function of one item, not {type(function).__name__}")
    for part in called_parts(function):
        if inspect.iscoroutinefunction(part):
            raise OptionError(f"{name} is a coroutine function; each takes a plain function")
        if inspect.isasyncgenfunction(part) or inspect.isgeneratorfunction(part):
            raise OptionError(f"{name} is a generator function; return the answer instead")
    _check_takes_an_item(function, name)
    return Each(function)


def _check_takes_an_item(function: Callable[..., Any], name: str) -> None:
    try:
        signature = signature_of(function)
    except (TypeError, ValueError):
        return  # a builtin without a known signature
    first = next(iter(signature.parameters.values()), None)
    if first is None or first.kind in (first.KEYWORD_ONLY, first.VAR_KEYWORD):
        raise OptionError(f"{name} takes no item; each takes a function of one item")
    wrong = why_unbound(function, signature)
    if not wrong and is_list_of_texts(evaluate_annotation(first.annotation, function)):
        wrong = (
            f"{name} already takes a list ({format_parameter(first)}); "
            f"write serve({format_reference(function)}), "
            "or remove the annotation if one input is a list"
        )
    if wrong:
        raise OptionError(wrong)
