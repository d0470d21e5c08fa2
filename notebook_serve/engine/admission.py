"""Admission: the decision whether the queue takes a request, and when to come back if not."""

from __future__ import annotations

import math
import time

from ..errors import CircuitOpen, NotReady, Overloaded, QueueFull, Stopping, Unavailable, WorkerDead
from ..queueing.wait_estimate import USABLE
from .circuit_breaker import CircuitBreaker
from .requests import Entry, OpenRequests
from .status import Status

#: most seconds that a rejection tells a client to wait
MOST_RETRY_AFTER = 60


class Admission:
    """Rejects requests that the engine cannot take, that do not fit, or that would time out.

    `workers` is the number of batches that can run at the same time. With `refuse_late` a request
    is rejected where the estimated wait exceeds its time.
    """

    def __init__(
        self,
        status: Status,
        requests: OpenRequests,
        workers: int,
        max_queue_size: int,
        refuse_late: bool,
    ) -> None:
        self.max_queue_size = max_queue_size
        self.refuse_late = refuse_late
        self._status, self._requests, self._workers = status, requests, workers
        self.breaker = CircuitBreaker()

    def rejection(self, count: int, now: float, patience: float) -> Unavailable | None:
        """Return the reason to reject `count` requests that have `patience` seconds, if any.

        The lock must be held.
        """
        if self._status.state != "ready" or self.breaker.state != "closed":
            closed = self.closed()
            if closed is not None:
                return closed
        depth = self._requests.recorder.depth
        if depth + count > self.max_queue_size:
            wait = self.retry_after(now)
            return QueueFull(
                f"{depth} requests wait, and the queue holds {self.max_queue_size}; "
                f"try again in {wait} s",
                wait,
            )
        # In an empty queue there is nothing to wait for.
        if depth and self.refuse_late and not self._status.paused:
            return self._overload(depth, count, patience)
        return None

    def closed(self) -> Unavailable | None:
        """Return the reason why no request can be taken at all, whatever the queue holds."""
        state, cause = self._status.state, self._status.cause
        if state == "ready":
            return self._open_circuit()
        if state == "loading":
            return NotReady("the model is still loading; try again soon", 2)
        if state == "failed":
            return NotReady(f"the model could not be loaded: {cause}", MOST_RETRY_AFTER)
        if state == "dead":
            return WorkerDead(str(cause), MOST_RETRY_AFTER)
        if state == "new":
            return NotReady("the server has not been started; call start()", 2)
        again = "; call start()" if state == "stopped" else ""
        return Stopping(f"the server is {state}{again}", 2)

    def _open_circuit(self) -> CircuitOpen | None:
        wait = self.breaker.refuses(time.monotonic())
        if wait is None:
            return None
        seconds = math.ceil(wait)
        return CircuitOpen(
            f"the model failed {self.breaker.failures} times in a row; it is tried again "
            f"in {seconds} s",
            max(1, seconds),
        )

    def _overload(self, depth: int, count: int, patience: float) -> Overloaded | None:
        """Return a rejection if `count` requests behind `depth` others would time out."""
        seconds = self._seconds(depth + count)
        if seconds is None or seconds <= USABLE * patience:
            return None
        wait = max(1, min(MOST_RETRY_AFTER, math.ceil(seconds - USABLE * patience)))
        return Overloaded(
            f"{depth} requests wait; with them in front this one takes about {seconds:.2g} s, "
            f"and it has {patience:g} s; try again in {wait} s",
            wait,
        )

    def _seconds(self, depth: int) -> float | None:
        """Return how long all workers take for `depth` requests; None where that is unknown."""
        seconds = self._requests.estimate.seconds(depth)
        return None if seconds is None else seconds / self._workers

    def retry_after(self, now: float) -> int:
        """Return the whole seconds until the queue has run. The lock must be held."""
        depth = self._requests.recorder.depth
        seconds = self._seconds(depth)
        if seconds is None:
            # This rate counts the seconds in which there was nothing to do.
            return retry_after(depth, self._requests.recorder.drain_rate(now))
        return retry_after(depth, depth / max(seconds, 1e-9))

    def dropped(self, entry: Entry, wait: int) -> Overloaded:
        """Return the rejection of a request that the policy dropped."""
        waited = time.monotonic() - entry.arrived
        return Overloaded(
            f"after {waited:.2g} s in the queue the policy dropped this request, because the "
            f"queue is too long; try again in {wait} s",
            wait,
        )


def retry_after(depth: int, rate: float) -> int:
    """Return the whole seconds until `depth` requests have run at `rate` a second; at least 1."""
    if rate <= 0:
        return 1
    return max(1, min(MOST_RETRY_AFTER, math.ceil(depth / rate)))
