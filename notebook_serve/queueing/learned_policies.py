"""Policies that choose batches by a cost model, which is learned from the batches that ran."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, cast

from ..errors import OptionError
from ..records import BatchRecord
from .cost_model import CostModel
from .jobs import Decision, Job
from .online_cost import OnlineCost
from .policies import LengthAware, Policy, in_a_cell, why_released
from .policy_registry import built_in
from .waiting_line import WaitingLine, by_length

#: jobs on either side of the oldest, by length, that a decision looks at; a full batch if that is
#: more. With 64 a decision takes a millisecond at most
REACH = 64
#: the least share of its fixed cost that a later batch is charged with: by the time that it runs,
#: about as many jobs will have joined it as it has now
LATER = 0.5
#: the most jobs, the oldest first, that are tried as the one whose batch must be in time
TRIES = 3


@dataclass
class CostLearner:
    """The cost model of a policy: that of its queue, or its own until the queue has one to trust.

    A scheduler keeps that of its queue up to date. A policy that decides about a plain list learns
    its own from the batches that it observes.
    """

    _own: OnlineCost = field(default_factory=OnlineCost, init=False, repr=False, compare=False)
    _used: OnlineCost | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def online_cost(self) -> OnlineCost:
        """The online cost model that it decides by."""
        used = self._used
        return self._own if used is None or used.trusted is None else used

    @property
    def cost(self) -> CostModel | None:
        """The cost model by which it decides; None until there is one to trust."""
        return self.online_cost.trusted

    def observe(self, batch: BatchRecord) -> None:
        """Learn from a batch that ran, unless the queue has a cost model to trust."""
        if self._used is None or self._used.trusted is None:
            self._own.learn(batch)
        elif self._own.batches:
            # If the machine changes its speed, old batches must not decide again.
            self._own = OnlineCost()

    def _cost_of(self, waiting: Sequence[Job]) -> CostModel | None:
        """Return the cost model for a decision about `waiting`, if there is one to trust."""
        queue = waiting.online_cost if isinstance(waiting, WaitingLine) else None
        if queue is not self._used:
            self._used = queue
        cost = None if queue is None else queue.trusted
        return self._own.trusted if cost is None else cost

    def _repr_mimebundle_(self, **options: Any) -> dict[str, str]:
        return in_a_cell(cast("Policy", self), _describe_cost(self.cost))


@built_in
@dataclass
class CostAware(CostLearner):
    """Cut the queue, sorted by length, into the batches of least total cost; run the oldest's.

    `LengthAware` limits the share of padding; this policy minimises seconds. A cost model is fitted
    to the batches that ran (see `CostModel`), and dynamic programming finds the cuts under which
    the whole queue would have run soonest. The batch that holds the oldest request runs first, so
    no request starves. The policy never waits. Until the cost model can be trusted, it decides as
    `LengthAware` does.

    A batch that would run later, and is not full, is charged with only a part of its fixed cost,
    down to half: later requests will join it. Without that, the oldest request would often be in
    the small batch that a cut leaves over, and under overload nearly always.

    A decision looks at no more than 64 requests (or a full batch) on either side of the oldest, by
    length. So its time is bounded, however long the queue. No batch has more than `max_tokens`
    padded tokens (requests times the longest), because a forward pass needs memory for them.

    On a CPU every token costs, and the policy keeps padding low as `LengthAware` does. On a device
    that runs 64 texts as fast as one, it finds that too, and takes the largest batches.

    The cuts are those of optimal one-dimensional clustering by dynamic programming (Fisher, "On
    Grouping for Maximum Homogeneity", JASA 53, 1958), with a batch's seconds in place of its
    variance; batching like lengths by a cost that was measured is from Fang et al.,
    "TurboTransformers" (PPoPP 2021).
    """

    max_batch_size: int = 64
    max_tokens: int | None = 16_384

    def __post_init__(self) -> None:
        self._until_trusted = LengthAware(self.max_batch_size, max_tokens=self.max_tokens)
        self.max_batch_size = self._until_trusted.max_batch_size
        self.max_tokens = self._until_trusted.max_tokens

    def decide(self, waiting: Sequence[Job], now: float) -> Decision:
        """Take the slice that holds the oldest."""
        cost = self._cost_of(waiting)
        if cost is None:
            return self._until_trusted.decide(waiting, now)
        return slice_around(waiting[0], waiting, cost, self.max_batch_size, self.max_tokens)


@built_in
@dataclass
class Adaptive(CostLearner):
    """Meet a latency objective at the highest load: batches as large as the most urgent can bear.

    It uses the same learned cost model as `CostAware`. Requests that can no longer be answered
    within `objective` seconds of their arrival stand back for those that can: they run when no
    other request waits. Of the others the oldest is served first, in the batch of least cost. If
    that batch would be late for the oldest, it is not made smaller for its sake, which would make
    many others late. Instead the requests that it would make late stand back too, and the next
    oldest is tried, up to three times. Only then is the batch made as small as it has to be. Until
    the cost model can be trusted, the policy decides as `LengthAware` does.

    So under overload some requests are very late, and time out, to keep the others in time. The
    policy maximises goodput (answers within the objective per second), not the longest wait.

    The objective as the bound of a batch is from Crankshaw et al., "Clipper" (NSDI 2017), which
    finds the size by trial. Giving up requests that would make a batch small is from Shen et al.,
    "Nexus" (SOSP 2019), which rejects them.
    """

    objective: float = 0.2
    max_batch_size: int = 32

    def __post_init__(self) -> None:
        wrong = isinstance(self.objective, bool) or not isinstance(self.objective, (int, float))
        if wrong or not 0 < self.objective < math.inf:
            raise OptionError(
                f"`objective` must be a number of seconds > 0, got {self.objective!r}"
            )
        self.objective = float(self.objective)
        self._until_trusted = LengthAware(self.max_batch_size)
        self.max_batch_size = self._until_trusted.max_batch_size

    def decide(self, waiting: Sequence[Job], now: float) -> Decision:
        """Take the batch around the oldest whose batch can still be in time."""
        cost = self._cost_of(waiting)
        if cost is None:
            return self._until_trusted.decide(waiting, now)
        due, most = now - self.objective, self.max_batch_size
        in_time = self._in_time(waiting, due, cost)
        if not in_time:
            # So that the next request can still be answered in time.
            late = slice_around(waiting[0], waiting, cost, most)
            return shorten(late, waiting[0], self.objective / 2, cost, waiting)
        for _ in range(TRIES):
            oldest = in_time[-1]
            decision = slice_around(oldest, in_time, cost, most)
            done = due + cost([job.length for job in decision.take])
            in_time = [job for job in in_time if job.arrived >= done]
            if oldest.arrived >= done or not in_time:
                break
        return shorten(decision, oldest, oldest.arrived - due, cost, waiting)

    def _in_time(self, waiting: Sequence[Job], due: float, cost: CostModel) -> list[Job]:
        """Return the jobs that can be in time if they run alone, the newest first."""
        # From the newest on, because many may be late.
        candidates = takewhile(lambda job: job.arrived >= due, reversed(waiting))
        return [job for job in candidates if job.arrived >= due + cost.seconds(1, job.length)]


def _describe_cost(cost: CostModel | None) -> str:
    if cost is None:
        return "It has no cost model yet, and decides as LengthAware does."
    return f"It decides by {cost}"


def slice_around(
    job: Job,
    waiting: Sequence[Job],
    cost: CostModel,
    most: int,
    max_tokens: int | None = None,
) -> Decision:
    """Return the batch with `job` when its group is cut, by length, into batches of least cost."""
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
    """Return where the batch that holds the job at `at` begins and ends, under the best cuts.

    `lengths` rise, so the last of a batch is its longest. A job of more than `max_tokens` runs
    alone. The batch of `at` costs its seconds. Any other batch is charged with a share of the fixed
    seconds only: the share of a full batch that it fills, and at least `LATER`.
    """
    if _need_no_cut(lengths, cost, most, max_tokens):
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


def _need_no_cut(
    lengths: Sequence[int], cost: CostModel, most: int, max_tokens: int | None
) -> bool:
    """Return True if jobs of these rising `lengths` clearly belong into one batch.

    Another batch costs at least `LATER` of the fixed seconds, and saves at most all padding.
    """
    count, longest = len(lengths), lengths[-1]
    if count > most or (max_tokens is not None and count * longest > max_tokens):
        return False
    padded = count * cost.seconds(1, longest)
    return padded - sum([cost.seconds(1, length) for length in lengths]) < LATER * cost.fixed


def shorten(
    decision: Decision, job: Job, budget: float, cost: CostModel, waiting: Sequence[Job]
) -> Decision:
    """Return the decision with only the jobs that can run within `budget` seconds, and `job`."""
    take = take_within(decision.take, job, budget, cost)
    # Made from the jobs in time, the decision may say that the queue is empty where it is not.
    wrong = decision.reason == "idle" and len(take) < len(waiting)
    if wrong or len(take) < len(decision.take):
        return Decision(take, reason="objective")
    return decision


def take_within(take: tuple[Job, ...], job: Job, budget: float, cost: CostModel) -> tuple[Job, ...]:
    """Return `job` and the shortest of `take` that run together within `budget` seconds."""
    kept = sorted(take, key=lambda other: (other is not job, other.length))
    longest, count = job.length, 1
    for other in kept[1:]:
        longest = max(longest, other.length)
        if cost.seconds(count + 1, longest) > budget:
            break
        count += 1
    return tuple(kept[:count])
