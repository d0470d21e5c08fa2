"""Policies that learn what batches cost from the batches that ran, and choose by it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from ..errors import OptionError
from ..records import BatchRecord
from .cost_model import CostModel
from .jobs import Decision, Job
from .online_cost import OnlineCost
from .policies import LengthAware, in_a_cell, why_released
from .policy_kinds import built_in
from .waiting_line import by_length

#: how many are looked at, by length, on either side of the oldest request, or a full batch if that
#: is more; it makes a decision take a millisecond at most where 64 may share a batch
REACH = 64
#: the least share of the fixed cost that a batch is charged with which runs later: by then about
#: as many will have come to join it as are in it now
LATER = 0.5
#: how many are looked at, the oldest first, for one whose batch is done in time
TRIES = 3


@built_in
@dataclass
class CostAware:
    """Cut the queue, sorted by length, into the batches of least total cost; run the oldest's.

    Where `LengthAware` goes by a share of padding, this goes by seconds: a law of what batches cost
    is fitted to those that ran (see `CostModel`), and dynamic programming finds the cuts under
    which all that waits would be through soonest. The batch that holds the oldest request runs
    first, so nobody starves. Never waits. Until the law can be trusted it is `LengthAware`.

    A batch that would run later, and is not full, is charged with only a part of its fixed cost,
    down to half: requests still to come will join it. Without that the oldest would often be in
    the small batch that a cut leaves over, and under overload nearly always.

    A decision looks at no more than 64 requests (or a full batch) on either side of the oldest, by
    length, so that it takes a bounded time however long the queue. No batch has more than
    `max_tokens` padded tokens (requests times the longest): a forward's memory grows with them.

    On a processor, where every token costs, it keeps padding low as `LengthAware` does; on a device
    that is through with 64 texts as soon as with one it finds that too, and takes all it can get.

    The cuts are those of optimal one-dimensional clustering by dynamic programming (Fisher, "On
    Grouping for Maximum Homogeneity", JASA 53, 1958), with a batch's seconds in place of its
    variance; batching like lengths by a cost that was measured is from Fang et al.,
    "TurboTransformers" (PPoPP 2021).
    """

    max_batch_size: int = 64
    max_tokens: int | None = 16_384
    _law: OnlineCost = field(default_factory=OnlineCost, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._until_then = LengthAware(self.max_batch_size, max_tokens=self.max_tokens)
        self.max_batch_size = self._until_then.max_batch_size
        self.max_tokens = self._until_then.max_tokens

    @property
    def cost(self) -> CostModel | None:
        """The law that it goes by; None while there is none to trust."""
        return self._law.trusted

    def observe(self, batch: BatchRecord) -> None:
        """Learn from a batch that ran."""
        self._law.learn(batch)

    def _repr_mimebundle_(self, **options: Any) -> dict[str, str]:
        return in_a_cell(self, _learnt(self.cost))

    def decide(self, waiting: Sequence[Job], now: float) -> Decision:
        """Take the slice that holds the oldest."""
        cost = self._law.trusted
        if cost is None:
            return self._until_then.decide(waiting, now)
        return slice_around(waiting[0], waiting, cost, self.max_batch_size, self.max_tokens)


@built_in
@dataclass
class Adaptive:
    """Hold a latency objective at the highest load: batches as large as the most urgent can bear.

    Goes by the same learned law as `CostAware`. Requests that cannot be answered within `objective`
    seconds of their arrival, no more or not at all, stand back for those that can: they run when no
    other waits. Of those in time the oldest is served first, in the batch of least cost for what
    waits. If that is not done within the oldest's time, it is not made small for the oldest's sake,
    which would make many late: those for whom it is too late stand back too, and the next is looked
    at, up to three times. Then only is it made as small as it has to be. Until the law can be
    trusted it is `LengthAware`.

    So under overload some are late by far, and time out, that the others be in time. It claims
    goodput (answers within the objective per second), not the longest wait.

    The objective as the bound of a batch is from Crankshaw et al., "Clipper" (NSDI 2017), which
    finds the size by trial; to give up those who would make a batch small from Shen et al., "Nexus"
    (SOSP 2019), which refuses them.
    """

    objective: float = 0.2
    max_batch_size: int = 32
    _law: OnlineCost = field(default_factory=OnlineCost, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        wrong = isinstance(self.objective, bool) or not isinstance(self.objective, (int, float))
        if wrong or not 0 < self.objective < math.inf:
            raise OptionError(f"objective is a number of seconds above 0, not {self.objective!r}")
        self.objective = float(self.objective)
        self._until_then = LengthAware(self.max_batch_size)
        self.max_batch_size = self._until_then.max_batch_size

    @property
    def cost(self) -> CostModel | None:
        """The law that it goes by; None while there is none to trust."""
        return self._law.trusted

    def observe(self, batch: BatchRecord) -> None:
        """Learn from a batch that ran."""
        self._law.learn(batch)

    def _repr_mimebundle_(self, **options: Any) -> dict[str, str]:
        return in_a_cell(self, _learnt(self.cost))

    def decide(self, waiting: Sequence[Job], now: float) -> Decision:
        """Take the batch around the oldest whose batch can still be in time."""
        cost = self._law.trusted
        if cost is None:
            return self._until_then.decide(waiting, now)
        due, most = now - self.objective, self.max_batch_size
        in_time = self._in_time(waiting, due, cost)
        if not in_time:
            # So that whoever comes now can still be answered in time.
            late = slice_around(waiting[0], waiting, cost, most)
            return shortened(late, waiting[0], self.objective / 2, cost, waiting)
        for _ in range(TRIES):
            oldest = in_time[-1]
            decision = slice_around(oldest, in_time, cost, most)
            done = due + cost([job.length for job in decision.take])
            in_time = [job for job in in_time if job.arrived >= done]
            if oldest.arrived >= done or not in_time:
                break
        return shortened(decision, oldest, oldest.arrived - due, cost, waiting)

    def _in_time(self, waiting: Sequence[Job], due: float, cost: CostModel) -> list[Job]:
        """Who can still be answered within the objective if run alone, the newest first."""
        # From the newest on, because those who are late may be many.
        candidates = takewhile(lambda job: job.arrived >= due, reversed(waiting))
        return [job for job in candidates if job.arrived >= due + cost.seconds(1, job.length)]


def _learnt(cost: CostModel | None) -> str:
    return f"It goes by {cost}" if cost else "It goes by no law yet, so it is LengthAware."


def slice_around(
    job: Job,
    waiting: Sequence[Job],
    cost: CostModel,
    most: int,
    max_tokens: int | None = None,
) -> Decision:
    """The batch that holds `job` when its mates are cut, by length, into those of least cost."""
    ranked, at = by_length(waiting, job)
    reach = max(REACH, most)
    low, high = max(0, at - reach), min(len(ranked), at + 1 + reach)
    lengths = [length for length, _, _ in ranked[low:high]]
    first, last = cuts_around(at - low, lengths, cost, most, max_tokens)
    take = tuple([job for _, _, job in ranked[low + first : low + last]])
    return Decision(take, reason=why_released(len(take), most, waiting, len(ranked)))


def cuts_around(
    at: int,
    lengths: Sequence[int],
    cost: CostModel,
    most: int,
    max_tokens: int | None = None,
) -> tuple[int, int]:
    """Where the batch that holds the one at `at` begins and ends, under the cuts of least cost.

    `lengths` rise, so the last of a batch is its longest. Who has more than `max_tokens` runs
    alone. The batch of `at` costs its seconds, any other
    as much but for the fixed ones, of which only the share that it fills, or `LATER` if that is
    more, is charged.
    """
    if _are_one(lengths, cost, most, max_tokens):
        return 0, len(lengths)
    later = [cost.fixed * max(LATER, size / most) for size in range(most + 1)]
    totals, begins = [0.0], [0]
    for end, longest in enumerate(lengths, 1):
        each = cost.seconds(1, longest) - cost.fixed
        fit = most if max_tokens is None else min(most, max(1, max_tokens // max(1, longest)))
        low = max(0, end - fit)
        rests = [
            totals[begin] - begin * each + (cost.fixed if begin <= at < end else later[end - begin])
            for begin in range(low, end)
        ]
        best = min(rests)
        totals.append(best + end * each)
        begins.append(low + rests.index(best))
    end = len(lengths)
    while begins[end] > at:
        end = begins[end]
    return begins[end], end


def _are_one(lengths: Sequence[int], cost: CostModel, most: int, max_tokens: int | None) -> bool:
    """Whether all, of rising `lengths`, belong into one batch, as can be seen without any cuts.

    Another batch costs at least `LATER` of the fixed seconds, and saves at most all padding.
    """
    count, longest = len(lengths), lengths[-1]
    if count > most or (max_tokens is not None and count * longest > max_tokens):
        return False
    padded = count * cost.seconds(1, longest)
    return padded - sum([cost.seconds(1, length) for length in lengths]) < LATER * cost.fixed


def shortened(
    decision: Decision, job: Job, budget: float, cost: CostModel, waiting: Sequence[Job]
) -> Decision:
    """The decision, with no more taken than are through within `budget` seconds, `job` always."""
    take = within(decision.take, job, budget, cost)
    # Made of those in time, it may say that nobody else waits where others do.
    wrong = decision.reason == "idle" and len(take) < len(waiting)
    if wrong or len(take) < len(decision.take):
        return Decision(take, reason="objective")
    return decision


def within(take: tuple[Job, ...], job: Job, budget: float, cost: CostModel) -> tuple[Job, ...]:
    """As many of `take`, the shortest first and `job` always, as are through in `budget`."""
    kept = sorted(take, key=lambda other: (other is not job, other.length))
    longest, count = job.length, 1
    for other in kept[1:]:
        longest = max(longest, other.length)
        if cost.seconds(count + 1, longest) > budget:
            break
        count += 1
    return tuple(kept[:count])
