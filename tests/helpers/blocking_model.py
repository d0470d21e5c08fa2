"""Models that block until a test lets them run, so that no test needs to sleep."""

from __future__ import annotations

import threading
from typing import Any


class Gate:
    """A batch function that sets `begun` when it is called and blocks until `opened` is set."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.begun = threading.Event()
        self.calls: list[list[Any]] = []
        self.__name__ = "gate"

    def __call__(self, inputs: list[Any]) -> list[Any]:
        """Wait for the gate, then return the inputs."""
        self.calls.append(inputs)
        self.begun.set()
        assert self.opened.wait(60)
        return inputs


def eventually(condition: Any, what: str, seconds: float = 30.0) -> None:
    """Wait until another thread makes `condition` true; fail after `seconds`."""
    tick = threading.Event()
    for _ in range(int(seconds / 0.002)):
        if condition():
            return
        tick.wait(0.002)
    raise AssertionError(f"never happened: {what}")


class Steps:
    """A counter of a model's forward passes, which blocks those after `free`, or fails one."""

    def __init__(self, pipe: Any, *, free: int = 1_000_000, fails_at: int = 0) -> None:
        self.count = 0
        self.opened = threading.Event()
        #: set once a forward pass blocks
        self.held = threading.Event()
        self._free, self._fails_at = free, fails_at
        pipe.model.register_forward_pre_hook(self._step)

    def _step(self, module: Any, arguments: Any) -> None:
        self.count += 1
        if self.count == self._fails_at:
            raise RuntimeError("a failing step")
        if self.count > self._free:
            self.held.set()
            assert self.opened.wait(60)
