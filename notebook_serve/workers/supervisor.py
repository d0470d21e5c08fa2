"""Keeps a process with the model alive: starts it, waits for its end, and starts it again."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import LoaderFailed, StartError
from ..models.base import Model, Prepared
from .runtime_tuning import SWITCHING
from .shared_model import Parcel
from .torch_settings import environment, is_chosen
from .worker_process import Process, ProcessDied, Silent, Start

logger = logging.getLogger("notebook_serve")

#: seconds before a second start in a row without a batch that ran between, and the most
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30.0
#: so many starts in a row that come to nothing, and batches fail instead of waiting
STARTS = 3
#: seconds that an idle process has to end by itself
GRACE = 0.5


class CannotStart(Exception):
    """There is no process to run these inputs, and none can be started."""


class Cargo:
    """What processes are sent: packed by whoever asks first, for all of them."""

    def __init__(self, given: Any, loads: bool, show: Callable[[int, int], None]) -> None:
        self._given, self._show = given, show
        self.loads = loads
        self._lock = threading.Lock()
        self._parcel: Parcel | None = None

    def pack(self) -> Parcel:
        """The parcel. Raises `StartError` if what was given cannot be sent."""
        with self._lock:
            if self._parcel is None:
                what = "loader" if self.loads else "model"
                try:
                    self._parcel = Parcel.pack(self._given, self._show)
                except (StartError, OSError):
                    raise
                except Exception as error:
                    raise StartError(
                        f"the {what} cannot be sent to a process ({type(error).__name__}: {error})"
                        + "; give loader=..., a function that makes it there" * (not self.loads)
                    ) from error
            return self._parcel

    def release(self) -> None:
        """Give the parcel back; the next start packs anew."""
        with self._lock:
            if self._parcel is not None:
                self._parcel.close()
            self._parcel = None


class Keeper:
    """An `Executor` whose model is in another process, which is replaced whenever it dies.

    One thread, from `load` to `join`, starts each process and waits for its end, so that the next
    is there before it is wanted. (On Linux a process also ends with the thread that started it.)
    """

    kind = "process"
    ready = False

    def __init__(
        self,
        cargo: Cargo,
        name: str,
        *,
        device: str = "",
        front: bool = False,
        workers: int = 1,
        threads: int | None = None,
    ) -> None:
        self.device = device
        self._threads = threads
        self._cargo, self._name = cargo, name
        self._front, self._workers = front, workers
        self._changed = threading.Condition()
        #: held while a process is asked; one that is, is not given back
        self._asking = threading.Lock()
        self._closing = threading.Event()
        self._restarts = Counter[str]()
        self._suspects: Sequence[Prepared] = ()
        self._thread: threading.Thread | None = None
        self._model: Model | None = None
        self._begin_anew()

    def _begin_anew(self) -> None:
        #: the one that runs, and whether its model is ready
        self._process: Process | None = None
        self._loaded = False
        #: whether it has run a batch, and whether it runs one now
        self._useful = self._busy = False
        #: what the newest to end has ended by, and what it was ended for
        self._ended: tuple[Process, str] | None = None
        self._reason = ""
        #: starts in a row that came to nothing, and what the last of them came to
        self._failures, self._error = 0, Exception()
        self._closing.clear()

    # -- as an executor -----------------------------------------------------------------

    def begin(self) -> None:
        """Pack what is to be sent."""
        parcel = self._cargo.pack()
        self._begin_anew()
        self._restarts.clear()
        adapts = self._threads is None and not is_chosen()
        self._start = Start(
            parcel, self._cargo.loads, self.device, self._front, self._threads, adapts
        )
        self._environment = environment(self._threads, self._workers)
        self._thread = threading.Thread(target=self._keep, name=self._name, daemon=True)
        SWITCHING.hold(self)

    def load(self) -> Model | None:
        """Start the first process; gives its model without weights, if that is wanted.

        Raises what its loader raises, or `LoaderFailed` if it dies of it.
        """
        assert self._thread is not None
        self._thread.start()
        with self._changed:
            self._changed.wait_for(lambda: self._loaded or self._failures or self._closing.is_set())
            if self._failures:
                raise self._error
            return self._model

    def run(self, items: Sequence[Prepared]) -> list[Any]:
        """Run a batch there.

        Raises what the model raises, `ProcessDied` if it dies meanwhile, or `CannotStart`.
        """
        process = self._wait_for_process()
        try:
            with self._asking:
                outputs = process.ask(items)
        except Silent:
            died = ProcessDied(self._end_of(process))
            died.spoken = process.spoken
            raise died from None
        finally:
            with self._changed:
                self._busy = False
        self._useful = True
        return outputs

    def again(self, error: Exception, items: Sequence[Prepared]) -> bool:
        """Whether a single input is to be run once more, because something else may be at fault.

        The process may have been killed from outside. An input that was in the batch before, which
        also died, has had its second chance.
        """
        if not isinstance(error, ProcessDied) or error.spoken:
            return False  # what was heard once must not be heard again
        known = any(items[0] is suspect for suspect in self._suspects)
        self._suspects = items
        return len(items) == 1 and not known

    def interrupt(self, reason: str) -> None:
        """End the process in the middle of its batch."""
        with self._changed:
            if self._process is not None and self._busy:
                self._reason = reason
                self._process.kill()

    def close(self) -> None:
        """Let the process end, at once if it runs something."""
        with self._changed:
            self._closing.set()
            self._changed.notify_all()
            if self._process is None:
                return
            if self._loaded and not self._busy:
                self._process.end()
            else:
                self._process.kill()

    def join(self) -> None:
        """Wait until the process has ended; it is killed if that takes long."""
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(GRACE)
            with self._changed:
                if self._process is not None:
                    self._process.kill()
            self._thread.join()
        self._cargo.release()
        SWITCHING.let_go(self)

    def pid(self) -> int | None:
        """The number of the process in the system; None while there is none."""
        with self._changed:
            return None if self._process is None else self._process.pid

    def restarts(self) -> Mapping[str, int]:
        """How often a process ended, and why, since the start."""
        with self._changed:
            return dict(self._restarts)

    def warnings(self) -> list[str]:
        """Say if torch's threads are fewer than it has in the process, or slow."""
        with self._changed:
            return [] if self._process is None else self._process.warnings

    # -- on the worker's thread ---------------------------------------------------------

    def _wait_for_process(self) -> Process:
        with self._changed:
            self._changed.wait_for(
                lambda: self._loaded or self._failures >= STARTS or self._closing.is_set()
            )
            if self._closing.is_set():
                raise CannotStart("the server stops")
            if not self._loaded:
                raise CannotStart(
                    f"the worker's process cannot be started again: {_in_short(self._error)}"
                )
            assert self._process is not None
            self._busy = True
            return self._process

    def _end_of(self, process: Process) -> str:
        """Wait until it is known what a process died of, and say that."""
        with self._changed:

            def known() -> bool:
                return self._ended is not None and self._ended[0] is process

            if not self._changed.wait_for(known, GRACE):
                process.kill()  # it does not talk any more, and does not end either
                self._changed.wait_for(known)
            assert self._ended is not None
            return f"the worker's process died: {self._ended[1]}"

    # -- on its own thread --------------------------------------------------------------

    def _keep(self) -> None:
        """One process after the other, until closed or the first comes to nothing."""
        row, first = 0, True
        while not self._closing.wait(pause(row)):
            self._useful = False
            end, error = self._live()
            if self._closing.is_set():
                return
            with self._changed:
                if error is not None:
                    self._failures, self._error = self._failures + 1, error
                    self._changed.notify_all()
                    if first:
                        return
                    # What it said may name places, and is for the log: statistics go over HTTP.
                    logger.warning(
                        "%s: the model cannot be loaded again", self._name, exc_info=error
                    )
                    end = f"it could not load: {type(error).__name__}"
                self._restarts[end] += 1
            if error is None:
                logger.warning("%s: ended (%s) and is started again", self._name, end)
            row, first = 0 if self._useful else row + 1, False

    def _live(self) -> tuple[str, Exception | None]:
        """The life of one process: what it ended by, and why it had no model if it had none."""
        try:
            process = Process(self._start, self._environment)
        except Exception as error:
            return "", LoaderFailed(f"no process can be started: {error}")
        with self._changed:
            self._process = process
            if self._closing.is_set():
                process.kill()
        wrong = self._load(process)
        end = process.wait()
        with self._changed:
            self._process, self._loaded = None, False
            end, self._reason = self._reason or end, ""
            self._ended = process, end
            self._changed.notify_all()
        with self._asking:
            process.close()
        if isinstance(wrong, Silent):
            wrong = LoaderFailed(f"the process died while it loaded the model: {end}")
        return end, wrong

    def _load(self, process: Process) -> Exception | None:
        """Wait until the model of a process is ready; or what is raised instead."""
        try:
            model = process.load()
        except Exception as error:
            return error
        with self._changed:
            self._model = model
            self._loaded, self._failures = True, 0
            self._changed.notify_all()
        return None


def pause(row: int) -> float:
    """Seconds before a start, where `row` processes in a row ended without a batch that ran."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (row - 1)) if row else 0.0


def _in_short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
