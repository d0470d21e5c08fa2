"""Supervision of a worker process: start it, wait for its end, and start it again."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import LoaderFailed, StartError
from ..models.base import Model, Prepared
from .runtime_tuning import SWITCH_INTERVAL
from .shared_model import SharedModel
from .torch_settings import is_chosen_by_user, process_environment
from .worker_process import Disconnected, LoadMessage, ProcessDied, WorkerProcess

logger = logging.getLogger("notebook_serve")

#: seconds before the second start in a row without a batch that ran between, and at most
FIRST_DELAY, LONGEST_DELAY = 0.1, 30.0
#: failed starts in a row after which batches fail instead of waiting for the process
MAX_FAILED_STARTS = 3
#: seconds that an idle process has to end by itself
GRACE = 0.5


class CannotStart(Exception):
    """The error that no process can be started to run these inputs."""


class ModelSource:
    """The model or loader of a server, packed once for all of its processes."""

    def __init__(self, given: Any, is_loader: bool, show: Callable[[int, int], None]) -> None:
        self._given, self._show = given, show
        self.is_loader = is_loader
        self._lock = threading.Lock()
        self._packed: SharedModel | None = None

    def pack(self) -> SharedModel:
        """Return it packed. Raises `StartError` if it cannot be sent to a process."""
        with self._lock:
            if self._packed is None:
                kind = "loader" if self.is_loader else "model"
                try:
                    self._packed = SharedModel.pack(self._given, self._show)
                except (StartError, OSError):
                    raise
                except Exception as error:
                    raise StartError(
                        f"the {kind} cannot be sent to a process ({type(error).__name__}: {error})"
                        + "; give loader=..., a function that makes it there" * (kind == "model")
                    ) from error
            return self._packed

    def release(self) -> None:
        """Release the memory; the next start packs again."""
        with self._lock:
            if self._packed is not None:
                self._packed.close()
            self._packed = None


class Supervisor:
    """An `Executor` with the model in another process, which is replaced whenever it dies.

    From `load` to `join` one thread starts each process and waits for its end, so that the next
    process is ready before a batch needs it. (On Linux a process also ends with the thread that
    started it.)
    """

    kind = "process"
    ready = False

    def __init__(
        self,
        source: ModelSource,
        name: str,
        *,
        device: str = "",
        returns_copy: bool = False,
        workers: int = 1,
        threads: int | None = None,
    ) -> None:
        self.device = device
        self._threads = threads
        self._source, self._name = source, name
        self._returns_copy, self._workers = returns_copy, workers
        self._changed = threading.Condition()
        #: held while a process runs a batch; its resources are not released before
        self._calling = threading.Lock()
        self._closing = threading.Event()
        self._restarts = Counter[str]()
        #: the inputs of the newest batch during which a process died
        self._suspects: Sequence[Prepared] = ()
        self._thread: threading.Thread | None = None
        self._model: Model | None = None
        self._reset()

    def _reset(self) -> None:
        #: the running process, and True if its model is ready
        self._process: WorkerProcess | None = None
        self._is_loaded = False
        #: True if the process has run a batch, and if it runs one now
        self._has_run = self._is_busy = False
        #: the newest process that has ended, and its cause of death
        self._ended: tuple[WorkerProcess, str] | None = None
        #: why this supervisor killed it; empty if it did not
        self._reason = ""
        #: failed starts in a row, and the error of the last one
        self._failures, self._error = 0, Exception()
        self._closing.clear()

    # -- as an executor -----------------------------------------------------------------

    def begin(self) -> None:
        """Pack the model. Raises `StartError` if it cannot be sent to a process."""
        packed = self._source.pack()
        self._reset()
        self._restarts.clear()
        self._message = LoadMessage(
            packed,
            self._source.is_loader,
            self.device,
            self._returns_copy,
            self._threads,
            adapts=self._threads is None and not is_chosen_by_user(),
        )
        self._environment = process_environment(self._threads, self._workers)
        self._thread = threading.Thread(target=self._supervise, name=self._name, daemon=True)
        SWITCH_INTERVAL.hold(self)

    def load(self) -> Model | None:
        """Start the first process; return its copy of the model without weights, if wanted.

        Raises the exception of the loader, or `LoaderFailed` if the process dies.
        """
        assert self._thread is not None
        self._thread.start()
        with self._changed:
            self._changed.wait_for(
                lambda: self._is_loaded or self._failures or self._closing.is_set()
            )
            if self._failures:
                raise self._error
            return self._model

    def run(self, items: Sequence[Prepared]) -> list[Any]:
        """Run a batch in the process.

        Raises the exception of the model, `ProcessDied` if the process ends, or `CannotStart`.
        """
        process = self._wait_for_process()
        try:
            with self._calling:
                outputs = process.run(items)
        except Disconnected:
            died = ProcessDied(f"the worker process died: {self._wait_for_end(process)}")
            died.has_streamed = process.has_streamed
            raise died from None
        finally:
            with self._changed:
                self._is_busy = False
        self._has_run = True
        return outputs

    def again(self, error: Exception, items: Sequence[Prepared]) -> bool:
        """Return True if a process died of a single input for the first time.

        The process may have been killed from outside. An input that was also in the last batch
        during which a process died has had its second chance.
        """
        if not isinstance(error, ProcessDied) or error.has_streamed:
            return False  # a second run would stream the same text again
        is_known = any(items[0] is suspect for suspect in self._suspects)
        self._suspects = items
        return len(items) == 1 and not is_known

    def interrupt(self, reason: str) -> None:
        """Kill the process if it runs a batch."""
        with self._changed:
            if self._process is not None and self._is_busy:
                self._reason = reason
                self._process.kill()

    def close(self) -> None:
        """Let the process end; kill it if it loads or runs a batch."""
        with self._changed:
            self._closing.set()
            self._changed.notify_all()
            if self._process is None:
                return
            if self._is_loaded and not self._is_busy:
                self._process.end()
            else:
                self._process.kill()

    def join(self) -> None:
        """Wait until the process has ended; kill it after `GRACE` seconds."""
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(GRACE)
            with self._changed:
                if self._process is not None:
                    self._process.kill()
            self._thread.join()
        self._source.release()
        SWITCH_INTERVAL.release(self)

    def pid(self) -> int | None:
        """Return the process id, or None while there is no process."""
        with self._changed:
            return None if self._process is None else self._process.pid

    def restarts(self) -> Mapping[str, int]:
        """Return the number of restarts since the start, by cause of death."""
        with self._changed:
            return dict(self._restarts)

    def warnings(self) -> list[str]:
        """Return what the process warns of: torch's threads are slow, or fewer than it has."""
        with self._changed:
            return [] if self._process is None else self._process.warnings

    # -- on the worker's thread ---------------------------------------------------------

    def _wait_for_process(self) -> WorkerProcess:
        """Return the process once its model is ready. Raises `CannotStart` if it cannot be."""
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._is_loaded or self._failures >= MAX_FAILED_STARTS or self._closing.is_set()
                )
            )
            if self._closing.is_set():
                raise CannotStart("the server is stopping")
            if not self._is_loaded:
                error = f"{type(self._error).__name__}: {self._error}"
                raise CannotStart(f"the worker process cannot be started again: {error}")
            assert self._process is not None
            self._is_busy = True
            return self._process

    def _wait_for_end(self, process: WorkerProcess) -> str:
        """Wait until a disconnected process has ended, and return its cause of death."""
        with self._changed:

            def has_ended() -> bool:
                return self._ended is not None and self._ended[0] is process

            if not self._changed.wait_for(has_ended, GRACE):
                process.kill()
                self._changed.wait_for(has_ended)
            assert self._ended is not None
            return self._ended[1]

    # -- on the supervisor's own thread --------------------------------------------------

    def _supervise(self) -> None:
        """Run one process after the other, until closed or the first fails to load."""
        useless, is_first = 0, True
        while not self._closing.wait(restart_delay(useless)):
            self._has_run = False
            cause, error = self._run_process()
            if self._closing.is_set():
                return
            with self._changed:
                if error is not None:
                    self._failures, self._error = self._failures + 1, error
                    self._changed.notify_all()
                    if is_first:
                        return
                    # Its message may name paths. It goes to the log only: statistics go over HTTP.
                    logger.warning(
                        "%s: the model cannot be loaded again", self._name, exc_info=error
                    )
                    cause = f"it could not load: {type(error).__name__}"
                self._restarts[cause] += 1
            if error is None:
                logger.warning("%s: ended (%s); starting it again", self._name, cause)
            useless, is_first = 0 if self._has_run else useless + 1, False

    def _run_process(self) -> tuple[str, Exception | None]:
        """Run one process to its end; return the cause, and the error if loading failed."""
        try:
            process = WorkerProcess(self._message, self._environment)
        except Exception as error:
            return "", LoaderFailed(f"no process can be started: {error}")
        with self._changed:
            self._process = process
            if self._closing.is_set():
                process.kill()
        failure = self._load_model(process)
        cause = process.wait()
        with self._changed:
            self._process, self._is_loaded = None, False
            cause, self._reason = self._reason or cause, ""
            self._ended = process, cause
            self._changed.notify_all()
        with self._calling:
            process.close()
        if isinstance(failure, Disconnected):
            failure = LoaderFailed(f"the process died while it loaded the model: {cause}")
        return cause, failure

    def _load_model(self, process: WorkerProcess) -> Exception | None:
        """Wait until the model of a process is ready; return the error if loading fails."""
        try:
            model = process.load()
        except Exception as error:
            return error
        with self._changed:
            self._model = model
            self._is_loaded, self._failures = True, 0
            self._changed.notify_all()
        return None


def restart_delay(useless: int) -> float:
    """Return the seconds before a start, after so many processes in a row that ran no batch."""
    return min(LONGEST_DELAY, FIRST_DELAY * 2 ** (useless - 1)) if useless else 0.0
