"""What runs a worker's batches: the model itself, here on the worker's own thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from .models import Model, Prepared


class Executor(Protocol):
    """Where a worker's batches run. `load` and `run` are called on the worker's thread only."""

    #: ``thread`` or ``process``
    kind: str
    #: where its model is, if that was asked for
    device: str

    @property
    def ready(self) -> bool:
        """Whether it can run at once, without loading."""

    def begin(self) -> None:
        """Before the worker's thread starts; raises what the person who starts it must know."""

    def load(self) -> Model | None:
        """Make the model ready; gives what prepares and finishes, if there is anything new."""

    def run(self, items: Sequence[Prepared]) -> list[Any]:
        """One raw output for each of `items`."""

    def again(self, error: Exception, items: Sequence[Prepared]) -> bool:
        """Whether a run that raised `error` says so little of `items` that it is worth another."""

    def interrupt(self, reason: str) -> None:
        """End the forward that runs, if that can be done; from any thread."""

    def close(self) -> None:
        """Let go of the model, if it need not be kept; from any thread, without waiting."""

    def join(self) -> None:
        """Wait until that is done."""

    def pid(self) -> int | None:
        """The number of the process where the model is, if that is another."""

    def restarts(self) -> Mapping[str, int]:
        """How often it had to start anew, by reason."""


class ThreadExecutor:
    """Runs the model on the worker's thread. `make` makes it, there, where `model` is None."""

    kind = "thread"

    def __init__(
        self, model: Model | None, make: Callable[[], Model] | None = None, device: str = ""
    ) -> None:
        self._model, self._make = model, make
        self.device = device

    @property
    def ready(self) -> bool:
        """Whether there is a model."""
        return self._model is not None

    def begin(self) -> None:
        """Nothing is in the way."""

    def load(self) -> Model | None:
        """Make the model, unless it was made before."""
        if self._model is None:
            assert self._make is not None
            self._model = self._make()
        return self._model

    def run(self, items: Sequence[Prepared]) -> list[Any]:
        """Run the model."""
        assert self._model is not None
        return self._model.run(items)

    def again(self, error: Exception, items: Sequence[Prepared]) -> bool:
        """What a model raises is due to its inputs."""
        return False

    def interrupt(self, reason: str) -> None:
        """Nothing: a thread cannot be ended."""

    def close(self) -> None:
        """Nothing: the model is kept, for the next start."""

    def join(self) -> None:
        """Nothing to wait for."""

    def pid(self) -> int | None:
        """It is this process."""
        return None

    def restarts(self) -> Mapping[str, int]:
        """A thread that dies is not started again by itself."""
        return {}
