"""Where the model runs: in threads or in processes, how many, and on which devices."""

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

#: more workers than this are a mistake
MOST_WORKERS = 64
#: so many of torch's threads no machine has cores for
MOST_THREADS = 1024


@dataclass(frozen=True)
class Placement:
    """Options of `serve`: the kind of its workers, and where each of them is."""

    kind: Kind = "thread"
    #: one for each worker; an empty one leaves the model where it is
    devices: tuple[str, ...] = ("",)
    #: of torch, for each worker; None for its share of those that torch has
    threads: int | None = None

    @classmethod
    def of(
        cls,
        worker: Kind,
        workers: int | None,
        devices: Sequence[str] | None,
        threads: int | None = None,
    ) -> Placement:
        """The same, from what a person says. Raises `OptionError` if it makes no sense."""
        if not isinstance(worker, str) or worker not in get_args(Kind):
            raise OptionError(f"worker is 'thread' or 'process', not {worker!r}")
        if worker == "process" and sys.platform == "win32":
            raise OptionError("worker='process' runs on Linux and macOS; Windows has threads only")
        given = workers is not None
        if given and (isinstance(workers, bool) or not isinstance(workers, Integral)):
            raise OptionError(f"workers is a whole number, not {workers!r}")
        if workers is not None and not 1 <= workers <= MOST_WORKERS:
            raise OptionError(f"workers is a number from 1 to {MOST_WORKERS}, not {workers}")
        threads = _checked_threads(threads)
        if devices is None:
            return cls(worker, ("",) * int(workers or 1), threads)
        several = isinstance(devices, Sequence) and not isinstance(devices, str)
        if not several or not devices or not all(isinstance(d, str) and d for d in devices):
            hint = f"; write devices=[{devices!r}]" if isinstance(devices, str) and devices else ""
            raise OptionError(
                f"devices is a list such as ['cuda:0', 'cuda:1'], not {devices!r}{hint}"
            )
        if workers not in (None, len(devices)):
            raise OptionError(f"{workers} workers cannot be on {len(devices)} devices, one each")
        return cls(worker, tuple(devices), threads)

    def __str__(self) -> str:
        kinds = {"thread": ("thread", "threads"), "process": ("process", "processes")}
        where = "" if not any(self.devices) else f" on {', '.join(self.devices)}"
        return f"{self.workers} {kinds[self.kind][self.workers > 1]}{where}"

    @property
    def workers(self) -> int:
        """How many workers there are."""
        return len(self.devices)

    def executors(
        self,
        model: Any,
        loader: Callable[..., Any] | None,
        made: Model | None,
        name: str,
        show: Callable[[int, int], None],
    ) -> list[Executor]:
        """What runs the batches of each worker; `made` is what the engine has made of `model`.

        `show` is told of the bytes of a model that is being sent to processes, and of how many.
        """
        if model is not None and any(self.devices):
            self._check_movable(model)
        if self.kind == "process":
            from .supervisor import Cargo, Keeper  # which need an extra

            cargo = Cargo(loader if model is None else model, model is None, show)
            return [
                Keeper(
                    cargo,
                    f"notebook-serve {name} process {n}",
                    device=device,
                    front=model is None and n == 0,
                    workers=self.workers,
                    threads=self.threads,
                )
                for n, device in enumerate(self.devices)
            ]
        if self.workers == 1 and self.devices == ("",):
            make = None if loader is None else partial(_loaded, loader)
            return [ThreadExecutor(made, make, threads=self.threads)]
        shared = Shared(model, loader, self.workers)
        return [
            ThreadExecutor(None, partial(shared.model, device), device, self.threads, self.workers)
            for device in self.devices
        ]

    def _check_movable(self, model: Any) -> None:
        if not is_own_pipeline(model):
            raise OptionError(
                "devices are for pipelines, which can be moved; of anything else give a loader "
                "with a parameter `device`"
            )


def _loaded(loader: Callable[[], Any]) -> Model:
    return as_model(loader())


class Shared:
    """What several threads run: one pipeline's weights, or for each what the loader makes.

    A pipeline of the library only reads its weights, and each worker has tokenizers of its own. Of
    any other model it is not known whether two threads may run it at once.
    """

    def __init__(self, model: Any, loader: Callable[..., Any] | None, workers: int) -> None:
        if model is not None and workers > 1 and not is_own_pipeline(model):
            raise OptionError(
                f"two threads may not run one {type(model).__name__} at once, for all that is "
                "known; give loader=..., which makes each worker its own, or worker='process'"
            )
        self._loader = loader
        self._lock = threading.Lock()
        self._pipe = model

    def model(self, device: str) -> Model:
        """A worker's model, made on its thread."""
        with self._lock:
            made, told = self._pipe, False
            if made is None:
                assert self._loader is not None
                told = bool(device) and takes_device(self._loader)
                made = call_loader(self._loader, device) if told else self._loader()
                if is_own_pipeline(made) and not told:
                    self._pipe = made
            if not told:
                made = move_to_device(made, device, own=False)
        return as_model(made)


def _checked_threads(threads: Any) -> int | None:
    whole = isinstance(threads, Integral) and not isinstance(threads, bool)
    if threads is not None and not (whole and 1 <= threads <= MOST_THREADS):
        raise OptionError(
            f"`threads` must be a whole number >= 1 and <= {MOST_THREADS}, or None for torch's "
            f"own, got {shown(threads)}"
        )
    return None if threads is None else int(threads)
