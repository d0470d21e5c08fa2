"""A model that runs only when it is let, so that tests need not sleep."""

from __future__ import annotations

import threading
from typing import Any


class Gate:
    """A batch function that blocks until opened, and tells when it has begun."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.begun = threading.Event()
        self.calls: list[list[Any]] = []
        self.__name__ = "gate"

    def __call__(self, inputs: list[Any]) -> list[Any]:
        """Wait for the gate, then answer each input with itself."""
        self.calls.append(inputs)
        self.begun.set()
        assert self.opened.wait(60)
        return inputs


def eventually(condition: Any, what: str, seconds: float = 30.0) -> None:
    """Wait until another thread has made `condition` true; fail after a time no run should need."""
    tick = threading.Event()
    for _ in range(int(seconds / 0.002)):
        if condition():
            return
        tick.wait(0.002)
    raise AssertionError(f"never happened: {what}")


class Steps:
    """Counts the forwards of a pipeline's model, and holds or fails it from some on."""

    def __init__(self, pipe: Any, *, free: int = 1_000_000, fails_at: int = 0) -> None:
        self.count = 0
        self.opened = threading.Event()
        #: set once a forward is held
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
