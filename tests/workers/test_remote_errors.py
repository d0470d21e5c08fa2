"""Exceptions that are sent to another process."""

from __future__ import annotations

import threading

from notebook_serve.workers.pickling import dumps, loads
from notebook_serve.workers.remote_errors import RemoteError, RemoteTraceback


class NeedsTwo(ValueError):
    """An error that takes more arguments than it keeps."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")
        self.a = a

    def __str__(self) -> str:
        return f"needs {self.args[0]}"


class Locked(Exception):
    """An error with a message that depends on an attribute which cannot be sent."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __str__(self) -> str:
        return f"locked: {self.lock.locked()}"


class Broken(Exception):
    """An error without a readable message."""

    def __str__(self) -> str:
        raise RuntimeError("no message")


def transfer(error: BaseException) -> Exception:
    """Return an error as another process would rebuild it."""
    remote: RemoteError = loads(*dumps(RemoteError.of(error)))
    return remote.rebuild()


def test_exceptions_keep_their_type_message_and_attributes() -> None:
    """Rebuild errors without calling their class, which may take other arguments."""
    for error in (NeedsTwo(1, 2), OSError(2, "missing", "a file"), KeyError("x"), StopIteration(4)):
        rebuilt = transfer(error)
        assert type(rebuilt) is type(error)
        assert (str(rebuilt), rebuilt.args) == (str(error), error.args)
        assert vars(rebuilt) == vars(error)


def test_an_exception_that_cannot_be_sent_keeps_its_name_and_message() -> None:
    """A new class stands in for it."""
    rebuilt = transfer(Locked())
    assert type(rebuilt) is not Locked
    assert (type(rebuilt).__name__, str(rebuilt)) == ("Locked", "locked: False")


def test_an_exception_without_a_message_keeps_its_name() -> None:
    """An error in ``__str__`` does not hide the error."""
    rebuilt = transfer(Broken())
    assert (type(rebuilt).__name__, str(rebuilt)) == ("Broken", "")


def test_an_exit_becomes_an_exception() -> None:
    """A `SystemExit` of the model must not end the notebook's thread."""
    rebuilt = transfer(SystemExit(3))
    assert isinstance(rebuilt, Exception)
    assert (type(rebuilt).__name__, str(rebuilt)) == ("SystemExit", "3")


def test_the_cause_is_the_traceback_of_the_other_process() -> None:
    """The text has the lines of the model's own code."""

    def fail_in_the_model() -> None:
        raise ValueError("no such token")

    try:
        fail_in_the_model()
    except ValueError as error:
        rebuilt = transfer(error)
    assert isinstance(rebuilt.__cause__, RemoteTraceback)
    assert "in the worker process:" in str(rebuilt.__cause__)
    assert "in fail_in_the_model" in str(rebuilt.__cause__)
