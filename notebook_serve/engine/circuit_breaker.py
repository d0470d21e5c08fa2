"""The circuit breaker: rejects requests for a while after the model only failed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

BreakerState = Literal["closed", "open", "probing"]


@dataclass
class CircuitBreaker:
    """Opens after `threshold` failures in a row, and lets one probe through after a cool-off.

    Only failures of the model count, not invalid inputs, and one success closes it. So bad inputs
    among good ones never open it. Before it opens, the batch runner tests the model with an input
    that it has answered, and counts an answer as a success. The cool-off doubles with each probe
    that fails, up to `longest` seconds. Times are absolute, on the caller's clock.
    """

    threshold: int = 10
    cool_off: float = 1.0
    longest: float = 60.0
    state: BreakerState = "closed"
    #: failures since the last success
    failures: int = 0
    _wait: float = 0.0
    _until: float = 0.0

    def refuses(self, now: float) -> float | None:
        """Return the seconds until the next probe; None if a request may be taken now."""
        if self.state == "open" and now < self._until:
            return self._until - now
        # A probe whose client disconnects never reports its outcome; do not wait for it for ever.
        if self.state == "probing" and now < self._until:
            return self._until - now
        return None

    def taken(self, now: float) -> None:
        """Count a request that was taken: unless the breaker is closed, it is the probe."""
        if self.state != "closed":
            self.state = "probing"
            self._until = now + self._wait

    def ran(self, succeeded: int, failed: int, now: float) -> bool:
        """Count the successes and failures of a batch; return True if the state changed."""
        before = self.state
        if succeeded:
            self.state, self.failures, self._wait = "closed", 0, 0.0
        elif failed:
            self.failures += failed
            if self.failures >= self.threshold:
                self.state = "open"
                self._wait = min(self.longest, max(self.cool_off, 2 * self._wait))
                self._until = now + self._wait
        return self.state != before

    def outlook(self, now: float) -> str:
        """Return in a sentence what happens next to requests for a model that fails."""
        wait = self.refuses(now)
        if self.state == "closed":
            if not self.failures:
                return "An answer ends this."
            so_far = f"{self.failures} of {self.threshold} failures in a row so far"
            return f"An answer ends this; otherwise the circuit breaker opens ({so_far})."
        if wait is None:
            return "The next request tries the model again; an answer ends this."
        seconds = max(1, math.ceil(wait))
        if self.state == "probing":
            return f"One request tries the model; others are rejected for at most {seconds} s."
        return f"Requests are rejected (circuit breaker); one is tried again in {seconds} s."
