"""An exception on its way to another process, where it is to be of the same type and words."""

from __future__ import annotations

import traceback
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ..errors import callers_frames
from .pickling import dumps, loads


class RemoteTraceback(Exception):
    """Where in the worker's process an exception was raised; the cause of one that came from it."""

    def __str__(self) -> str:
        return f'in the worker\'s process:\n"""\n{self.args[0]}"""'


@dataclass(frozen=True)
class Raised:
    """What is to be known of an exception; it can be sent, whatever the exception holds."""

    name: str
    said: str
    where: str
    #: the exception as a pickle, or what it can be made from; empty if neither can be sent
    parts: bytes

    @classmethod
    def of(cls, error: BaseException) -> Raised:
        """What is to be known of `error`."""
        # From the lines of the model on: those of this package tell its author nothing.
        trace = callers_frames(error.__traceback__)
        where = "".join(traceback.format_exception(type(error), error, trace))
        said = ""
        with suppress(Exception):
            said = str(error)
        return cls(type(error).__name__, said, where, _pickled(error, said))

    def error(self) -> Exception:
        """The same exception, or one of the same name and words if it cannot be made here."""
        made: Any = None
        with suppress(Exception):
            made = _made(self.parts)
        if not isinstance(made, Exception) or str(made) != self.said:
            made = type(self.name, (RuntimeError,), {})(self.said)
        made.__cause__ = RemoteTraceback(self.where)
        return made  # type: ignore[no-any-return]


def _pickled(error: BaseException, said: str) -> bytes:
    """The first form of `error` from which one of the same words can be made."""
    forms: tuple[Any, ...] = (
        error,
        (type(error), error.args, vars(error)),
        (type(error), error.args, {}),
    )
    for form in forms:
        with suppress(Exception):
            data, buffers = dumps(form, devices=False)
            if not buffers and str(_made(bytes(data))) == said:
                return bytes(data)
    return b""


def _made(parts: bytes) -> Any:
    form = loads(parts)
    if isinstance(form, BaseException):
        return form
    # Not by calling the type, which may want other arguments than it keeps.
    kind, arguments, attributes = form
    made = kind.__new__(kind, *arguments)
    made.args = arguments
    vars(made).update(attributes)
    return made
