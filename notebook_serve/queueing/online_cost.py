"""A cost model kept in step with the batches that run."""

from __future__ import annotations

import math
from collections import deque
from typing import Final

from ..records import BatchRecord
from .cost_model import FEW, MOST_ERROR, CostModel, Fit

#: a batch: its size, its longest input, and its seconds
Batch = tuple[int, int, float]

#: about how many batches are remembered
MEMORY: Final = 200
#: batches, and seconds of running, after which the law is fitted anew: a fit takes a third of a
#: millisecond, which must not be felt where a batch takes less
BATCHES, SECONDS = 20, 0.1
#: the standard error of the mean seconds of batches, as a share, above which there is no law yet
VAGUE = 0.1
#: how much the newest batch counts in the error that is watched
NEWEST = 0.05
#: how far such a mean of a law's own noise, of 1, may go without telling of a change: four
#: standard deviations
CHANCE = 4 * math.sqrt(NEWEST / (2 - NEWEST))
#: before there is a law, so many of the newest batches are kept to find one in
EARLY: Final = 100
#: a batch that takes so many times what the law says was held up, and says nothing of the law
HELD_UP = 2.0


class OnlineCost:
    """The law that the newest batches follow.

    `latest` is good for batches like those of late; `trusted` for any, because the batches that it
    was fitted to told its terms apart. Either is None until there is one, and again when what runs
    takes longer or less long than it says on average, as after a change of model or machine: then
    all is learned anew. That single batches vary is no reason against it: of enough of them the
    mean is known, and on a fast device, where a batch takes as long as the threads beside it let
    it, they vary a lot.
    """

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self.latest: CostModel | None = None
        self.trusted: CostModel | None = None
        self._fit = Fit(MEMORY)
        self._early: deque[Batch] = deque(maxlen=EARLY)
        #: since the last fit
        self._batches = 0
        self._seconds = 0.0
        #: how much longer than said they took of late, on average, as a share
        self._error = 0.0

    def learn(self, batch: BatchRecord) -> None:
        """A batch ran; one that had to be run again in parts tells nothing."""
        if batch.retries:
            return
        size, longest, seconds = batch.size, max(batch.lengths), batch.seconds
        law = self.trusted or self.latest
        if law is not None:
            self._compare(law, size, longest, seconds)
        elif seconds:  # else the clock is too coarse to see the batch
            self._early.append((size, longest, seconds))
        self._batches += 1
        self._seconds += seconds
        known = len(self._early) or self._fit.batches
        if known >= FEW and self._batches >= BATCHES and self._seconds >= SECONDS:
            self._refit()

    def _compare(self, law: CostModel, size: int, longest: int, seconds: float) -> None:
        """Learn from a batch that there is an expectation of."""
        expected = law.seconds(size, longest) or seconds or 1.0
        # One batch may be held up by anything; only several tell of a change.
        self._error += NEWEST * (min(1.0, seconds / expected - 1) - self._error)
        if abs(self._error) > max(MOST_ERROR, CHANCE * law.error):
            self._forget()
        elif seconds <= HELD_UP * expected:
            self._fit.add(size, longest, seconds, expected)

    def _first(self) -> Fit:
        """A fit to the early batches, each weighed by what the one before expects of it."""
        # Weighed by its own seconds, a batch that happened to be fast would count for more.
        fit, expected = Fit(MEMORY), [seconds for _, _, seconds in self._early]
        for _ in range(3):
            fit = Fit(MEMORY)
            known = list(zip(self._early, expected, strict=True))
            kept = [each for each in known if each[0][2] <= HELD_UP * each[1]]
            # Where many were "held up", that is what this model is like.
            for (size, longest, seconds), when in kept if len(kept) > 0.9 * len(known) else known:
                fit.add(size, longest, seconds, when)
            model = fit.solve()
            expected = [model.seconds(size, longest) for size, longest, _ in self._early]
        return fit

    def _refit(self) -> None:
        self._batches, self._seconds = 0, 0.0
        if self._early:
            self._fit = self._first()
        if not self._fit.batches:
            return
        solved = self._fit.solve()
        # A mean of n is off by the square root of n less.
        if solved.error > VAGUE * math.sqrt(min(self._fit.batches, MEMORY)):
            return
        self.latest = solved
        self._early.clear()
        if self._fit.tells_apart:
            self.trusted, self._error = solved, 0.0
