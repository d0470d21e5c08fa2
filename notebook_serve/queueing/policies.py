"""Policies: which of the waiting jobs to run next, and when.

A policy is a pure function of ``(waiting, now)``: it sees no lock, no future and no clock, so the
same object runs in a live server and in a simulation. Those here are frozen values whose ``repr``
pastes back; any object with a fitting ``decide`` works the same.
"""

from __future__ import annotations

import math
import operator
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from ..display import described, safe_repr
from ..errors import OptionError
from ..records import BatchRecord
from .jobs import Decision, Job
from .policy_kinds import as_policy, built_in
from .waiting_line import by_length, mates


@runtime_checkable
class Policy(Protocol):
    """Decides which jobs run next.

    A policy may also have ``observe(batch: BatchRecord) -> None``, called after every batch that
    ran, to learn from it.
    """

    def decide(self, waiting: Sequence[Job], now: float) -> Decision:
        """Choose from `waiting` (never empty, oldest first) at time `now` (seconds).

        Called whenever the worker is free and something changed. Either take jobs of one group,
        or name the absolute time to be asked again; ``wake_at=math.inf`` with nothing taken would
        wait for ever and is refused.
        """


#: what may be given where a policy is wanted: one, its class, or its text, such as ``"Greedy(8)"``
PolicyLike: TypeAlias = Policy | type[Policy] | str


def label(policy: Policy) -> str:
    """What a policy is called in a table or a figure: its repr, but never an address.

    A policy whose repr fails is called by its class.
    """
    return safe_repr(policy)


def in_a_cell(policy: Policy, *more: str, **options: Any) -> dict[str, str]:
    """What a cell shows of a policy: its repr, what it does in one sentence, and `more`."""
    said = (type(policy).__doc__ or "").strip().partition("\n")[0]
    return described(label(policy), said, *more)


@built_in
@dataclass(frozen=True)
class NoBatching:
    """One request at a time, in the order of arrival."""

    def decide(self, waiting: Sequence[Job], now: float) -> Decision:
        """Take the oldest."""
        return Decision((waiting[0],), reason="full")

    _repr_mimebundle_ = in_a_cell


@built_in
@dataclass(frozen=True)
class ResettingWindow:
    """The familiar tutorial's loop, kept for its faults: no limit, and a wait that restarts.

    Requests that keep coming less than `max_wait` seconds apart are never answered.
    """

    max_wait: float = 0.001

    def __post_init__(self) -> None:
        _check_number(self, "max_wait", math.inf, "a number of seconds from 0 up")

    def decide(self, waiting: Sequence[Job], now: float) -> Decision:
        """Take everything once nothing has arrived for `max_wait` seconds."""
        quiet_at = waiting[-1].arrived + self.max_wait
        if now < quiet_at:
            return Decision(wake_at=quiet_at)
        return Decision(tuple(mates(waiting)), reason="deadline")

    _repr_mimebundle_ = in_a_cell


@built_in
@dataclass(frozen=True)
class Window:
    """Wait for a full batch, but at most `max_wait` seconds from the oldest's arrival.

    That is *one* deadline, which no later arrival moves.
    """

    max_batch_size: int = 16
    max_wait: float = 0.005

    def __post_init__(self) -> None:
        _check_size(self, "max_batch_size")
        _check_number(self, "max_wait", math.inf, "a number of seconds from 0 up")

    def decide(self, waiting: Sequence[Job], now: float) -> Decision:
        """Take the oldest and its mates when they fill a batch or the oldest has waited enough."""
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
    """Take what is there, up to `max_batch_size`, and never wait."""

    max_batch_size: int = 16

    def __post_init__(self) -> None:
        _check_size(self, "max_batch_size")

    def decide(self, waiting: Sequence[Job], now: float) -> Decision:
        """Take the oldest and its oldest mates."""
        take = mates(waiting, limit=self.max_batch_size)
        return Decision(tuple(take), reason=why_released(len(take), self.max_batch_size, waiting))

    _repr_mimebundle_ = in_a_cell


