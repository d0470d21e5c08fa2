"""The policy log: changes of the policy with their times and reasons."""

from __future__ import annotations

from notebook_serve import Greedy, NoBatching
from notebook_serve.engine.policy_log import KEEP_CHANGES, PolicyLog


def test_changes_are_kept_in_order() -> None:
    """Each change has its policy and its reason, and times rise."""
    log = PolicyLog()
    log.add(Greedy(4), "start")
    log.add(NoBatching(), "set")
    first, second = log.changes()
    assert (first.policy, first.reason) == (repr(Greedy(4)), "start")
    assert (second.policy, second.reason) == (repr(NoBatching()), "set")
    assert first.at <= second.at


def test_only_the_newest_changes_are_kept() -> None:
    """The log is bounded, and `clear` empties it."""
    log = PolicyLog()
    for size in range(1, KEEP_CHANGES + 11):
        log.add(Greedy(size), "set")
    assert len(log.changes()) == KEEP_CHANGES
    assert log.changes()[0].policy == repr(Greedy(11))
    log.clear()
    assert log.changes() == []
