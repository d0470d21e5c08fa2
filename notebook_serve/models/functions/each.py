"""A function of one item as a batch function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from ...errors import OptionError
from ..bisection import Failure
from ..unservable import is_a_pipeline, why_unservable
from .annotations import evaluated, is_list_of_texts
from .signatures import called_parts, name_of, shown, signature_of, why_unbound, written


class Each:
    """A batch function that calls another with one input at a time; made by `each`.

    The parameters of the other that have a name and follow the first are its own too.
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
        """Return the answer to each of `inputs`; raise what the function raises."""
        return [self.function(item, **parameters) for item in inputs]

    def outcomes(self, inputs: Sequence[Any], /, **parameters: Any) -> list[Any]:
        """Return the answer to each of `inputs`, or a `Failure` with what it raised for it."""
        return [self._outcome(item, parameters) for item in inputs]

    def _outcome(self, item: Any, parameters: dict[str, Any]) -> Any:
        try:
            return self.function(item, **parameters)
        except Exception as error:
            return Failure(error)

    def __repr__(self) -> str:
        return f"each({self.__name__})"


def each(function: Callable[..., Any]) -> Each:
    """Wrap a function of one item, so that it can be served: ``serve(each(describe))``.

    The items of a batch run one after another, so that a batch takes as long as its items do;
    an item that fails does not fail the others. A function that can take a list at once is faster
    as it is. Keyword parameters of the function may be given by requests.

    >>> def shout(text: str, mark: str = "!") -> str:
    ...     return text.upper() + mark
    >>> each(shout)
    each(shout)
    >>> each(shout)(["a", "b"], mark="?")
    ['A?', 'B?']
    """
    if isinstance(function, Each):
        return function
    if is_a_pipeline(function):
        raise OptionError("a pipeline takes a list already; write serve(pipe)")
    # A class makes an object of an item: `int` does.
    wrong = "" if isinstance(function, type) else why_unservable(function)
    if wrong:
        raise OptionError(wrong)
    name = name_of(function)
    if not callable(function):
        raise OptionError(f"each takes a function of one item, not {type(function).__name__}")
    for part in called_parts(function):
        if inspect.iscoroutinefunction(part):
            raise OptionError(f"{name} is a coroutine function; each takes a plain one")
        if inspect.isasyncgenfunction(part) or inspect.isgeneratorfunction(part):
            raise OptionError(f"{name} is a generator function; return the answer instead")
    _check_takes_an_item(function, name)
    return Each(function)


def _check_takes_an_item(function: Callable[..., Any], name: str) -> None:
    try:
        signature = signature_of(function)
    except (TypeError, ValueError):
        return  # a builtin, of which nothing is known
    first = next(iter(signature.parameters.values()), None)
    if first is None or first.kind in (first.KEYWORD_ONLY, first.VAR_KEYWORD):
        raise OptionError(f"{name} takes no item; each takes a function of one item")
    wrong = why_unbound(function, signature)
    if not wrong and is_list_of_texts(evaluated(first.annotation, function)):
        wrong = (
            f"{name} takes a list already ({shown(first)}); write serve({written(function)}), "
            "or leave the annotation out if one input is a list"
        )
    if wrong:
        raise OptionError(wrong)
