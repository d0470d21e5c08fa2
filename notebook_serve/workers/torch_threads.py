"""How many threads torch uses for the forward passes of a worker.

On an idle machine more threads are faster. Beside another busy program they can be many times
slower: at the end of each operation the threads wait for each other, and spin while they do, so
that the one that they wait for gets no core. Which is the case is seen in the forward passes.
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

#: how many batches are kept of those that ran with the number in use
RECENT: Final = 64
#: batches that run before the first trial of another number; the very first is left out
FIRST: Final = 6
#: batches of a trial, at least where the number on trial is faster and at most
FEWEST: Final = 4
MOST: Final = 20
#: another number is adopted if batches take less than this share of what they take now
BETTER: Final = 0.9
#: a trial is decided if the difference is so many times its standard error, and if it is so many
#: times that after all batches of the trial
SURE: Final = 3.0
LIKELY: Final = 2.0
#: the least by which batches are thought to vary, as a share
SPREAD: Final = 0.05
#: a trial comes early if so many batches in a row each take so many times as long as at the last
ROW: Final = 4
ALARM: Final = 1.5
#: fewer threads are told of if batches take so many times as long with more
TOLD: Final = 1.5
#: a fixed number of threads is warned of if batches take so many times as long as at first
SLOW: Final = 2.0
#: the share of time that trials may cost
SHARE: Final = 0.01
#: seconds of forward passes between two trials: the fewest, and the most that a row of trials
#: that changed nothing leads to
SHORTEST_REST: Final = 1.0
LONGEST_REST: Final = 20.0


class TorchThreads:
    """Chooses the number of threads for the next forward pass, by how long the last ones took.

    It starts with `most` threads. Half as many run a few batches on trial, and stay in use if they
    are faster; fewer threads try twice as many in the same way. Trials come early when batches
    take longer than before, and otherwise so seldom that they cost at most one percent of the
    time. If it does not adapt, it only warns. It knows neither torch nor a clock.
    """

    def __init__(self, most: int, adapts: bool = True) -> None:
        self.most, self.adapts = most, adapts
        #: the number for the next forward pass
        self.number = most
        #: the number that is used between trials
        self.chosen = most
        #: how many times as long batches took with more threads, when these were last compared
        self.slowdown = 1.0
        self._recent: deque[Batch] = deque(maxlen=RECENT)
        self._trial: list[Batch] = []
        self._cost: CostModel | None = None
        #: how long batches took at the last trial, beside what `_cost` says
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
        """Say that forward passes are slow, and what to do; empty if all is well."""
        if not self.adapts:
            return self._slow_warning() if self.slowdown > SLOW else ""
        if self.chosen == self.most or self.slowdown < TOLD:
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
        if not self._begun:  # the first batch of all pays for what is made once
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
        """Return True if batches take far longer than at the last trial and may take fewer."""
        if self._cost is None or self.chosen == 1:
            return False
        newest = list(self._recent)[-ROW:]
        if len(newest) < ROW or min(self._paces(newest)) < ALARM * self._usual:
            return False
        # What ran before says nothing of how it is now.
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
        """Return how much longer batches take on trial, as a logarithm, and its standard error."""
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
        """End a trial: adopt its number if that is faster; return True if so."""
        difference, error = self._difference()
        adopted = difference < min(math.log(BETTER), -LIKELY * error)
        is_fewer = self.number < self.chosen
        if adopted == is_fewer:  # so it is known what more threads than the chosen cost
            self.slowdown = math.exp(abs(difference))
        self._plan(adopted, math.exp(difference) - 1.0)
        if adopted:
            self.chosen = self.number
            self._recent = deque(self._trial, maxlen=RECENT)
        self.number = self.chosen
        self._usual = fmean(self._paces(self._recent))
        return adopted

    def _plan(self, adopted: bool, excess: float) -> None:
        """Set when the next trial may come, after one whose batches took so much longer."""
        usual = sum(seconds for _, _, seconds in self._trial) / (1.0 + excess)
        self._row = 0 if adopted else self._row + 1
        pause = min(LONGEST_REST, SHORTEST_REST * 2.0**self._row)
        self._waits, self._rest = FIRST, max(excess * usual / SHARE, pause)

    def _paces(self, batches: Iterable[Batch]) -> list[float]:
        """How long each batch took beside what the cost model says."""
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
