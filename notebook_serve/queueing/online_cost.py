"""The online cost model: a cost model that follows the batches that run."""

from __future__ import annotations

import copy
import math
from collections import deque
from typing import Final

from ..records import BatchRecord
from .cost_model import FEW, MOST_ERROR, CostModel, Fit

#: a batch: its size, its longest input, and its seconds
Batch = tuple[int, int, float]

#: about how many batches are remembered
MEMORY: Final = 200
#: batches, and seconds of running, between two fits. A fit takes a third of a millisecond, which
#: must not matter where a batch takes less
BATCHES, SECONDS = 20, 0.1
#: the relative standard error of the mean seconds above which a fit is not used
VAGUE = 0.1
#: the weight of the newest batch in the moving mean of the error
NEWEST = 0.05
#: the largest moving mean that noise of 1 explains without a change: four standard deviations
CHANCE = 4 * math.sqrt(NEWEST / (2 - NEWEST))
#: the number of newest batches kept for the first fit
EARLY: Final = 100
#: a batch that takes so many times the expected seconds was held up, and is not fitted
HELD_UP = 2.0


class OnlineCost:
    """A cost model that is fitted to the newest batches, again and again.

    `latest` is good for batches like the newest ones; `trusted` for any batch, because the batches
    that it was fitted to tell its terms apart. Each is None until there is one. Both are None again
    after batches took longer or shorter on average than expected, as after a change of model or
    machine: then all is learned anew. Single batches may vary. Enough of them give a known mean,
    and on a fast device, where other threads delay a batch, they vary a lot.
    """

    def __init__(self) -> None:
        self._forget()

    def __deepcopy__(self, memo: dict[int, object]) -> OnlineCost:
        """Copy it while another thread may let it learn."""
        twin = copy.copy(self)
        twin._early = self._early.copy()
        twin._fit = copy.deepcopy(self._fit, memo)
        return twin

    @property
    def batches(self) -> int:
        """Number of batches that it has learned from, about `MEMORY` at most."""
        return len(self._early) or self._fit.batches

    def _forget(self) -> None:
        self.latest: CostModel | None = None
        self.trusted: CostModel | None = None
        self._fit = Fit(MEMORY)
        self._early: deque[Batch] = deque(maxlen=EARLY)
        #: batches and seconds since the last fit
        self._batches = 0
        self._seconds = 0.0
        #: the moving mean of the relative error: above 0 where batches take longer than expected
        self._error = 0.0

    def learn(self, batch: BatchRecord) -> None:
        """Learn from a batch that ran, unless it had to be run again in parts."""
        if batch.retries:
            return
        size, longest, seconds = len(batch.lengths), max(batch.lengths), batch.seconds
        cost = self.trusted or self.latest
        if cost is not None:
            self._compare(cost, size, longest, seconds)
        elif seconds:  # else the clock is too coarse to see the batch
            self._early.append((size, longest, seconds))
        self._batches += 1
        self._seconds += seconds
        known = len(self._early) or self._fit.batches
        if known >= FEW and self._batches >= BATCHES and self._seconds >= SECONDS:
            self._refit()

    def _compare(self, cost: CostModel, size: int, longest: int, seconds: float) -> None:
        """Learn from a batch whose seconds `cost` predicts."""
        expected = cost.seconds(size, longest) or seconds or 1.0
        # Anything may hold up one batch; only several show a change.
        self._error += NEWEST * (min(1.0, seconds / expected - 1) - self._error)
        if abs(self._error) > max(MOST_ERROR, CHANCE * cost.error):
            self._forget()
        elif seconds <= HELD_UP * expected:
            self._fit.add(size, longest, seconds, expected)

    def _fit_early(self) -> Fit:
        """Fit the early batches, each weighed by what the fit before predicts for it."""
        # Weighed by its own seconds, a batch that happened to be fast would count for more.
        fit, expected = Fit(MEMORY), [seconds for _, _, seconds in self._early]
        for _ in range(3):
            fit = Fit(MEMORY)
            known = list(zip(self._early, expected, strict=True))
            kept = [each for each in known if each[0][2] <= HELD_UP * each[1]]
            # If many were "held up", this model is like that.
            for (size, longest, seconds), when in kept if len(kept) > 0.9 * len(known) else known:
                fit.add(size, longest, seconds, when)
            model = fit.solve()
            expected = [model.seconds(size, longest) for size, longest, _ in self._early]
        return fit

    def _refit(self) -> None:
        self._batches, self._seconds = 0, 0.0
        if self._early:
            self._fit = self._fit_early()
        if not self._fit.batches:
            return
        solved = self._fit.solve()
        # The error of a mean of n falls with the square root of n.
        if solved.error > VAGUE * math.sqrt(min(self._fit.batches, MEMORY)):
            return
        self.latest = solved
        self._early.clear()
        if self._fit.tells_apart:
            self.trusted, self._error = solved, 0.0
