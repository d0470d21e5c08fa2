"""Failures of the model: when it counts as failing, and its newest errors.

The circuit breaker (`circuit_breaker.py`) decides which requests are taken; this only reports.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Literal

from ..records import ErrorRecord

#: failures in a row after which a model that has answered before counts as failing
FAILING_AFTER = 3
#: number of different errors that are kept
KEEP_ERRORS = 50
#: number of characters of an error's message that are kept
MOST_MESSAGE = 500

Turn = Literal["", "failing", "recovered"]


@dataclass
class FailureStreak:
    """A count of the failures in a row of a model, batch by batch.

    The model is failing when its newest `after` requests failed, or all of them where fewer ran:
    a model that never gave an answer is failing from its first failure on. One answer ends it.
    Only answers and failures count: no rejected inputs, timeouts or cancelled requests. Where a
    batch has both, its answers count as the newer ones, so one bad input does not cause it.
    """

    after: int = FAILING_AFTER
    #: failures since the last answer
    count: int = 0
    #: True once the model gave an answer
    answered: bool = False
    _logged: bool = False

    @property
    def failing(self) -> bool:
        """Return True if the newest requests failed."""
        return self.count >= (self.after if self.answered else 1)

    def ran(self, answered: int, failed: int) -> Turn:
        """Count the answers and failures of a batch; return the turn to be logged, if any.

        That is ``failing`` at failure number `after` in a row, and ``recovered`` at the answer that
        ends it. A single failure is reported to its own client only.
        """
        if answered:
            logged, self._logged = self._logged, False
            self.count, self.answered = 0, True
            return "recovered" if logged else ""
        self.count += failed
        if self._logged or self.count < self.after:
            return ""
        self._logged = True
        return "failing"


@dataclass
class BatchFailures:
    """A count of the batches in a row that failed, while each of their inputs alone was answered.

    Without this the model's author would not notice: all answers are right, and as slow as without
    batching.
    """

    after: int = FAILING_AFTER
    count: int = 0
    #: the error of the newest of them
    error: str = ""

    def failed(self, error: Exception) -> None:
        """Note the error of a batch of several inputs."""
        self.error = f"{type(error).__name__}: {message_of(error)}"

    def ran(self, size: int, retries: int, failures: int) -> None:
        """Count a batch by its number of extra runs, and of inputs that failed alone."""
        if size < 2:
            return
        alone = retries == 2 * (size - 1)  # it was halved until each input was alone
        self.count = self.count + 1 if alone and not failures else 0

    def warning(self, name: str, advice: str = "") -> str:
        """Return a sentence for the author of the model; empty while batches run."""
        if self.count < self.after:
            return ""
        return (
            f"{name} fails on batches and answers single inputs: its batches are run one by one"
            f"{advice}. The newest batch raised {self.error}"
        )


@dataclass
class NewestErrors:
    """The newest `keep` errors of a model; one that repeats the last is counted with it."""

    model: str
    keep: int = KEEP_ERRORS
    _errors: deque[ErrorRecord] = field(default_factory=deque)

    def add(self, error: BaseException, at: float, when: float, request: str = "") -> None:
        """Note an error with its time on the monotonic and on the wall clock, and its request."""
        kind, message = type(error).__name__, message_of(error)
        made = ErrorRecord(kind, message, at, when, 1, request, self.model)
        last = self._errors[-1] if self._errors else None
        if last and (last.type, last.message) == (made.type, made.message):
            self._errors[-1] = replace(made, times=last.times + 1)
            return
        self._errors.append(made)
        while len(self._errors) > self.keep:
            self._errors.popleft()

    @property
    def last(self) -> ErrorRecord | None:
        """The newest error, if there was any."""
        return self._errors[-1] if self._errors else None

    def newest_first(self) -> list[ErrorRecord]:
        """Return the errors, the newest first."""
        return list(reversed(self._errors))


def message_of(error: BaseException) -> str:
    """Return the message of an exception, cut if it is long: it may quote a client's input."""
    try:
        text = str(error)
    except Exception as broken:
        text = f"(its message cannot be read: {type(broken).__name__})"
    return text if len(text) <= MOST_MESSAGE else text[:MOST_MESSAGE] + "…"
