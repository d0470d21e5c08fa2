"""Failures of the model: when it is called failing, and the newest errors with their messages.

The circuit breaker (`circuit_breaker.py`) decides which requests are taken; this only tells what
happened.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Literal

from ..records import ErrorRecord

#: so many requests in a row must fail before a model that has answered is called failing
FAILING_AFTER = 3
#: how many different errors are kept
KEEP_ERRORS = 50
#: characters of an error's message that are kept
MOST_MESSAGE = 500

Turn = Literal["", "failing", "recovered"]


@dataclass
class FailureStreak:
    """Counts the failures in a row of a model, batch by batch.

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
    _told: bool = False

    @property
    def failing(self) -> bool:
        """Return True if the newest requests failed."""
        return self.count >= (self.after if self.answered else 1)

    def ran(self, answered: int, failed: int) -> Turn:
        """Count the answers and failures of a batch; return what the log should be told.

        That is ``failing`` at the failure number `after` in a row, and ``recovered`` at the answer
        that ends it. A single failure is told to its own client only.
        """
        if answered:
            told, self._told = self._told, False
            self.count, self.answered = 0, True
            return "recovered" if told else ""
        self.count += failed
        if self._told or self.count < self.after:
            return ""
        self._told = True
        return "failing"


@dataclass
class BatchFailures:
    """Counts the batches in a row that failed, while each of their inputs alone was answered.

    The model's author would not notice: all answers are right, and as slow as without batching.
    """

    after: int = FAILING_AFTER
    count: int = 0
    #: what the newest of them raised
    said: str = ""

    def failed(self, error: Exception) -> None:
        """Note what several inputs together raised."""
        self.said = f"{type(error).__name__}: {message_of(error)}"

    def ran(self, size: int, retries: int, failures: int) -> None:
        """Count a batch by how many calls more it took, and how many of its inputs failed."""
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
            f"{advice}. The newest batch raised {self.said}"
        )


@dataclass
class NewestErrors:
    """The newest `keep` errors of a model; one that repeats the last is counted with it."""

    model: str
    keep: int = KEEP_ERRORS
    _errors: deque[ErrorRecord] = field(default_factory=deque)

    def add(self, error: BaseException, at: float, when: float, request: str = "") -> None:
        """Note an error, its time on the monotonic and on the wall clock, and its request."""
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
    """Return what an exception says, cut where it is long: it may quote a client's whole input."""
    try:
        text = str(error)
    except Exception as broken:
        text = f"(its message cannot be read: {type(broken).__name__})"
    return text if len(text) <= MOST_MESSAGE else text[:MOST_MESSAGE] + "…"
