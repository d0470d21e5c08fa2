"""The scheduler: the queue as a state machine. No thread, no clock, no I/O.

Its driver owns time and threads: the engine on the real clock, a simulator on a virtual one. Both
tell the scheduler what happened and when, and ask for the next batch.
"""

from __future__ import annotations

import copy
import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..errors import PolicyError
from ..records import BatchRecord
from .jobs import Batch, Decision, Job
from .online_cost import OnlineCost
from .policies import Greedy, Policy, label
from .waiting_line import WaitingLine

#: the policy that takes over when another breaks its contract
FALLBACK = Greedy()


@dataclass(frozen=True)
class PolicyFault:
    """A policy that broke its contract, and its error; `FALLBACK` took over."""

    policy: Policy
    error: Exception

    def __str__(self) -> str:
        policy, what = label(self.policy), str(self.error)
        if not isinstance(self.error, PolicyError):
            what = f"raised {type(self.error).__name__}: {what}"
        return f"{policy} {what}; the queue goes on under {FALLBACK!r}"


class Scheduler:
    """The jobs that wait, and a policy that is held to its contract.

    Every job offered leaves in exactly one way: in a batch from `poll`, from `withdraw`, from
    `expire`, or from `dropped` if the policy drops it. A policy that raises or returns an invalid
    decision is replaced by `FALLBACK`, and `fault` says why; no job is lost. `on_fault` is called
    with each `PolicyFault`.

    The scheduler owns the online cost model of its queue, which policies read from the queue. It
    begins with a copy of the one that the policy brings, unless `online_cost` is given.
    """

    def __init__(
        self,
        policy: Policy,
        on_fault: Callable[[PolicyFault], None] | None = None,
        online_cost: OnlineCost | None = None,
    ) -> None:
        #: the cost model that `finish` keeps up to date
        self.online_cost = _copy_cost(policy) if online_cost is None else online_cost
        self.waiting = WaitingLine(self.online_cost)
        #: after a `poll` that released nothing: the absolute time to poll again
        self.wake_at = math.inf
        #: the most padded tokens that fit into memory; a policy's larger batch is cut to it
        self.max_tokens = math.inf
        self._policy = policy
        self._fault: PolicyFault | None = None
        self._on_fault = on_fault
        self._draining = False
        self._batches = 0
        self._deadlines: list[tuple[float, int]] = []
        self._dropped: list[Job] = []

    @property
    def policy(self) -> Policy:
        """The policy in effect; setting another acts on the next `poll`.

        It can be set from any thread, also while another thread is in `poll`.
        """
        return self._policy if self.fault is None else FALLBACK

    @policy.setter
    def policy(self, policy: Policy) -> None:
        self._policy, self._fault = policy, None

    @property
    def chosen(self) -> Policy:
        """The policy that was set last, even if it broke its contract."""
        return self._policy

    @property
    def fault(self) -> PolicyFault | None:
        """The error of the policy that was set last, if it broke its contract."""
        fault = self._fault
        # A fault of an earlier policy may be noted just after another was set.
        return fault if fault is not None and fault.policy is self._policy else None

    def offer(self, job: Job) -> None:
        """Add a job to the queue."""
        self.waiting.add(job)
        if job.deadline < math.inf:
            heapq.heappush(self._deadlines, (job.deadline, job.id))
            if len(self._deadlines) > 64 and len(self._deadlines) > 2 * len(self.waiting) + 64:
                self._forget_stale_deadlines()

    def withdraw(self, job_id: int) -> Job | None:
        """Take out a job that was cancelled or answered; None if it does not wait."""
        return self.waiting.discard(job_id)

    def expire(self, now: float) -> list[Job]:
        """Take out and return the jobs whose deadline has come."""
        expired = []
        while self._deadlines and self._deadlines[0][0] <= now:
            job = self.waiting.discard(heapq.heappop(self._deadlines)[1])
            if job is not None:
                expired.append(job)
        return expired

    def poll(self, now: float) -> Batch | None:
        """Release and return the batch to run at `now`.

        If it is None, `wake_at` says when to poll again, unless something happens before.
        """
        self.wake_at = math.inf
        while self.waiting:
            decision = self._decide(now)
            if decision.drop:
                for job in decision.drop:
                    self.waiting.discard(job.id)
                self._dropped += decision.drop
            if decision.take:
                return self._release(decision.take, decision.reason)
            if not decision.drop:
                self.wake_at = decision.wake_at
                break
        return None

    def dropped(self) -> list[Job]:
        """Return the jobs that the policy has dropped since the last call."""
        dropped = self._dropped
        if dropped:
            self._dropped = []
        return dropped

    def _release(self, take: tuple[Job, ...], reason: str) -> Batch:
        if self.max_tokens < math.inf:
            padded = len(take) * max(job.length for job in take)
            if padded > self.max_tokens:
                take, reason = select_fitting(take, self.max_tokens), "budget"
        discard = self.waiting.discard
        for job in take:
            discard(job.id)
        self._batches += 1
        return Batch(self._batches, take, reason, len(self.waiting))

    def finish(self, record: BatchRecord) -> None:
        """Let the cost model and the policy learn from a batch that ran."""
        self.online_cost.learn(record)
        policy = self._policy if self._fault is None else self.policy
        observe = getattr(policy, "observe", None)
        if observe is None:
            return
        try:
            observe(record)
        except Exception as error:
            self._note_fault(policy, error)

    def drain(self) -> None:
        """Release all jobs from now on, even where the policy would wait or drop."""
        self._draining = True

    def __repr__(self) -> str:
        return f"<Scheduler: {len(self.waiting)} waiting, {label(self.policy)}>"

    def _decide(self, now: float) -> Decision:
        policy = self._policy if self._fault is None else self.policy
        try:
            decision = check_decision(policy.decide(self.waiting, now), self.waiting, now)
        except Exception as error:
            self._note_fault(policy, error)
            decision = FALLBACK.decide(self.waiting, now)
        if self._draining and (decision.drop or not decision.take):
            return Decision(FALLBACK.decide(self.waiting, now).take, reason="drain")
        return decision

    def _note_fault(self, policy: Policy, error: Exception) -> None:
        """Let `FALLBACK` take over from a policy, unless another was set meanwhile."""
        self._fault = fault = PolicyFault(policy, error)
        if self._on_fault is not None:
            self._on_fault(fault)

    def _forget_stale_deadlines(self) -> None:
        # Jobs leave without their entry in the heap. Without this, the heap would hold an entry
        # for every job of the last `timeout` seconds.
        self._deadlines = [(job.deadline, job.id) for job in self.waiting]
        heapq.heapify(self._deadlines)


