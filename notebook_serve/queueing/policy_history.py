"""The policies of a run: which was in effect when, and that in words."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace

from ..display import duration
from ..records import PolicyChange

#: more changes than this are counted, not listed
MOST_LISTED = 5


def policies_between(
    changes: Iterable[PolicyChange], start: float, end: float
) -> tuple[str, tuple[PolicyChange, ...]]:
    """The policy in effect at `start`, and the changes from then to `end`, timed from `start`.

    A policy that replaced one with the same ``repr`` is no change. The first is empty if `changes`
    do not reach back to `start`.
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
    """The policy in effect at a time, if `first` was before all `changes`."""
    place = bisect_right([change.at for change in changes], at)
    return changes[place - 1].policy if place else first


def policies_in_words(first: str, changes: Sequence[PolicyChange]) -> str:
    """All of them in order: ``NoBatching() until 2.10 s, then Greedy(8)``."""
    names = [first or "unknown", *map(_named, changes)]
    parts = [
        f"{name} until {duration(change.at)}" for name, change in zip(names, changes, strict=False)
    ]
    if len(changes) > MOST_LISTED:
        parts[2:-1] = [f"{len(changes) - 3} others"]
    return ", then ".join([*parts, names[-1]])


def _named(change: PolicyChange) -> str:
    return (
        f"{change.policy} (the policy before failed)"
        if change.reason == "fault"
        else (change.policy)
    )
