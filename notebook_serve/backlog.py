"""How long the work takes that waits: what a refusal by predicted wait goes by."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from .cost import MOST_ERROR, CostModel, Fit
from .jobs import BatchRecord

#: how many of the newest batches tell what requests cost now
RECENT = 20
#: about how many batches the law is fitted to
MEMORY = 200
#: seconds of running after which the law is fitted anew; a fit takes a third of a millisecond
REFIT = 0.25
#: the share of a request's time that the work in front of it may take; the rest is for what no
#: estimate sees: a batch that takes longer than others, and a policy with an order of its own
USABLE = 0.7


@dataclass(frozen=True, slots=True)
class _Share:
    """What one batch took and held, and how much of it the law puts down to its tokens."""

    seconds: float
    requests: int
    tokens: int
    by_token: float


class Backlog:
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
        self._fit = Fit(MEMORY)
        self._law: CostModel | None = None
        self._since_fit = math.inf
        self._newest: deque[_Share] = deque(maxlen=RECENT)

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
        size, tokens = batch.size, sum(batch.lengths)
        longest = max(batch.lengths)
        law = self._law
        expected = batch.seconds if law is None else law.seconds(size, longest)
        self._fit.add(size, longest, batch.seconds, expected)
        self._since_fit += batch.seconds
        if self._fit.batches >= RECENT and self._since_fit >= REFIT:
            solved = self._fit.solve()
            self._law = law = solved if solved.error <= MOST_ERROR else None
            self._since_fit = 0.0
        by_token = 0.0
        if law is not None:
            whole = law.seconds(size, longest)
            shared = law.fixed + law.per_item * size
            by_token = batch.seconds * (1 - shared / whole) if whole else 0.0
        self._newest.append(_Share(batch.seconds, size, tokens, by_token))

    def seconds(self, depth: int) -> float | None:
        """Seconds that `depth` waiting requests take to run; None before enough batches ran.

        Those of them whose length is not known yet are taken to be as long as the newest.
        """
        newest = self._newest
        if len(newest) < RECENT:
            return None
        requests = sum(share.requests for share in newest)
        tokens = sum(share.tokens for share in newest)
        by_token = sum(share.by_token for share in newest)
        by_request = sum(share.seconds for share in newest) - by_token
        expected = self.tokens + (depth - self.known) * tokens / requests
        return depth * by_request / requests + expected * by_token / tokens
