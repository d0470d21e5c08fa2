"""Everything that can go wrong, as one tree; each class knows the HTTP status it is answered with.

ServeError                    500  the root: catch this to catch them all
├── RequestError              400  the request is at fault; sending it again will not help
│   ├── BadRequest            400  malformed: bad JSON, bad UTF-8, a header that makes no sense
│   ├── Unauthorized          401  a token is set, and missing or wrong
│   ├── Forbidden             403  a page that may not ask, or a name that is not this server's
│   ├── NotAcceptable         406  the answer is not what ``Accept`` asks for
│   ├── NoSuchModel           404  the server has no model of this name (a LookupError too)
│   ├── BodyTooSlow           408  the body took longer to arrive than the server's timeout
│   ├── BodyTooLarge          413  more bytes than ``max_body_size``
│   ├── UnsupportedMediaType  415  a content type that the task cannot take
│   └── InvalidInput          422  well formed, but the task rejects it
├── ModelFailed               500  the model failed on this input (and only on this input)
├── Unavailable               503  not now; ``retry_after`` says when to try again
│   ├── QueueFull             503  as many requests wait as ``max_queue_size`` allows
│   ├── Overloaded            503  what waits already would take longer than the request's time
│   ├── CircuitOpen           503  the model failed many times in a row; it is left alone
│   ├── NotReady              503  the model is still loading, or could not be loaded
│   ├── Stopping              503  the server is stopping or has stopped
│   └── WorkerDead            503  the worker ended unexpectedly; ``start()`` recovers
├── DeadlineExceeded          504  the request's time ran out, waiting or running
├── StartError                500  raised in the cell: the server could not start
│   ├── PortTaken             500  somebody else listens on the port that was asked for
│   └── LoaderFailed          500  the loader raised; the cause is chained
├── OptionError               500  raised in the cell: an option makes no sense (a ValueError too)
│   ├── WrongCall             500  an unknown option, or too many arguments (a TypeError too)
│   └── UnknownAttribute      500  an unknown attribute was set (an AttributeError too)
│       └── FrozenPolicy      500  an option of a policy was set; set another policy instead
└── PolicyError               500  a policy broke its contract; the queue goes on under ``Greedy``
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

#: where the frames lie that are no concern of a caller
PACKAGE = str(Path(__file__).parent)


def callers_frames(trace: TracebackType | None) -> TracebackType | None:
    """Return `trace` without the frames of this package; as it is where it has no others."""
    frames = []
    while trace is not None:
        frames.append(trace)
        trace = trace.tb_next
    kept: TracebackType | None = None
    ours = False
    for frame in reversed(frames):
        code = frame.tb_frame.f_code
        # The method `__init__` of a dataclass has no file; it is ours if what it calls is.
        made = ours and code.co_filename == "<string>" and code.co_name == "__init__"
        ours = made or code.co_filename.startswith(PACKAGE)
        if not ours:
            kept = TracebackType(kept, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return kept or (frames[0] if frames else None)


class ServeError(Exception):
    """The root of everything this package raises on purpose."""

    #: the HTTP status that this error is answered with
    status: ClassVar[int] = 500
    #: how the request fared that it answers, where there was one
    record: RequestRecord | None = None
    #: the position of the item at fault, where a list was sent
    index: int | None = None

    @property
    def message(self) -> str:
        """The sentence that the client reads."""
        return str(self.args[0]) if self.args else type(self).__name__

    def _render_traceback_(self) -> list[str]:
        """Return the lines that IPython shows: the caller's own frames, and the sentence.

        The exception keeps all of its frames, for ``%debug`` and for a log.
        """
        trace = callers_frames(self.__traceback__)
        shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
        if shell is None:
            return traceback.format_exception(type(self), self, trace)
        lines: list[str] = shell.InteractiveTB.structured_traceback(type(self), self, trace)
        return lines


class RequestError(ServeError):
    """The request is at fault; sending the same one again will not help."""

    status = 400


class BadRequest(RequestError):
    """The request is malformed: bad JSON, bad UTF-8, or a header that makes no sense."""

    status = 400


class Unauthorized(RequestError):
    """The server has a token, and the request has none or another."""

    status = 401


class Forbidden(RequestError):
    """The request comes from a page that may not ask, or calls the server by a wrong name."""

    status = 403


class NotAcceptable(RequestError):
    """The answer is no file of the kind that the header ``Accept`` asks for."""

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
    """The task cannot take a body of this content type."""

    status = 415


class InvalidInput(RequestError):
    """The request is well formed, but the task rejects its input or one of its parameters."""

    status = 422

    @property
    def quotes_its_cause(self) -> bool:
        """Whether the sentence has the words of a library's exception, and is not all ours."""
        return self.__cause__ is not None and str(self.__cause__) in self.message


class ModelFailed(ServeError):
    """The model failed on this input; its own exception is the ``__cause__``."""

    status = 500


class Unavailable(ServeError):
    """The server cannot take the request now; ``retry_after`` says in whole seconds when it may."""

    status = 503

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class QueueFull(Unavailable):
    """As many requests wait as ``max_queue_size`` allows."""


class Overloaded(Unavailable):
    """What waits already would take longer than this request has time."""


class CircuitOpen(Unavailable):
    """The model failed many times in a row, so it is left alone for a while."""


class NotReady(Unavailable):
    """The model is still loading, or could not be loaded."""


class Stopping(Unavailable):
    """The server is stopping or has stopped."""


class WorkerDead(Unavailable):
    """The worker ended unexpectedly; ``start()`` makes a new one."""


class DeadlineExceeded(ServeError):
    """The request's time ran out, while it waited (then it never ran) or while it ran."""

    status = 504


class StartError(ServeError):
    """The server could not start; raised in the cell that asked for it."""


class PortTaken(StartError):
    """Somebody else listens on the port that was asked for."""


class LoaderFailed(StartError):
    """The loader raised; its own exception is the ``__cause__``."""


class OptionError(ServeError, ValueError):
    """An option makes no sense; raised in the cell that gave it."""


class WrongCall(OptionError, TypeError):
    """A call has an option that does not exist, or too many or too few arguments."""


class UnknownAttribute(OptionError, AttributeError):
    """An attribute that does not exist, or cannot be changed, was set."""


class FrozenPolicy(UnknownAttribute, FrozenInstanceError):
    """An option of a policy was set; policies cannot be changed, but replaced."""


class PolicyError(ServeError):
    """A policy broke its contract; the queue goes on under ``Greedy`` until another is set."""
