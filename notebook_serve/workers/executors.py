"""Executors of batches: their protocol, and the one that runs the model on the worker's thread."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from ..models.base import Model, Prepared
from .torch_settings import (
    SETTING,
    computes_on_cpu,
    get_thread_count,
    has_compiled,
    is_chosen_by_user,
    set_thread_count,
    torch_is_loaded,
)
from .torch_threads import TorchThreads

logger = logging.getLogger("notebook_serve")


class Executor(Protocol):
    """A place to run a worker's batches. Only the worker's thread calls `load` and `run`."""

    #: ``thread`` or ``process``
    kind: str
    #: the device of its model; empty if none was given
    device: str

    @property
    def ready(self) -> bool:
        """Return True if it can run at once, without loading."""

    def begin(self) -> None:
        """Prepare, before the worker's thread starts. Raises `StartError` in the caller's cell."""

    def load(self) -> Model | None:
        """Load the model; return the one to prepare and finish with, or None to keep the old."""

    def run(self, items: Sequence[Prepared]) -> list[Any]:
        """Return one raw output for each of `items`."""

    def again(self, error: Exception, items: Sequence[Prepared]) -> bool:
        """Return True if `items` may not be the cause of `error`, and a second run may succeed."""

    def interrupt(self, reason: str) -> None:
        """End the current forward pass, if that is possible; from any thread."""

    def close(self) -> None:
        """Release the model, if it need not be kept; from any thread, without waiting."""

    def join(self) -> None:
        """Wait until the model is released."""

    def pid(self) -> int | None:
        """Return the id of the model's process, or None if it is this one."""

    def restarts(self) -> Mapping[str, int]:
        """Return the number of its restarts, by reason."""

    def warnings(self) -> list[str]:
        """Return sentences about what slows its forward passes; from any thread."""


class ThreadedModel:
    """A model, always run on the same thread, with a suitable number of torch's threads.

    `threads` fixes that number. Otherwise each of `workers` gets its share of the threads that
    torch has. The share is adapted (see `TorchThreads`) unless the user has chosen the number;
    `adapts` states that for a worker process, which cannot tell. It is set for this thread only.
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
        """Sentences about torch's threads, if these are slow or fewer than it has."""
        warning = "" if self._threads is None else self._threads.warning
        return [warning] if warning else []

    def run(self, items: Sequence[Prepared]) -> list[Any]:
        """Run the model, and learn from the seconds that it takes."""
        if not self._number and "torch" in sys.modules and torch_is_loaded():
            self._begin()
        if self._threads is None:
            return self.model.run(items)
        self._set(self._threads.number)
        begun = time.perf_counter()
        outputs = self.model.run(items)
        self._learn(self._threads, items, time.perf_counter() - begun)
        return outputs

    def _begin(self) -> None:
        """Set the first number, and find out if it may be adapted."""
        with SETTING:
            self._number = number = get_thread_count()
        most = self._fixed or max(1, number // self._workers)
        adapts = self._adapts
        if adapts is None:
            adapts = self._fixed is None and not is_chosen_by_user()
        self._set(most)
        if most > 1 and computes_on_cpu(self.model):
            self._threads = TorchThreads(most, adapts)

    def _learn(self, threads: TorchThreads, items: Sequence[Prepared], seconds: float) -> None:
        if threads.adapts and has_compiled():
            # Each other number would have torch compile the model again.
            self._threads = TorchThreads(threads.most, adapts=False)
            self._set(threads.most)
        elif threads.learn(len(items), max(item.length for item in items), seconds):
            message = "%s: torch uses %d of %d threads"
            logger.info(message, self.model.name, threads.chosen, threads.most)

    def _set(self, number: int) -> None:
        if number != self._number:
            set_thread_count(number)
            self._number = number


class ThreadExecutor:
    """An executor on the worker's thread. Where `model` is None, `make` makes it on that thread.

    `threads` fixes the number of torch's threads. Otherwise each of `workers` gets its share.
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
        """Return True if there is a model."""
        return self._model is not None

    def begin(self) -> None:
        """Do nothing: a thread needs no preparation."""

    def load(self) -> Model | None:
        """Make the model, unless there is one, and return it."""
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
        """Return False: an exception of the model is due to its inputs."""
        return False

    def interrupt(self, reason: str) -> None:
        """Do nothing: a thread cannot be interrupted."""

    def close(self) -> None:
        """Keep the model for the next start."""

    def join(self) -> None:
        """Return at once: there is nothing to wait for."""

    def pid(self) -> int | None:
        """Return None: the model is in this process."""
        return None

    def restarts(self) -> Mapping[str, int]:
        """Return nothing: a thread is not restarted."""
        return {}

    def warnings(self) -> list[str]:
        """Return a warning if torch's threads are slow, or fewer than it has."""
        return [] if self._threaded is None else self._threaded.warnings
