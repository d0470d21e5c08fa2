"""What runs a worker's batches: the model itself, here on the worker's own thread."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from ..models.base import Model, Prepared
from .torch_settings import (
    SETTING,
    computes_on_cpu,
    has_compiled,
    is_chosen,
    torch_is_loaded,
    torch_number,
    use_threads,
)
from .torch_threads import TorchThreads

logger = logging.getLogger("notebook_serve")


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

    def warnings(self) -> list[str]:
        """Sentences about what slows its forward passes; from any thread."""


class ThreadedModel:
    """Runs a model, always on the same thread, with the threads of torch that suit it.

    `threads` fixes the number. Otherwise each of `workers` has its share of the number that torch
    has. That is adapted (see `TorchThreads`) unless the user has chosen it; `adapts` says so where
    another process knows. The number is set for this thread only.
    """

    def __init__(
        self,
        model: Model,
        threads: int | None = None,
        workers: int = 1,
        adapts: bool | None = None,
    ) -> None:
        self.model = model
        self._fixed, self._workers, self._adapts = threads, workers, adapts
        self._threads: TorchThreads | None = None
        #: the number that this thread uses now; 0 before torch is loaded
        self._number = 0

    @property
    def warnings(self) -> list[str]:
        """Sentences about the threads of torch; none if all is well."""
        warning = "" if self._threads is None else self._threads.warning
        return [warning] if warning else []

    def run(self, items: Sequence[Prepared]) -> list[Any]:
        """Run the model, and learn from how long that takes."""
        if not self._number and torch_is_loaded():
            self._begin()
        if self._threads is None:
            return self.model.run(items)
        self._use(self._threads.number)
        begun = time.perf_counter()
        outputs = self.model.run(items)
        self._learn(self._threads, items, time.perf_counter() - begun)
        return outputs

    def _begin(self) -> None:
        """Set the number to start with, and find out if it may be changed."""
        with SETTING:
            self._number = number = torch_number()
        most = self._fixed or max(1, number // self._workers)
        adapts = self._adapts
        if adapts is None:
            adapts = self._fixed is None and not is_chosen()
        self._use(most)
        if most > 1 and computes_on_cpu(self.model):
            self._threads = TorchThreads(most, adapts)

    def _learn(self, threads: TorchThreads, items: Sequence[Prepared], seconds: float) -> None:
        if threads.adapts and has_compiled():
            # A compiled model would be compiled again for each other number.
            self._threads = TorchThreads(threads.most, adapts=False)
            self._use(threads.most)
        elif threads.learn(len(items), max(item.length for item in items), seconds):
            message = "%s: torch uses %d of %d threads"
            logger.info(message, self.model.name, threads.chosen, threads.most)

    def _use(self, number: int) -> None:
        if number != self._number:
            use_threads(number)
            self._number = number


class ThreadExecutor:
    """Runs the model on the worker's thread. `make` makes it, there, where `model` is None.

    `threads` fixes the number of torch's threads; else each of `workers` has its share of them.
    """

    kind = "thread"

    def __init__(
        self,
        model: Model | None,
        make: Callable[[], Model] | None = None,
        device: str = "",
        threads: int | None = None,
        workers: int = 1,
    ) -> None:
        self._model, self._make = model, make
        self._threads, self._workers = threads, workers
        self._threaded: ThreadedModel | None = None
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
        self._threaded = ThreadedModel(self._model, self._threads, self._workers)
        return self._model

    def run(self, items: Sequence[Prepared]) -> list[Any]:
        """Run the model."""
        assert self._threaded is not None
        return self._threaded.run(items)

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

    def warnings(self) -> list[str]:
        """Say if torch's threads are fewer than it has, or slow."""
        return [] if self._threaded is None else self._threaded.warnings
