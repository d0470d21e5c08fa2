"""Policies: the choice of the waiting jobs to run next, and when.

A policy is a pure function of ``(waiting, now)``. It has no lock, no future and no clock, so the
same object runs in a live server and in a simulation. The policies here are frozen values, and
their ``repr`` pastes back. Any object with a ``decide`` method of the same signature works too.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from ..display import make_bundle, safe_repr
from ..records import BatchRecord
from ..validation.numbers import normalize_number, normalize_whole_number
from .jobs import Decision, Job
from .policy_registry import as_policy, built_in
from .waiting_line import by_length, mates


@runtime_checkable
class Policy(Protocol):
    """An object that chooses the jobs to run next.

    A policy may also have ``observe(batch: BatchRecord) -> None``, which is called after every
    batch so that the policy can learn from it.
    """

    def decide(self, waiting: Sequence[Job], now: float) -> Decision:
        """Choose from `waiting` (never empty, oldest first) at time `now` (seconds).

        Called when a worker is free and the queue has changed. Either take jobs of one group, or
        return the absolute time of the next call as ``wake_at``. Taking nothing with
        ``wake_at=math.inf`` would wait forever, and breaks the contract.
        """


#: accepted wherever a policy is: an object, its class, or its text, such as ``"Greedy(8)"``
PolicyLike: TypeAlias = Policy | type[Policy] | str


def label(policy: Policy) -> str:
    """Return the name of a policy in tables and plots: its repr, without memory addresses.

    If the repr raises, the name is that of the class.
    """
    return safe_repr(policy)


def in_a_cell(policy: Policy, *more: str, **options: Any) -> dict[str, str]:
    """Return the display of a policy in a cell: its repr, its summary line and `more`."""
    summary = (type(policy).__doc__ or "").strip().partition("\n")[0]
    return make_bundle(label(policy), summary, *more)


@built_in
@dataclass(frozen=True)
class NoBatching:
    """Run one request at a time, in the order of arrival."""

    def decide(self, waiting: Sequence[Job], now: float) -> Decision:
        """Take the oldest job."""
        return Decision((waiting[0],), reason="full")

    _repr_mimebundle_ = in_a_cell


@built_in
@dataclass(frozen=True)
class ResettingWindow:
    """Wait for a pause of `max_wait` seconds, then run the whole queue: a warning example.

    Many tutorials batch like this. It has no size limit, and each arrival restarts the wait: while
    requests arrive less than `max_wait` seconds apart, none of them runs.
    """

    max_wait: float = 0.001

    def __post_init__(self) -> None:
        normalize_number(self, "max_wait", "a number of seconds >= 0")

    def decide(self, waiting: Sequence[Job], now: float) -> Decision:
        """Take all jobs of the oldest's group after `max_wait` seconds without an arrival."""
        quiet_at = waiting[-1].arrived + self.max_wait
        if now < quiet_at:
            return Decision(wake_at=quiet_at)
        return Decision(tuple(mates(waiting)), reason="deadline")

    _repr_mimebundle_ = in_a_cell


@built_in
@dataclass(frozen=True)
class Window:
    """Wait for a full batch, but at most `max_wait` seconds after the oldest job's arrival.

    Later arrivals do not move that deadline.
    """

    max_batch_size: int = 16
    max_wait: float = 0.005

    def __post_init__(self) -> None:
        normalize_whole_number(self, "max_batch_size")
        normalize_number(self, "max_wait", "a number of seconds >= 0")

    def decide(self, waiting: Sequence[Job], now: float) -> Decision:
        """Take the oldest jobs of a group if they fill a batch or the deadline has passed."""
        take = mates(waiting, limit=self.max_batch_size)
        if len(take) == self.max_batch_size:
            return Decision(tuple(take), reason="full")
        deadline = waiting[0].arrived + self.max_wait
        if now < deadline:
            return Decision(wake_at=deadline)
        return Decision(tuple(take), reason="deadline")

    _repr_mimebundle_ = in_a_cell


@built_in
@dataclass(frozen=True)
class Greedy:
    """Run the waiting requests at once, up to `max_batch_size`, and never wait for more."""

    max_batch_size: int = 16

    def __post_init__(self) -> None:
        normalize_whole_number(self, "max_batch_size")

    def decide(self, waiting: Sequence[Job], now: float) -> Decision:
        """Take the oldest jobs of the group of the oldest."""
        take = mates(waiting, limit=self.max_batch_size)
        return Decision(tuple(take), reason=why_released(len(take), self.max_batch_size, waiting))

    _repr_mimebundle_ = in_a_cell


