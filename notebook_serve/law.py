"""A cost model kept in step with the batches that run."""

from __future__ import annotations

from typing import Final

from .cost import FEW, MOST_ERROR, CostModel, Fit
from .jobs import BatchRecord

#: about how many batches are remembered
MEMORY: Final = 200
#: batches, and seconds of running, after which the law is fitted anew: a fit takes a third of a
#: millisecond, which must not be felt where a batch takes less
BATCHES, SECONDS = 20, 0.1
#: how much the newest batch counts in the error that is watched
NEWEST = 0.05
#: a batch that takes so many times what the law says was held up, and says nothing of the law
HELD_UP = 2.0


class Law:
    """The law that the newest batches follow.

    `latest` is good for batches like those of late; `trusted` for any, because the batches that it
    was fitted to told its terms apart. Either is None until there is one, and again when it comes
    out wrong too often, as after a change of model or machine: then all is learned anew.
    """

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self.latest: CostModel | None = None
        self.trusted: CostModel | None = None
        self._fit = Fit(MEMORY)
        #: since the last fit
        self._batches = 0
        self._seconds = 0.0
        #: the mean error of late, as a share
        self._error = 0.0

    def learn(self, batch: BatchRecord) -> None:
        """A batch ran; one that had to be run again in parts tells nothing."""
        if batch.retries:
            return
        size, longest, seconds = batch.size, max(batch.lengths), batch.seconds
        law = self.trusted or self.latest
        # Without a law, or with one of a clock too coarse to see a batch, it is as expected.
        expected = (law and law.seconds(size, longest)) or seconds
        if expected:
            # One batch may be held up by anything; only several tell of a change.
            self._error += NEWEST * (min(1.0, abs(seconds / expected - 1)) - self._error)
            if self._error > MOST_ERROR:
                self._forget()
            elif seconds <= HELD_UP * expected:
                self._fit.add(size, longest, seconds, expected)
        self._batches += 1
        self._seconds += seconds
        if self._fit.batches >= FEW and self._batches >= BATCHES and self._seconds >= SECONDS:
            self._refit()

    def _refit(self) -> None:
        self._batches, self._seconds = 0, 0.0
        solved = self._fit.solve()
        if solved.error > MOST_ERROR:
            return
        self.latest = solved
        if not solved.warnings:
            self.trusted, self._error = solved, 0.0
