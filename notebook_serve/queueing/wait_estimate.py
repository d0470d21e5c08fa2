"""How long the work takes that waits: what a refusal by predicted wait goes by."""

from __future__ import annotations

from collections import deque

from ..records import BatchRecord
from .online_cost import OnlineCost

#: how many of the newest batches tell what requests cost now
RECENT = 20
#: the share of a request's time that the work in front of it may take; the rest is for what no
#: estimate sees: a batch that takes longer than others, and a policy with an order of its own
USABLE = 0.7


class WaitEstimate:
    """The lengths of what waits, and the seconds that such work took lately.

    The seconds of the newest batches are divided by the fitted law into a part for each request
    (the fixed cost, shared) and one for each token (padding included), so that a long input in
    front counts for more than a short one, and a policy's own batches are what is reckoned with.
    Not thread-safe: its owner holds a lock.
    """

    def __init__(self) -> None:
        #: waiting requests whose length is known, and the sum of their lengths
        self.known = 0
        self.tokens = 0
        self._law = OnlineCost()
        self._newest: deque[BatchRecord] = deque(maxlen=RECENT)
        #: what the newest took for each request and for each token, and the tokens of a request;
        #: None while that has not been reckoned, which is done when somebody asks
        self._rates: tuple[float, float, float] | None = None

    def add(self, length: int) -> None:
        """A request of this length waits."""
        self.known += 1
        self.tokens += length

    def discard(self, length: int) -> None:
        """One does not any more."""
        self.known -= 1
        self.tokens -= length

    def learn(self, batch: BatchRecord) -> None:
        """A batch ran."""
        self._law.learn(batch)
        self._newest.append(batch)
        self._rates = None

    def seconds(self, depth: int) -> float | None:
        """Seconds that `depth` waiting requests take to run; None before enough batches ran.

        Those of them whose length is not known yet are taken to be as long as the newest.
        """
        if len(self._newest) < RECENT:
            return None
        if self._rates is None:
            self._rates = self._divided()
        per_request, per_token, mean = self._rates
        return depth * per_request + (self.tokens + (depth - self.known) * mean) * per_token

    def _divided(self) -> tuple[float, float, float]:
        """Of the newest batches: seconds per request, seconds per token, tokens per request."""
        requests = sum(batch.size for batch in self._newest)
        tokens = sum(sum(batch.lengths) for batch in self._newest)
        seconds = sum(batch.seconds for batch in self._newest)
        by_token = sum(self._by_token(batch) for batch in self._newest)
        # Inputs may all have the length 0, and then none of the time is theirs.
        return (seconds - by_token) / requests, by_token / max(tokens, 1), tokens / requests

    def _by_token(self, batch: BatchRecord) -> float:
        """How much of what a batch took the law puts down to its tokens."""
        law = self._law.latest
        whole = 0.0 if law is None else law(batch.lengths)
        if law is None or not whole:
            return 0.0
        return batch.seconds * (1 - (law.fixed + law.per_item * batch.size) / whole)
