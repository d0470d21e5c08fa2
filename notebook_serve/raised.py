"""An exception on its way to another process, where it is to be of the same type and words."""

from __future__ import annotations

import traceback
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

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
    #: the exception's type, arguments and attributes as a pickle; empty if they cannot be sent
    parts: bytes

    @classmethod
    def of(cls, error: BaseException) -> Raised:
        """What is to be known of `error`."""
        where = "".join(traceback.format_exception(error))
        said = ""
        with suppress(Exception):
            said = str(error)
        return cls(type(error).__name__, said, where, _pickled(error))

    def error(self) -> Exception:
        """The same exception, or one of the same name and words if it cannot be made here."""
        made = self._made()
        if made is None:
            made = type(self.name, (RuntimeError,), {})(self.said)
        made.__cause__ = RemoteTraceback(self.where)
        return made

    def _made(self) -> Exception | None:
        with suppress(Exception):
            kind, arguments, attributes = loads(self.parts)
            # Not by calling the type, which may want other arguments than it keeps.
            made = kind.__new__(kind, *arguments)
            made.args = arguments
            vars(made).update(attributes)
            if isinstance(made, Exception) and str(made) == self.said:
                return made
        return None


def _pickled(error: BaseException) -> bytes:
    attributes: Any
    for attributes in (vars(error), {}):
        with suppress(Exception):
            data, buffers = dumps((type(error), error.args, attributes), devices=False)
            if not buffers:
                return bytes(data)
    return b""
