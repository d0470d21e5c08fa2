"""The policies of a run: when each was in effect, and a description of them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace

from ..display import duration
from ..records import PolicyChange

#: if there are more changes than this, those in the middle are only counted
MOST_LISTED = 5


def policies_between(
    changes: Iterable[PolicyChange], start: float, end: float
) -> tuple[str, tuple[PolicyChange, ...]]:
    """Return the policy in effect at `start`, and the changes up to `end`, timed from `start`.

    Replacing a policy by one with the same ``repr`` is not a change. The policy is empty if
    `changes` do not reach back to `start`.
    """
    first, during = "", list[PolicyChange]()
    for change in changes:
        before = during[-1].policy if during else first
        if change.at <= start:
            first = change.policy
        elif change.at <= end and change.policy != before:
            during.append(replace(change, at=change.at - start))
    return first, tuple(during)


def policy_at(first: str, changes: Sequence[PolicyChange], at: float) -> str:
    """Return the policy in effect at time `at`, where `first` was in effect before `changes`."""
    place = bisect_right([change.at for change in changes], at)
    return changes[place - 1].policy if place else first


def policies_in_words(first: str, changes: Sequence[PolicyChange]) -> str:
    """Describe the policies in order: ``NoBatching() until 2.10 s, then Greedy(8)``."""
    names = [first or "unknown", *map(_describe, changes)]
    parts = [
        f"{name} until {duration(change.at)}" for name, change in zip(names, changes, strict=False)
    ]
    if len(changes) > MOST_LISTED:
        parts[2:-1] = [f"{len(changes) - 3} others"]
    return ", then ".join([*parts, names[-1]])


def _describe(change: PolicyChange) -> str:
    failed = " (the previous policy failed)" if change.reason == "fault" else ""
    return f"{change.policy}{failed}"
