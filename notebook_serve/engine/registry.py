"""The registry: the engines of one server by name; one of them is the first."""

from __future__ import annotations

import threading
import time
from collections.abc import ItemsView, Iterator, ValuesView
from typing import Any

from ..errors import NoSuchModel
from ..queueing.merged_stats import merge_stats, state_of
from ..queueing.policies import label
from ..queueing.record_log import Errors
from ..queueing.stats import Stats
from .batch_runner import Tracer
from .engine import Engine

#: a second name of the first model
FIRST = "default"
#: states in which `start` starts an engine
AT_REST = ("new", "stopped", "failed", "dead")


class EngineRegistry:
    """The engines by name, read like a mapping; they are started and stopped together.

    The first is also found as ``default``. Reading needs no lock, because a change makes a new
    table. An engine of the old table still answers until it is stopped.
    """

    def __init__(self, first: Engine) -> None:
        self.first = first
        self._table = {first.name: first}
        self._runs = False
        #: the maker of spans for all engines, if there is one; see `trace`
        self.tracing: Tracer | None = None
        self._changing = threading.RLock()

    def __getitem__(self, name: str) -> Engine:
        """Return the engine of a model. Raises `NoSuchModel`, which lists the names."""
        found = self._table.get(name)
        if found is not None:
            return found
        if name == FIRST:
            return self.first
        raise NoSuchModel(f"this server has no model {name!r}; it has {', '.join(self._table)}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)

    def items(self) -> ItemsView[str, Engine]:
        """Return the names and engines of now; the first is first."""
        return self._table.items()

    def values(self) -> ValuesView[Engine]:
        """Return the engines of now; the first is first."""
        return self._table.values()

    def __repr__(self) -> str:
        return f"<EngineRegistry: {', '.join(self)}>"

    # -- add and remove -----------------------------------------------------------------

    def add(self, engine: Engine) -> Engine | None:
        """Add `engine` under its name, and start it if the others run.

        Returns the engine that it replaces, which the caller must stop.
        """
        with self._changing:
            engine.runner.tracer = self.tracing
            if self._runs:
                engine.start()
            before = self._table.get(engine.name)
            self._table = {**self._table, engine.name: engine}
            return before

    def remove(self, name: str) -> Engine:
        """Remove and return an engine, which the caller must stop. Raises `NoSuchModel`."""
        with self._changing:
            engine = self[name]
            self._table = {key: each for key, each in self._table.items() if each is not engine}
            return engine

    def start(self) -> None:
        """Start the engines that do not run; if one cannot start, stop them again and raise."""
        with self._changing:
            resting = [engine for engine in self._table.values() if engine.state in AT_REST]
            try:
                for engine in resting:
                    engine.start()
            except BaseException:
                for engine in resting:
                    engine.stop(drain=False)
                raise
            self._runs = True

    def stop(self, drain: bool = True, timeout: float = 10.0) -> None:
        """Stop all engines at the same time, within `timeout` seconds in all."""
        with self._changing:
            self._runs = False
            others = [engine for engine in self._table.values() if engine is not self.first]
        give_up = time.monotonic() + timeout
        # Threads only to drain: no thread can be started while the interpreter ends.
        threads = [_stop_on_thread(engine, timeout) for engine in others] if drain else []
        try:
            self.first.stop(drain, timeout)
            for engine in () if drain else others:
                engine.stop(drain, max(0.0, give_up - time.monotonic()))
        finally:
            for thread in threads:
                thread.join()

    def trace(self, tracing: Tracer) -> None:
        """Let `tracing` make spans for all engines."""
        with self._changing:
            self.tracing = tracing
            for engine in self._table.values():
                engine.runner.tracer = tracing

    # -- inspection -------------------------------------------------------------------

    @property
    def state(self) -> str:
        """The state of the model that needs the most attention."""
        return state_of(engine.state for engine in self._table.values())

    def stats(self) -> Stats:
        """Return statistics of the server; of several models, also those of each."""
        table = self._table
        if len(table) == 1:
            return self.first.stats()
        recorders = {name: engine.requests.copy_recorder() for name, engine in table.items()}
        each = {name: engine.stats(recorders[name]) for name, engine in table.items()}
        return merge_stats(each, list(recorders.values()))

    def errors(self) -> Errors:
        """Return the newest errors of all models, newest first."""
        every = (error for engine in self._table.values() for error in engine.health.errors())
        return Errors(sorted(every, key=lambda error: error.at, reverse=True))

    def overview(self) -> list[dict[str, Any]]:
        """Return a summary of each model, as plain JSON values; the first is first."""
        return [summarize(engine) for engine in self._table.values()]


def summarize(engine: Engine) -> dict[str, Any]:
    """Return the names, state and queue of a model, as plain JSON values."""
    model = engine.model
    return {
        "name": engine.name,
        "state": engine.state,
        "task": None if model is None else model.task,
        "model": None if model is None else model.name,
        "policy": label(engine.policy),
        "waiting": engine.requests.depth,
    }


def _stop_on_thread(engine: Engine, timeout: float) -> threading.Thread:
    thread = threading.Thread(target=engine.stop, args=(True, timeout), daemon=True)
    thread.name = f"notebook-serve {engine.name} stop"
    thread.start()
    return thread
