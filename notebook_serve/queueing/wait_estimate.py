"""The estimated wait of a queue, by which a request that would time out is rejected."""

from __future__ import annotations

from collections import deque

from ..records import BatchRecord
from .online_cost import OnlineCost

#: the number of newest batches that the estimate is made from
RECENT = 20
#: the share of a request's time that the queue in front of it may take. The rest is for slow
#: batches, and for policies that do not run the oldest request first
USABLE = 0.7


class WaitEstimate:
    """An estimate of the seconds that waiting requests take, from the newest batches.

    The cost model divides the seconds of those batches into a part for each request (its share of
    the fixed cost) and a part for each token (padding included). So a long input counts for more
    than a short one, and the batches are those of the policy in effect. Not thread-safe: its owner
    holds a lock.
    """

    def __init__(self, online_cost: OnlineCost | None = None) -> None:
        #: waiting requests whose length is known, and the sum of their lengths
        self.known = 0
        self.tokens = 0
        self.online_cost = OnlineCost() if online_cost is None else online_cost
        self._newest: deque[BatchRecord] = deque(maxlen=RECENT)
        #: seconds per request, seconds per token, and tokens per request; None until it is needed
        self._rates: tuple[float, float, float] | None = None

    def add(self, length: int) -> None:
        """Count a waiting request of this length."""
        self.known += 1
        self.tokens += length

    def discard(self, length: int) -> None:
        """Count a request of this length that waits no more."""
        self.known -= 1
        self.tokens -= length

    def learn(self, batch: BatchRecord) -> None:
        """Keep a batch that ran. The cost model's owner lets that learn from it."""
        self._newest.append(batch)
        self._rates = None

    def seconds(self, depth: int) -> float | None:
        """Return the seconds that `depth` requests take to run; None before enough batches ran.

        Requests whose length is not known yet are taken to be as long as the newest that ran.
        """
        if len(self._newest) < RECENT:
            return None
        if self._rates is None:
            self._rates = self._compute_rates()
        per_request, per_token, mean = self._rates
        return depth * per_request + (self.tokens + (depth - self.known) * mean) * per_token

    def _compute_rates(self) -> tuple[float, float, float]:
        """Return seconds per request, seconds per token and tokens per request, from batches."""
        requests = sum(batch.size for batch in self._newest)
        tokens = sum(sum(batch.lengths) for batch in self._newest)
        seconds = sum(batch.seconds for batch in self._newest)
        by_token = sum(self._by_token(batch) for batch in self._newest)
        # All inputs may have the length 0; then no time is due to tokens.
        return (seconds - by_token) / requests, by_token / max(tokens, 1), tokens / requests

    def _by_token(self, batch: BatchRecord) -> float:
        """Return the part of a batch's seconds that the cost model puts down to its tokens."""
        cost = self.online_cost.latest
        whole = 0.0 if cost is None else cost(batch.lengths)
        if cost is None or not whole:
            return 0.0
        return batch.seconds * (1 - (cost.fixed + cost.per_item * batch.size) / whole)
