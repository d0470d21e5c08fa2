"""The policy log: which policies took effect, when and why."""

from __future__ import annotations

import time
from collections import deque

from ..queueing.policies import Policy, label
from ..records import PolicyChange

#: number of changes that are kept
KEEP_CHANGES = 1000


class PolicyLog:
    """The newest policy changes since the start. Not thread-safe: its owner holds a lock."""

    def __init__(self) -> None:
        self._changes: deque[PolicyChange] = deque(maxlen=KEEP_CHANGES)

    def add(self, policy: Policy, reason: str) -> None:
        """Record that a policy takes effect now, at a ``start``, when ``set`` or by a ``fault``."""
        self._changes.append(PolicyChange(time.monotonic(), label(policy), reason))

    def changes(self) -> list[PolicyChange]:
        """Return the changes, the oldest first."""
        return list(self._changes)

    def clear(self) -> None:
        """Forget all changes."""
        self._changes.clear()
