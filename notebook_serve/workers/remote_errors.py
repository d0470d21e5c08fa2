"""Exceptions from another process, with the type, message and traceback that they had there."""

from __future__ import annotations

import traceback
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ..errors import callers_frames
from .pickling import dumps, loads


class RemoteTraceback(Exception):
    """The traceback in the worker process, as the cause of an exception that was raised there."""

    def __str__(self) -> str:
        return f'in the worker process:\n"""\n{self.args[0]}"""'


@dataclass(frozen=True)
class RemoteError:
    """A description of an exception that can be sent, whatever the exception holds."""

    name: str
    message: str
    #: the traceback as text
    trace: str
    #: the exception as a pickle, or the parts to rebuild it from; empty if neither can be sent
    pickled: bytes

    @classmethod
    def of(cls, error: BaseException) -> RemoteError:
        """Describe `error`."""
        # The frames of this package say nothing to the author of the model.
        trace = callers_frames(error.__traceback__)
        lines = traceback.format_exception(type(error), error, trace)
        message = ""
        with suppress(Exception):
            message = str(error)
        return cls(type(error).__name__, message, "".join(lines), _pickle(error, message))

    def rebuild(self) -> Exception:
        """Return the same exception, or one of the same name and message if that fails here."""
        error: Any = None
        with suppress(Exception):
            error = _unpickle(self.pickled)
        if not isinstance(error, Exception) or str(error) != self.message:
            error = type(self.name, (RuntimeError,), {})(self.message)
        error.__cause__ = RemoteTraceback(self.trace)
        return error  # type: ignore[no-any-return]


def _pickle(error: BaseException, message: str) -> bytes:
    """Pickle the first form of `error` that gives an exception of the same message."""
    forms: tuple[Any, ...] = (
        error,
        (type(error), error.args, vars(error)),
        (type(error), error.args, {}),
    )
    for form in forms:
        with suppress(Exception):
            data, buffers = dumps(form, devices=False)
            if not buffers and str(_unpickle(bytes(data))) == message:
                return bytes(data)
    return b""


def _unpickle(pickled: bytes) -> Any:
    form = loads(pickled)
    if isinstance(form, BaseException):
        return form
    # Without `__init__`, which may need other arguments than the exception keeps.
    kind, arguments, attributes = form
    error = kind.__new__(kind, *arguments)
    error.args = arguments
    vars(error).update(attributes)
    return error
