"""Functions that a cell calls: a wrong call is refused by name, and a traceback is short."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar, cast

from ..errors import ModelFailed, ServeError, StartError, WrongCall, callers_frames
from .option_hints import short, unknown_option

logger = logging.getLogger("notebook_serve")

#: what is given by place
PLACES = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)

P = ParamSpec("P")
T = TypeVar("T")


def entry_point(function: Callable[P, T]) -> Callable[P, T]:
    """Wrap a function that users call.

    An option that it does not have raises `WrongCall`, which says what to write. Every `ServeError`
    comes out with the caller's own frames; the log has all of them, at the level DEBUG.
    """
    known = _options(function)

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def awaited(*args: P.args, **options: P.kwargs) -> Any:
            __tracebackhide__ = True
            try:
                _check_options(function, known, options)
                return await function(*args, **options)
            except ServeError as caught:
                error = _shortened(caught)
            except TypeError as caught:
                if not _is_of_the_call(caught):
                    raise
                error = WrongCall(_misfit(function, caught, args))
            raise error

        return cast("Callable[P, T]", awaited)

    @functools.wraps(function)
    def called(*args: P.args, **options: P.kwargs) -> T:
        __tracebackhide__ = True
        try:
            _check_options(function, known, options)
            return function(*args, **options)
        except ServeError as caught:
            error = _shortened(caught)
        except TypeError as caught:
            if not _is_of_the_call(caught):
                raise
            error = WrongCall(_misfit(function, caught, args))
        # Outside of the handler: the context is what the caller was handling, if anything.
        raise error

    return called


def _options(function: Callable[..., Any]) -> list[str] | None:
    """Return the names that `function` takes by keyword; None if it takes any."""
    parameters = inspect.signature(function).parameters.values()
    if any(item.kind is item.VAR_KEYWORD for item in parameters):
        return None
    by_name = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [item.name for item in parameters if item.kind in by_name and item.name != "self"]


def _check_options(
    function: Callable[..., Any], known: list[str] | None, options: Mapping[str, Any]
) -> None:
    if known is None:
        return
    for name in options:
        if name not in known:
            raise WrongCall(unknown_option(function.__name__, name, options[name], known))


def _is_of_the_call(error: TypeError) -> bool:
    """Return True if the arguments did not fit, so that not a line of the function has run."""
    trace = error.__traceback__
    return trace is not None and trace.tb_next is None


def _misfit(function: Callable[..., Any], error: TypeError, given: Sequence[Any]) -> str:
    many = "positional argument" in str(error) and "missing" not in str(error)
    return f"{error}; {_by_name(function, given) if many else 'see its help'}"


def _by_name(function: Callable[..., Any], given: Sequence[Any]) -> str:
    """Return what to write where too many arguments were given by place."""
    parameters = list(inspect.signature(function).parameters.values())
    places = [item for item in parameters if item.kind in PLACES]
    options = [item.name for item in parameters if item.kind is item.KEYWORD_ONLY]
    values = given[1:] if places and places[0].name == "self" else given
    first = next((item.name for item in places if item.name != "self"), "")
    several = function.__name__ in ("predict", "apredict") or first == "policies"
    if several and len({type(value).__name__ for value in values}) == 1:
        return f"for several give a list: {function.__name__}([{', '.join(map(short, values))}])"
    if first == "policies":
        return f"give a list: {function.__name__}([{', '.join(map(short, values))}], ...)"
    if "policy" in options:
        return "give options by name, such as policy=Greedy(8)"
    return f"give options by name: {', '.join(options)}" if options else "it takes no more"


def _shortened(error: ServeError) -> ServeError:
    """Return `error` to be raised again, without the frames of this package."""
    logger.debug("%s", error, exc_info=error)
    cause = error.__cause__ if isinstance(error, (ModelFailed, StartError)) else None
    if cause is not None:
        cause.__traceback__ = callers_frames(cause.__traceback__)
    error.__cause__ = cause
    error.__context__ = None
    error.__suppress_context__ = cause is not None
    return error.with_traceback(None)
