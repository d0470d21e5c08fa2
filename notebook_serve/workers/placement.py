"""Placement of workers: threads or processes, their number, and their devices."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from typing import Any, Literal, get_args

from ..errors import OptionError
from ..models.base import Model
from ..models.devices import call_loader, move_to_device, takes_device
from ..models.factory import as_model, is_own_pipeline
from ..validation.checks import shown
from .executors import Executor, ThreadExecutor

Kind = Literal["thread", "process"]

#: more workers than this must be a mistake
MOST_WORKERS = 64
#: no machine has cores for more of torch's threads than this
MOST_THREADS = 1024


@dataclass(frozen=True)
class Placement:
    """The kind of a server's workers, the device of each, and its number of torch's threads."""

    kind: Kind = "thread"
    #: one for each worker; empty to leave the model where it is
    devices: tuple[str, ...] = ("",)
    #: torch's threads for each worker; None for its share of those that torch has
    threads: int | None = None

    @classmethod
    def of(
        cls,
        worker: Kind,
        workers: int | None,
        devices: Sequence[str] | None,
        threads: int | None = None,
    ) -> Placement:
        """Check options of `serve` and return them as one. Raises `OptionError`."""
        if not isinstance(worker, str) or worker not in get_args(Kind):
            raise OptionError(f"`worker` must be 'thread' or 'process', got {worker!r}")
        if worker == "process" and sys.platform == "win32":
            raise OptionError("worker='process' needs Linux or macOS; leave it out on Windows")
        given = workers is not None
        if given and (isinstance(workers, bool) or not isinstance(workers, Integral)):
            raise OptionError(f"`workers` must be a whole number, got {workers!r}")
        if workers is not None and not 1 <= workers <= MOST_WORKERS:
            raise OptionError(f"`workers` must be a number from 1 to {MOST_WORKERS}, got {workers}")
        threads = _validate_threads(threads)
        if devices is None:
            return cls(worker, ("",) * int(workers or 1), threads)
        several = isinstance(devices, Sequence) and not isinstance(devices, str)
        if not several or not devices or not all(isinstance(d, str) and d for d in devices):
            hint = f"; write devices=[{devices!r}]" if isinstance(devices, str) and devices else ""
            raise OptionError(
                f"`devices` must be a list such as ['cuda:0', 'cuda:1'], got {devices!r}{hint}"
            )
        if workers not in (None, len(devices)):
            raise OptionError(
                f"`workers` must be {len(devices)}, one for each of `devices`, got {workers}"
            )
        return cls(worker, tuple(devices), threads)

    def __str__(self) -> str:
        kinds = {"thread": ("thread", "threads"), "process": ("process", "processes")}
        where = "" if not any(self.devices) else f" on {', '.join(self.devices)}"
        return f"{self.workers} {kinds[self.kind][self.workers > 1]}{where}"

    @property
    def workers(self) -> int:
        """The number of workers."""
        return len(self.devices)

    def executors(
        self,
        model: Any,
        loader: Callable[..., Any] | None,
        made: Model | None,
        name: str,
        show: Callable[[int, int], None],
    ) -> list[Executor]:
        """Return an executor for each worker; `made` is the engine's own form of `model`.

        While a model is sent to processes, `show` is called with the bytes so far and their total.
        """
        if model is not None and any(self.devices):
            self._check_movable(model)
        if self.kind == "process":
            from .supervisor import ModelSource, Supervisor  # these need an extra

            source = ModelSource(loader if model is None else model, model is None, show)
            return [
                Supervisor(
                    source,
                    f"notebook-serve {name} process {n}",
                    device=device,
                    returns_copy=model is None and n == 0,
                    workers=self.workers,
                    threads=self.threads,
                )
                for n, device in enumerate(self.devices)
            ]
        if self.workers == 1 and self.devices == ("",):
            make = None if loader is None else partial(_load, loader)
            return [ThreadExecutor(made, make, threads=self.threads)]
        factory = ThreadModelFactory(model, loader, self.workers)
        return [
            ThreadExecutor(None, partial(factory.make, device), device, self.threads, self.workers)
            for device in self.devices
        ]

    def _check_movable(self, model: Any) -> None:
        if not is_own_pipeline(model):
            raise OptionError(
                f"`devices` cannot move a {type(model).__name__}, only a pipeline; give a loader "
                "with a parameter `device`"
            )


def _load(loader: Callable[[], Any]) -> Model:
    return as_model(loader())


class ThreadModelFactory:
    """A factory of the models of several threads, which share the weights of a pipeline.

    A pipeline of transformers only reads its weights, and each worker has its own tokenizers. Any
    other model may not be safe to run on two threads at once, so each needs its own.
    """

    def __init__(self, model: Any, loader: Callable[..., Any] | None, workers: int) -> None:
        if model is not None and workers > 1 and not is_own_pipeline(model):
            raise OptionError(
                f"{workers} threads cannot share one {type(model).__name__}: it may not be safe to "
                "run on two at once; give loader=..., which is called for each, or worker='process'"
            )
        self._loader = loader
        self._lock = threading.Lock()
        self._pipe = model

    def make(self, device: str) -> Model:
        """Make the model of one worker; called on its thread."""
        with self._lock:
            model, is_placed = self._pipe, False
            if model is None:
                assert self._loader is not None
                is_placed = bool(device) and takes_device(self._loader)
                model = call_loader(self._loader, device) if is_placed else self._loader()
                if is_own_pipeline(model) and not is_placed:
                    self._pipe = model
            if not is_placed:
                model = move_to_device(model, device, own=False)
        return as_model(model)


def _validate_threads(threads: Any) -> int | None:
    whole = isinstance(threads, Integral) and not isinstance(threads, bool)
    if threads is not None and not (whole and 1 <= threads <= MOST_THREADS):
        raise OptionError(
            f"`threads` must be a whole number >= 1 and <= {MOST_THREADS}, or None for torch's "
            f"default, got {shown(threads)}"
        )
    return None if threads is None else int(threads)
