"""Choice of the number of torch's threads for the forward passes of a worker.

On an idle machine more threads are faster. Beside another busy program they can be many times
slower: at the end of each operation the threads wait for the slowest one. They spin while they
wait, and so keep it from getting a core. Only the times of forward passes show which case it is.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from statistics import fmean, median, stdev
from typing import Final

from ..queueing.cost_model import FEW, CostModel, Fit

#: a batch: its size, its longest input, and its seconds
Batch = tuple[int, int, float]

#: batches kept of those that ran with the number in use
RECENT: Final = 64
#: batches that run before the first trial of another number; the very first is left out
FIRST: Final = 6
#: batches of a trial: at least, if the number on trial is faster, and at most
FEWEST: Final = 4
MOST: Final = 20
#: another number is adopted if batches take less than this share of their present time
BETTER: Final = 0.9
#: a trial ends early if the difference is so many times its standard error; after all its batches
#: the smaller factor is enough
SURE: Final = 3.0
LIKELY: Final = 2.0
#: the smallest relative variation that batches are assumed to have
SPREAD: Final = 0.05
#: a trial comes early if so many batches in a row each take so many times as long as at the last
#: trial
ROW: Final = 4
ALARM: Final = 1.5
#: fewer threads are reported if batches take so many times as long with more
REPORTED: Final = 1.5
#: a fixed number of threads is reported if batches take so many times as long as at first
SLOW: Final = 2.0
#: the share of time that trials may cost
SHARE: Final = 0.01
#: seconds of forward passes between two trials: at least, and at most after a row of trials that
#: changed nothing
SHORTEST_REST: Final = 1.0
LONGEST_REST: Final = 20.0


class TorchThreads:
    """A number of threads for the next forward pass, chosen from the times of the last ones.

    It starts with `most` threads. Half as many run a few batches on trial, and stay in use if they
    are faster. While fewer are in use, twice as many are tried in the same way. Trials come early
    when batches take longer than before; otherwise they cost at most one percent of the time. If it
    does not adapt, it only warns. It knows neither torch nor a clock.
    """

    def __init__(self, most: int, adapts: bool = True) -> None:
        self.most, self.adapts = most, adapts
        #: the number for the next forward pass
        self.number = most
        #: the number that is used between trials
        self.chosen = most
        #: the factor by which batches took longer with more threads, at the last comparison
        self.slowdown = 1.0
        self._recent: deque[Batch] = deque(maxlen=RECENT)
        self._trial: list[Batch] = []
        self._cost: CostModel | None = None
        #: the time of batches at the last trial, relative to the prediction of `_cost`
        self._usual = 1.0
        self._begun = False
        #: batches, and their seconds, until another number is tried
        self._waits = FIRST
        self._rest = 0.0
        #: trials in a row that changed nothing
        self._row = 0
        self._upwards = False

    @property
    def warning(self) -> str:
        """A sentence about slow forward passes and the remedy; empty if there are none."""
        if not self.adapts:
            return self._slow_warning() if self.slowdown > SLOW else ""
        if self.chosen == self.most or self.slowdown < REPORTED:
            return ""
        return (
            f"torch runs this model on {self.chosen} of {self.most} threads. With more, forward "
            f"passes took {self.slowdown:.1f} times as long: the cores are busy, or the passes too "
            "short to share. More threads are tried again from time to time; "
            f"`serve(..., threads={self.most})` keeps {self.most}."
        )

    def _slow_warning(self) -> str:
        return (
            f"Forward passes take {self.slowdown:.1f} times as long as at first: other programs "
            f"may use the cores. The {self.most} threads of torch then wait for each other; "
            "`serve(..., threads=1)` is often faster."
        )

    def learn(self, size: int, longest: int, seconds: float) -> bool:
        """Note a batch that ran on `number` threads; return True if it changed `chosen`."""
        if self.most == 1 or seconds <= 0:
            return False
        if self.number != self.chosen:
            self._trial.append((size, longest, seconds))
            return self._is_over() and self._decide()
        if not self._begun:  # the very first batch includes one-off work
            self._begun = True
            return False
        self._recent.append((size, longest, seconds))
        if not self.adapts:
            self._watch()
            return False
        self._rest -= seconds
        self._waits -= 1
        if self._waits <= 0 and (self._rest <= 0 or self._is_alarmed()):
            self._begin_trial()
        return False

    def _watch(self) -> None:
        """Compare the newest batches with the first ones."""
        if self._cost is not None:
            self.slowdown = median(self._paces(list(self._recent)[-FEW:]))
        elif len(self._recent) == RECENT:
            self._cost = _fit(self._recent)

    def _is_alarmed(self) -> bool:
        """Return True if batches take far longer than at the last trial, with several threads."""
        if self._cost is None or self.chosen == 1:
            return False
        newest = list(self._recent)[-ROW:]
        if len(newest) < ROW or min(self._paces(newest)) < ALARM * self._usual:
            return False
        # Earlier batches say nothing about the present load.
        self._recent = deque(newest, maxlen=RECENT)
        self._upwards, self._row = False, 0
        return True

    def _begin_trial(self) -> None:
        if len(self._recent) >= FEW or self._cost is None:
            self._cost = _fit(self._recent)
        fewer, more = max(1, self.chosen // 2), min(self.most, 2 * self.chosen)
        self.number = more if self.chosen == 1 or (self._upwards and more > self.chosen) else fewer
        self._upwards = not self._upwards
        self._trial = []

    def _difference(self) -> tuple[float, float]:
        """Return the log of the ratio of times, on trial to before, and its standard error."""
        now = [math.log(pace) for pace in self._paces(self._recent)]
        tried = [math.log(pace) for pace in self._paces(self._trial)]
        spread = max(SPREAD, stdev(now))
        return fmean(tried) - fmean(now), spread * math.sqrt(1 / len(now) + 1 / len(tried))

    def _is_over(self) -> bool:
        """Return True if a trial has shown which number is faster, or has run all its batches."""
        difference, error = self._difference()
        better = len(self._trial) >= FEWEST and difference < math.log(BETTER) - SURE * error
        return better or difference > SURE * error or len(self._trial) >= MOST

    def _decide(self) -> bool:
        """End a trial, adopt its number if that is faster, and return True if it is adopted."""
        difference, error = self._difference()
        adopted = difference < min(math.log(BETTER), -LIKELY * error)
        is_fewer = self.number < self.chosen
        if adopted == is_fewer:  # this compared the chosen number with more threads
            self.slowdown = math.exp(abs(difference))
        self._plan(adopted, math.exp(difference) - 1.0)
        if adopted:
            self.chosen = self.number
            self._recent = deque(self._trial, maxlen=RECENT)
        self.number = self.chosen
        self._usual = fmean(self._paces(self._recent))
        return adopted

    def _plan(self, adopted: bool, excess: float) -> None:
        """Set when the next trial may begin; `excess` is the extra time of this one, relative."""
        usual = sum(seconds for _, _, seconds in self._trial) / (1.0 + excess)
        self._row = 0 if adopted else self._row + 1
        pause = min(LONGEST_REST, SHORTEST_REST * 2.0**self._row)
        self._waits, self._rest = FIRST, max(excess * usual / SHARE, pause)

    def _paces(self, batches: Iterable[Batch]) -> list[float]:
        """Return the time of each batch, relative to the prediction of the cost model."""
        assert self._cost is not None
        return [
            seconds / max(self._cost.seconds(size, longest), 1e-9)
            for size, longest, seconds in batches
        ]


def _fit(batches: Iterable[Batch]) -> CostModel:
    fit = Fit()
    for size, longest, seconds in batches:
        fit.add(size, longest, seconds, seconds)
    return fit.solve()