def _copy_cost(policy: Policy) -> OnlineCost:
    """Return a copy of the cost model that a policy has learned elsewhere, or an empty one."""
    known = getattr(policy, "online_cost", None)
    return copy.deepcopy(known) if isinstance(known, OnlineCost) else OnlineCost()


def check_decision(decision: object, waiting: Sequence[Job], now: float) -> Decision:
    """Return `decision` with its jobs as tuples. Raises `PolicyError` if it is invalid."""
    if not isinstance(decision, Decision):
        raise PolicyError(f"returned {decision!r} where a Decision was expected")
    take, drop = tuple(decision.take), tuple(decision.drop)
    if not take and not drop:
        if now < decision.wake_at < math.inf:
            return decision
        raise PolicyError(
            f"took nothing from {len(waiting)} waiting and asked to be woken at "
            f"{decision.wake_at!r} (now is {now!r}); take jobs or give a finite time to come"
        )
    chosen = take + drop
    for job in chosen:
        if job not in waiting:
            raise PolicyError("took or dropped a job that does not wait")
    if len(chosen) > 1:
        if len({job.id for job in chosen}) < len(chosen):
            raise PolicyError("took or dropped a job twice")
        if len({job.group for job in take}) > 1:
            raise PolicyError("took jobs of different groups; only those of one may share a batch")
    if take is decision.take and drop is decision.drop and type(decision.reason) is str:
        return decision
    return Decision(take, decision.wake_at, str(decision.reason), drop)


def select_fitting(jobs: Sequence[Job], max_tokens: float) -> tuple[Job, ...]:
    """Return the jobs that fit together in their order; the oldest always, and first."""
    kept: set[int] = set()
    longest = 0
    for job in sorted(jobs, key=lambda job: job.id):
        padded = (len(kept) + 1) * max(longest, job.length)
        if not kept or padded <= max_tokens:
            kept.add(job.id)
            longest = max(longest, job.length)
    return tuple(job for job in jobs if job.id in kept)