@built_in
@dataclass(frozen=True)
class LengthAware:
    """Take the oldest and the requests nearest to it in length, so that little is padding.

    Never waits, and never starves anybody: each batch is built around the oldest request. It grows
    towards the nearest lengths, to at most `max_batch_size` requests, while the share of padding
    stays within `max_padding` (0 to 1) and the padded tokens (requests times the longest) within
    `max_tokens`.
    """

    max_batch_size: int = 16
    max_padding: float = 0.15
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        _check_size(self, "max_batch_size")
        _check_number(self, "max_padding", 1.0, "a share from 0 to 1")
        if self.max_tokens is not None:
            _check_size(self, "max_tokens")

    def decide(self, waiting: Sequence[Job], now: float) -> Decision:
        """Take the oldest, then alternate towards shorter and longer mates, the nearer first."""
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
        take = tuple(job for _, _, job in _oldest_first(ranked, low, high))
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
    """Another policy, and under lasting overload a refusal of what has waited too long.

    A queue that is short again now and then does its work; one whose oldest request has waited
    more than `target` seconds for a whole `interval` only makes everybody late. Until it is short
    again, what has waited longer than `target` is refused, the oldest first, but never so much
    that less than a full batch of `policy` is left.

    Choose `target` well below the time that clients have, and above what a batch takes; without
    either, a server that refuses by predicted wait (``refuse_late=True``) needs no such policy.

    Controlled delay is from Nichols and Jacobson, "Controlling Queue Delay" (ACM Queue, 2012); the
    form that suits servers, a short time-out while the queue is never empty, from Maurer, "Fail at
    Scale" (ACM Queue, 2015).
    """

    if TYPE_CHECKING:  # a class or a text is made into a policy

        def __init__(
            self, policy: PolicyLike = ..., target: float = ..., interval: float = ...
        ) -> None: ...

    policy: Policy = field(default_factory=LengthAware)
    target: float = 0.25
    interval: float = 1.0
    #: since when every decision found the oldest waiting for too long
    _late_since: float | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.policy = as_policy(self.policy)
        _check_number(self, "target", math.inf, "a number of seconds from 0 up")
        _check_number(self, "interval", math.inf, "a number of seconds from 0 up")

    def decide(self, waiting: Sequence[Job], now: float) -> Decision:
        """Refuse what is late, if too much has been for too long, or ask the other policy."""
        if now < waiting[0].arrived + self.target:
            self._late_since = None
        elif self._late_since is None or now < self._late_since:  # another clock: a simulation's
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
    """``ranked[low:high]``, but of the shortest in it those that came first."""
    shortest = ranked[low][0]
    above = bisect_left(ranked, (shortest + 1,), low, high)
    first = bisect_left(ranked, (shortest,), 0, low)
    return [*ranked[first : first + above - low], *ranked[above:high]]


def why_released(taken: int, limit: int, waiting: Sequence[Job], mates: int | None = None) -> str:
    """Why a policy that never waits stopped where it did."""
    if taken == limit:
        return "full"
    if mates is not None and taken < mates:
        return "budget"
    return "group" if taken < len(waiting) else "idle"


def _check_size(policy: object, name: str) -> None:
    value = getattr(policy, name)
    try:
        size = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        size = 0
    if size < 1:
        raise OptionError(f"{name} is a whole number from 1 up, not {value!r}")
    object.__setattr__(policy, name, size)


def _check_number(policy: object, name: str, most: float, what: str) -> None:
    """Hold a field to a number from 0 to `most`, kept as a plain one, whose repr is plain."""
    value = getattr(policy, name)
    fits = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not fits or not 0 <= value <= most or value == math.inf:
        raise OptionError(f"{name} is {what}, not {value!r}")
    if isinstance(value, float):
        object.__setattr__(policy, name, float(value))
