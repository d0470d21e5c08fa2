"""The exceptions of this package, as one tree; each class has the HTTP status of its response.

ServeError                    500  the root: catch it to catch them all
├── RequestError              400  the request is at fault; a retry will not help
│   ├── BadRequest            400  malformed: bad JSON, bad UTF-8, an invalid header
│   ├── Unauthorized          401  the bearer token is missing or wrong
│   ├── Forbidden             403  origin not in ``allow_origins``, or host not in ``allow_hosts``
│   ├── NotAcceptable         406  the answer has no form that ``Accept`` allows
│   ├── NoSuchModel           404  the server has no model of this name (also a LookupError)
│   ├── BodyTooSlow           408  the body took longer to arrive than ``timeout``
│   ├── BodyTooLarge          413  the body has more bytes than ``max_body_size``
│   ├── UnsupportedMediaType  415  the task does not take this content type
│   └── InvalidInput          422  well formed, but the task rejects the input
├── ModelFailed               500  the model failed on this input
├── Unavailable               503  not now; retry after ``retry_after`` seconds
│   ├── QueueFull             503  the queue has ``max_queue_size`` requests
│   ├── Overloaded            503  the estimated wait exceeds the request's timeout
│   ├── CircuitOpen           503  the model failed many times in a row; wait for a cool-off
│   ├── NotReady              503  the model is still loading, or could not be loaded
│   ├── Stopping              503  the server is stopping or has stopped
│   └── WorkerDead            503  the worker ended unexpectedly; ``start()`` recovers
├── DeadlineExceeded          504  the request timed out, waiting or running
├── StartError                500  raised in the cell: the server cannot start
│   ├── PortTaken             500  the requested port is already in use
│   └── LoaderFailed          500  the loader raised an exception, the ``__cause__``
├── OptionError               500  raised in the cell: an invalid option (also a ValueError)
│   ├── WrongCall             500  unknown option, wrong number of arguments (also a TypeError)
│   └── UnknownAttribute      500  an unknown attribute was set (also an AttributeError)
│       └── FrozenPolicy      500  an option of a policy was set; set a new policy instead
└── PolicyError               500  a policy broke its contract; ``Greedy`` replaces it
"""

from __future__ import annotations

import sys
import traceback
from dataclasses import FrozenInstanceError
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from .records import RequestRecord

#: folder of the code with frames that say nothing to a caller
PACKAGE = str(Path(__file__).parent)


def callers_frames(trace: TracebackType | None) -> TracebackType | None:
    """Return `trace` without the frames of this package, or with the first if it has no others."""
    frames = []
    while trace is not None:
        frames.append(trace)
        trace = trace.tb_next
    kept: TracebackType | None = None
    ours = False
    for frame in reversed(frames):
        code = frame.tb_frame.f_code
        # The `__init__` of a dataclass has no file. It is ours if the code that it calls is.
        made = ours and code.co_filename == "<string>" and code.co_name == "__init__"
        ours = made or code.co_filename.startswith(PACKAGE)
        if not ours:
            kept = TracebackType(kept, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return kept or (frames[0] if frames else None)


class ServeError(Exception):
    """The base class of all exceptions that this package raises on purpose."""

    #: the HTTP status of the response
    status: ClassVar[int] = 500
    #: the record of the request that it answers, if there is one
    record: RequestRecord | None = None
    #: the position of the item at fault in a list of inputs
    index: int | None = None

    @property
    def message(self) -> str:
        """The message for the client."""
        return str(self.args[0]) if self.args else type(self).__name__

    def _render_traceback_(self) -> list[str]:
        """Return the lines that IPython shows: the caller's own frames, and the message.

        The exception keeps all of its frames, for ``%debug`` and for a log.
        """
        trace = callers_frames(self.__traceback__)
        shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
        if shell is None:
            return traceback.format_exception(type(self), self, trace)
        lines: list[str] = shell.InteractiveTB.structured_traceback(type(self), self, trace)
        return lines


class RequestError(ServeError):
    """The request is at fault; a retry will not help."""

    status = 400


class BadRequest(RequestError):
    """The request is malformed: bad JSON, bad UTF-8, or an invalid header."""

    status = 400


class Unauthorized(RequestError):
    """The server has a token, and the request's token is missing or wrong."""

    status = 401


class Forbidden(RequestError):
    """The origin of the request is not in ``allow_origins``, or its host not in ``allow_hosts``."""

    status = 403


class NotAcceptable(RequestError):
    """The answer has no form that the header ``Accept`` allows."""

    status = 406


class NoSuchModel(RequestError, LookupError):
    """The server has no model of this name."""

    status = 404


class BodyTooSlow(RequestError):
    """The body took longer to arrive than the server's ``timeout``."""

    status = 408


class BodyTooLarge(RequestError):
    """The body has more bytes than the server's ``max_body_size``."""

    status = 413


class UnsupportedMediaType(RequestError):
    """The task does not take a body of this content type."""

    status = 415


class InvalidInput(RequestError):
    """The request is well formed, but the task rejects its input or one of its parameters."""

    status = 422

    @property
    def quotes_its_cause(self) -> bool:
        """True if the message repeats that of a library's exception."""
        return self.__cause__ is not None and str(self.__cause__) in self.message


class ModelFailed(ServeError):
    """The model failed on this input; its own exception is the ``__cause__``."""

    status = 500


class Unavailable(ServeError):
    """The server cannot take the request now; a retry may work after ``retry_after`` seconds."""

    status = 503

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class QueueFull(Unavailable):
    """The queue has ``max_queue_size`` requests."""


class Overloaded(Unavailable):
    """The estimated wait exceeds the request's timeout."""


class CircuitOpen(Unavailable):
    """The model failed many times in a row, so requests are rejected for a while."""


class NotReady(Unavailable):
    """The model is still loading, or could not be loaded."""


class Stopping(Unavailable):
    """The server is stopping or has stopped."""


class WorkerDead(Unavailable):
    """The worker ended unexpectedly; ``start()`` starts a new one."""


class DeadlineExceeded(ServeError):
    """The request timed out, while it waited (then it never runs) or while it ran."""

    status = 504


class StartError(ServeError):
    """The server cannot start; raised in the cell that starts it."""


class PortTaken(StartError):
    """The requested port is already in use."""


class LoaderFailed(StartError):
    """The loader raised an exception, which is the ``__cause__``."""


class OptionError(ServeError, ValueError):
    """An option is invalid; raised in the cell that gives it."""


class WrongCall(OptionError, TypeError):
    """A call has an unknown option, or too many or too few arguments."""


class UnknownAttribute(OptionError, AttributeError):
    """An attribute was set that does not exist or cannot be changed."""


class FrozenPolicy(UnknownAttribute, FrozenInstanceError):
    """An option of a policy was set; set a new policy on the server instead."""


class PolicyError(ServeError):
    """A policy broke its contract; ``Greedy`` replaces it until another policy is set."""
