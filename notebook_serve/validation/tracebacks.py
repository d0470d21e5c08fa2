"""`entry_point`: wrong calls raise errors with a hint, and tracebacks are short."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar, cast

from ..errors import ModelFailed, ServeError, StartError, WrongCall, callers_frames
from .option_hints import short, unknown_option

logger = logging.getLogger("notebook_serve")

#: kinds of parameters that are passed by position
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)

P = ParamSpec("P")
T = TypeVar("T")


def entry_point(function: Callable[P, T]) -> Callable[P, T]:
    """Wrap a public function, so that its errors are short and have a hint.

    An unknown option raises `WrongCall` with the option to write. A `ServeError` keeps only the
    frames of the caller; the log has all frames, at level DEBUG.
    """
    known = _keyword_names(function)

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def call_async(*args: P.args, **options: P.kwargs) -> Any:
            __tracebackhide__ = True
            try:
                _check_options(function, known, options)
                return await function(*args, **options)
            except ServeError as caught:
                error = _shorten(caught)
            except TypeError as caught:
                if not _is_wrong_call(caught):
                    raise
                error = WrongCall(_describe_misfit(function, caught, args))
            raise error

        return cast("Callable[P, T]", call_async)

    @functools.wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> T:
        __tracebackhide__ = True
        try:
            _check_options(function, known, options)
            return function(*args, **options)
        except ServeError as caught:
            error = _shorten(caught)
        except TypeError as caught:
            if not _is_wrong_call(caught):
                raise
            error = WrongCall(_describe_misfit(function, caught, args))
        # Outside the handler, so that the context is an exception that the caller handles.
        raise error

    return call


def _keyword_names(function: Callable[..., Any]) -> list[str] | None:
    """Return the keyword names of `function`; None if it accepts any."""
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


def _is_wrong_call(error: TypeError) -> bool:
    """Return True if the arguments did not fit, so that no line of the function ran."""
    trace = error.__traceback__
    return trace is not None and trace.tb_next is None


def _describe_misfit(function: Callable[..., Any], error: TypeError, given: Sequence[Any]) -> str:
    many = "positional argument" in str(error) and "missing" not in str(error)
    return f"{error}; {_hint_at_names(function, given) if many else 'see its help'}"


def _hint_at_names(function: Callable[..., Any], given: Sequence[Any]) -> str:
    """Return the hint for a call with too many positional arguments."""
    parameters = list(inspect.signature(function).parameters.values())
    places = [item for item in parameters if item.kind in POSITIONAL]
    options = [item.name for item in parameters if item.kind is item.KEYWORD_ONLY]
    values = given[1:] if places and places[0].name == "self" else given
    first = next((item.name for item in places if item.name != "self"), "")
    several = function.__name__ in ("predict", "apredict") or first == "policies"
    if several and len({type(value).__name__ for value in values}) == 1:
        return f"pass several as a list: {function.__name__}([{', '.join(map(short, values))}])"
    if first == "policies":
        return f"pass a list: {function.__name__}([{', '.join(map(short, values))}], ...)"
    if "policy" in options:
        return "pass options by name, such as policy=Greedy(8)"
    return f"pass options by name: {', '.join(options)}" if options else "it takes no more"


def _shorten(error: ServeError) -> ServeError:
    """Return `error` without the frames of this package, to be raised again."""
    logger.debug("%s", error, exc_info=error)
    cause = error.__cause__ if isinstance(error, (ModelFailed, StartError)) else None
    if cause is not None:
        cause.__traceback__ = callers_frames(cause.__traceback__)
    error.__cause__ = cause
    error.__context__ = None
    error.__suppress_context__ = cause is not None
    return error.with_traceback(None)
