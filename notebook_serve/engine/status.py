"""The state of an engine, and the one lock that its parts share."""

from __future__ import annotations

import threading
from typing import Literal

from ..errors import ServeError

State = Literal["new", "loading", "ready", "stopping", "stopped", "failed", "dead"]


class Status:
    """State, cause and pause of an engine. The lock guards them and the open requests.

    One lock for both: a request that is accepted while the state changes would have no answer.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        #: notified when the state changes, and when the last open request is closed
        self.changed = threading.Condition(self.lock)
        self.state: State = "new"
        #: the error behind the states ``failed`` and ``dead``
        self.cause: ServeError | None = None
        #: True while the queue fills without being run
        self.paused = False

    def become(self, state: State) -> None:
        """Change the state and wake the threads that wait for that. The lock must be held."""
        self.state = state
        self.changed.notify_all()

    def wait_while(self, state: State, seconds: float) -> bool:
        """Wait at most `seconds` for another state than `state`; return True if there is one."""
        with self.changed:
            return self.changed.wait_for(lambda: self.state != state, max(0.0, seconds))