@built_in
@dataclass(frozen=True)
class LengthAware:
    """Batch the oldest request with those nearest to it in length, to keep padding low.

    Never waits, and starves no request: each batch is built around the oldest. It grows towards the
    nearest lengths, to at most `max_batch_size` requests, while the share of padding stays within
    `max_padding` (0 to 1) and the padded tokens (requests times the longest) within `max_tokens`.
    """

    max_batch_size: int = 16
    max_padding: float = 0.15
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        normalize_whole_number(self, "max_batch_size")
        normalize_number(self, "max_padding", "a share from 0 to 1", most=1.0)
        if self.max_tokens is not None:
            normalize_whole_number(self, "max_tokens")

    def decide(self, waiting: Sequence[Job], now: float) -> Decision:
        """Take the oldest job, then those of its group nearest in length, shorter or longer."""
        oldest = waiting[0]
        ranked, at = by_length(waiting, oldest)
        low, high, total = at, at + 1, oldest.length
        longest, more_low, more_high = oldest.length, True, True
        while high - low < self.max_batch_size:
            more_low, more_high = more_low and low > 0, more_high and high < len(ranked)
            if not (more_low or more_high):
                break
            below = oldest.length - ranked[low - 1][0] if more_low else math.inf
            above = ranked[high][0] - oldest.length if more_high else math.inf
            length = ranked[low - 1][0] if below < above else ranked[high][0]
            if self._fits(high - low + 1, max(longest, length), total + length):
                low, high = (low - 1, high) if below < above else (low, high + 1)
                longest, total = max(longest, length), total + length
            elif below < above:
                more_low = False
            else:
                more_high = False
        # Jobs shorter than the first of the slice exist only if it does not begin at 0.
        chosen = _oldest_first(ranked, low, high) if low else ranked[:high]
        take = tuple([job for _, _, job in chosen])
        return Decision(
            take, reason=why_released(len(take), self.max_batch_size, waiting, len(ranked))
        )

    def _fits(self, count: int, longest: int, total: int) -> bool:
        padded = count * longest
        if self.max_tokens is not None and padded > self.max_tokens:
            return False
        return padded - total <= self.max_padding * padded

    _repr_mimebundle_ = in_a_cell


@built_in
@dataclass
class CoDel:
    """Wrap another policy; under sustained overload, drop requests that waited over `target`.

    A queue that absorbs bursts becomes short again now and then. If the oldest request has waited
    more than `target` seconds for a whole `interval`, the queue only adds delay. Until it is short
    again, requests that have waited longer than `target` are dropped, oldest first. A full batch
    of `policy` always remains.

    Choose `target` well below the time-out of clients, and above the duration of a batch. If no
    such value exists, prefer ``refuse_late=True``, which rejects requests by their predicted wait.

    Controlled delay is from Nichols and Jacobson, "Controlling Queue Delay" (ACM Queue, 2012). The
    variant for servers, a short time-out while the queue is never empty, is from Maurer, "Fail at
    Scale" (ACM Queue, 2015).
    """

    if TYPE_CHECKING:  # a class or a text is converted to a policy

        def __init__(
            self, policy: PolicyLike = ..., target: float = ..., interval: float = ...
        ) -> None: ...

    policy: Policy = field(default_factory=LengthAware)
    target: float = 0.25
    interval: float = 1.0
    #: since when the oldest job was over `target` in every decision
    _late_since: float | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.policy = as_policy(self.policy)
        normalize_number(self, "target", "a number of seconds >= 0")
        normalize_number(self, "interval", "a number of seconds >= 0")

    def decide(self, waiting: Sequence[Job], now: float) -> Decision:
        """Drop late jobs if the queue was late for a whole interval; else ask the other policy."""
        if now < waiting[0].arrived + self.target:
            self._late_since = None
        elif self._late_since is None or now < self._late_since:  # on the clock of a simulation
            self._late_since = now
        elif now >= self._late_since + self.interval:
            surplus = len(waiting) - getattr(self.policy, "max_batch_size", 1)
            oldest = islice(waiting, max(0, surplus))
            late = takewhile(lambda job: now >= job.arrived + self.target, oldest)
            if drop := tuple(late):
                return Decision(drop=drop)
        return self.policy.decide(waiting, now)

    @property
    def online_cost(self) -> Any:
        """The online cost model of the other policy, if it has one."""
        return getattr(self.policy, "online_cost", None)

    def observe(self, batch: BatchRecord) -> None:
        """Let the other policy learn."""
        observe = getattr(self.policy, "observe", None)
        if observe is not None:
            observe(batch)

    _repr_mimebundle_ = in_a_cell


def _oldest_first(
    ranked: Sequence[tuple[int, int, Job]], low: int, high: int
) -> Sequence[tuple[int, int, Job]]:
    """Return ``ranked[low:high]``, but choose the oldest among jobs of the shortest length."""
    shortest = ranked[low][0]
    above = bisect_left(ranked, (shortest + 1,), low, high)
    first = bisect_left(ranked, (shortest,), 0, low)
    return [*ranked[first : first + above - low], *ranked[above:high]]


def why_released(taken: int, limit: int, waiting: Sequence[Job], mates: int | None = None) -> str:
    """Return the reason for the size of a batch, for a policy that never waits."""
    if taken == limit:
        return "full"
    if mates is not None and taken < mates:
        return "budget"
    return "group" if taken < len(waiting) else "idle"
