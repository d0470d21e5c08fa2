"""Health of a model: its failures and errors, and the answers that could not be sent."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace

from ..errors import ModelFailed
from ..queueing.stats import LastError
from ..records import ErrorRecord
from .circuit_breaker import CircuitBreaker
from .failures import BatchFailures, FailureStreak, NewestErrors, message_of
from .requests import Ending
from .status import Status

logger = logging.getLogger("notebook_serve")


class Health:
    """Counts failures in a row, keeps the newest errors, and logs when the model turns failing."""

    def __init__(self, name: str, status: Status) -> None:
        self._name, self._status = name, status
        self.batches = BatchFailures()
        self.reset()

    def reset(self) -> None:
        """Forget all failures and errors."""
        self._model = FailureStreak()
        #: answers on their way to clients, after the model has given them
        self._sending = FailureStreak()
        self._errors = NewestErrors(self._name)

    @property
    def is_failing(self) -> bool:
        """Return True if the newest requests failed, or the newest answers could not be sent."""
        return self._model.failing or self._sending.failing

    def note(self, error: BaseException, request: str = "") -> None:
        """Keep an error to be shown. The lock must be held."""
        self._errors.add(error, time.monotonic(), time.time(), request)

    def learn(self, answered: int, failures: Sequence[Ending]) -> None:
        """Count the answers of a batch, and note its failures."""
        with self._status.lock:
            for ending in failures:
                self.note(ending.result.__cause__ or ending.result, str(ending.entry.id))
            turn = self._model.ran(answered, len(failures))
        if turn == "failing":
            self._log_failing(failures[-1])
        elif turn == "recovered":
            logger.info("%s: the model answers again", self._name)

    def _log_failing(self, ending: Ending) -> None:
        """Log the newest error of a failing model, with the traceback of its cause."""
        cause = ending.result.__cause__ or ending.result
        said = f"{type(cause).__name__}: {message_of(cause)}"
        logger.error(
            "%s: the model failed on %d requests in a row; the newest (request %d) raised %s",
            *(self._name, self._model.count, ending.entry.id, said),
            exc_info=cause,
        )

    def answer_failed(self, error: ModelFailed, request: str) -> None:
        """Count an answer that could not be sent to its client."""
        with self._status.lock:
            self.note(error.__cause__ or error, request)
            turn = self._sending.ran(0, 1)
        if turn == "failing":
            logger.error(
                "%s: %d answers in a row could not be sent; the newest: %s",
                *(self._name, self._sending.count, message_of(error)),
            )

    def answer_sent(self) -> None:
        """Count an answer that reached its client, or is about to be sent."""
        sending = self._sending
        if sending.answered and not sending.count:
            return  # as nearly always: nothing changes, and no lock is needed
        with self._status.lock:
            turn = sending.ran(1, 0)
        if turn == "recovered":
            logger.info("%s: answers can be sent again", self._name)

    @property
    def last_error(self) -> LastError | None:
        """The newest error since the start, if there was any."""
        newest = self._errors.last
        return None if newest is None else LastError.of(newest, time.monotonic())

    def failing(self, breaker: CircuitBreaker) -> LastError | None:
        """Return the newest error with the outlook of `breaker`, if the model is failing."""
        error = self.last_error
        if not self.is_failing or error is None:
            return None
        times = max(self._model.count, self._sending.count)
        return replace(error, times=times, next=breaker.outlook(time.monotonic()))

    def errors(self) -> list[ErrorRecord]:
        """Return the newest errors since the start, newest first."""
        with self._status.lock:
            return self._errors.newest_first()
