"""The engines of one server, by the names of their models; one of them is the first."""

from __future__ import annotations

import threading
import time
from collections.abc import ItemsView, Iterator, ValuesView
from typing import Any

from ..errors import NoSuchModel
from ..queueing.merged_stats import state_of, together
from ..queueing.policies import label
from ..queueing.record_log import Errors
from ..queueing.stats import Stats
from .batch_runner import Tracer
from .engine import Engine

#: what the first model is called besides its own name
FIRST = "default"
#: states from which `start` starts
AT_REST = ("new", "stopped", "failed", "dead")


class EngineRegistry:
    """The engines by name, as a mapping is read; those that run are started and stopped together.

    The first answers to ``default`` as well. Reading needs no lock: a change makes a new table, and
    who holds an engine of the old one still gets answers until that is stopped.
    """

    def __init__(self, first: Engine) -> None:
        self.first = first
        self._table = {first.name: first}
        self._runs = False
        self._tracing: Tracer | None = None
        self._changing = threading.RLock()

    def __getitem__(self, name: str) -> Engine:
        """The engine of the model `name`; raises `NoSuchModel`, which says what there is."""
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
        """Names and engines, as they are just now; the first is first."""
        return self._table.items()

    def values(self) -> ValuesView[Engine]:
        """The engines, as they are just now; the first is first."""
        return self._table.values()

    def __repr__(self) -> str:
        return f"<EngineRegistry: {', '.join(self)}>"

    # -- coming and going -----------------------------------------------------------------

    def add(self, engine: Engine) -> Engine | None:
        """Let `engine` answer under its name, started if the others are.

        Returns the one that it replaces, which the caller has to stop.
        """
        with self._changing:
            engine.tracer = self._tracing
            if self._runs:
                engine.start()
            before = self._table.get(engine.name)
            self._table = {**self._table, engine.name: engine}
            return before

    def remove(self, name: str) -> Engine:
        """Take a model out, which the caller has to stop; raises `NoSuchModel`."""
        with self._changing:
            engine = self[name]
            self._table = {key: each for key, each in self._table.items() if each is not engine}
            return engine

    def start(self) -> None:
        """Start all that do not run; where one cannot, those are stopped again and it raises."""
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
        """Stop all, at the same time; `timeout` is for all together, in seconds."""
        with self._changing:
            self._runs = False
            others = [engine for engine in self._table.values() if engine is not self.first]
        give_up = time.monotonic() + timeout
        # Threads only where something is waited for: none can be made while the interpreter ends.
        threads = [_stopping(engine, timeout) for engine in others] if drain else []
        try:
            self.first.stop(drain, timeout)
            for engine in () if drain else others:
                engine.stop(drain, max(0.0, give_up - time.monotonic()))
        finally:
            for thread in threads:
                thread.join()

    @property
    def tracing(self) -> Tracer | None:
        """What makes the spans of all; None where none are asked for."""
        return self._tracing

    @tracing.setter
    def tracing(self, tracing: Tracer) -> None:
        with self._changing:
            self._tracing = tracing
            for engine in self._table.values():
                engine.tracer = tracing

    # -- looking at all -------------------------------------------------------------------

    @property
    def state(self) -> str:
        """The state of the server: that of the model which needs most attention."""
        return state_of(engine.state for engine in self._table.values())

    def stats(self) -> Stats:
        """Statistics of the whole, which have those of each model where there are several."""
        table = self._table
        if len(table) == 1:
            return self.first.stats()
        recorders = {name: engine.recorded() for name, engine in table.items()}
        each = {name: engine.stats(recorders[name]) for name, engine in table.items()}
        return together(each, list(recorders.values()))

    def errors(self) -> Errors:
        """The newest errors of all models, newest first."""
        every = (error for engine in self._table.values() for error in engine.errors())
        return Errors(sorted(every, key=lambda error: error.at, reverse=True))

    def overview(self) -> list[dict[str, Any]]:
        """What each model is and does just now, as plain JSON values, the first one first."""
        return [summary(engine) for engine in self._table.values()]


def summary(engine: Engine) -> dict[str, Any]:
    """What a model is and does just now, as plain JSON values."""
    model = engine.model
    return {
        "name": engine.name,
        "state": engine.state,
        "task": None if model is None else model.task,
        "model": None if model is None else model.name,
        "policy": label(engine.policy),
        "waiting": engine.depth,
    }


def _stopping(engine: Engine, timeout: float) -> threading.Thread:
    thread = threading.Thread(target=engine.stop, args=(True, timeout), daemon=True)
    thread.name = f"notebook-serve {engine.name} stop"
    thread.start()
    return thread
