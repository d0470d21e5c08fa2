"""The engine: takes requests from any thread and answers each exactly once.

    submit ──> desk thread ──> worker thread ──> desk thread ──> futures
    (any       (prepares:      (scheduler,       (finishes:
    thread)     tokenises)      executor)         labels)

An executor is what runs a worker's batches: the model, there on the thread or in a process.

`_open` is the truth about who still needs an answer. Whoever takes an entry out of it, under the
lock, answers it; so it does not matter how many find a reason to: the model, a deadline, a client
that has gone, a stop, or the death of the worker.
"""

from __future__ import annotations

import itertools
import logging
import math
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, Protocol

from ..errors import (
    CircuitOpen,
    DeadlineExceeded,
    InvalidInput,
    LoaderFailed,
    ModelFailed,
    NotReady,
    Overloaded,
    QueueFull,
    ServeError,
    StartError,
    Stopping,
    Unavailable,
    WorkerDead,
)
from ..models.base import FunctionModel, Model, Prepared
from ..models.bisection import Failure, run_isolated
from ..models.text import as_model
from ..progress import TICK, work_bar
from ..queueing.jobs import Batch, Job
from ..queueing.policies import Policy, label
from ..queueing.scheduler import FALLBACK, PolicyFault
from ..queueing.stats import LastError, News, Queue, Recorder, Stats, Unfinished, WorkerStats
from ..queueing.wait_estimate import USABLE, WaitEstimate
from ..records import BatchRecord, ErrorRecord, Outcome, PolicyChange, RequestRecord
from ..workers.executors import Executor, ThreadExecutor
from ..workers.out_of_memory import MemoryLimit, free_memory, is_out_of_memory
from ..workers.runtime_tuning import GC_THRESHOLD
from .circuit_breaker import CircuitBreaker
from .deadline_timer import DeadlineTimer
from .failures import BatchFailures, FailureStreak, NewestErrors, message_of
from .pre_post_thread import PrePostThread
from .worker_threads import WorkerThreads

logger = logging.getLogger("notebook_serve")

State = Literal["new", "loading", "ready", "stopping", "stopped", "failed", "dead"]

#: most seconds that a refusal tells a client to wait
MOST_RETRY_AFTER = 60
#: how many changes of the policy are kept
KEEP_CHANGES = 1000


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said, and how the request fared."""

    value: Any
    record: RequestRecord


@dataclass(slots=True, eq=False)
class Entry:
    """One accepted request, from acceptance to answer."""

    id: int
    arrived: float
    deadline: float
    client: str
    inputs: Any
    parameters: Mapping[str, Any]
    future: Future[Answer] = field(default_factory=Future)
    prepared: Prepared | None = None
    job: Job | None = None
    started: float | None = None
    batch_id: int | None = None
    batch_size: int = 0
    #: what tracing knows it by
    trace: Any = None


class Tracer(Protocol):
    """Who is told of batches, to make spans of them; nothing here may raise."""

    def current(self) -> Any:
        """What the request that is just submitted is known by."""

    def batch(self, model: str, record: BatchRecord, requests: Sequence[Any]) -> None:
        """A batch ran, of the `requests` that are known so. Called on the thread that answers."""

    def call(self, name: str, model: str) -> AbstractContextManager[None]:
        """Return the span of a call without HTTP, as a context manager."""

    def lasting(self, name: str, model: str) -> AbstractContextManager[AbstractContextManager[Any]]:
        """Return the span of a call that goes on between two steps of its caller."""


#: how an entry ends: the answer, or the error in its place
Ending = tuple[Entry, Outcome, Any]


class Unwanted(Exception):
    """Nobody waits any more for what would be run again."""


class Engine:
    """A model, a queue and the threads between them; knows nothing of HTTP.

    `model` is a pipeline or a batch function, or None with a `loader` that returns one; `timeout`
    is in seconds. There is a worker for each of `executors`; without any, one that runs the model
    on its thread. A batch that runs for `overtime` times as long as its requests had time for it
    is ended, where its executor can do that.
    """

    def __init__(
        self,
        model: Any,
        loader: Callable[[], Any] | None,
        policy: Policy,
        *,
        max_queue_size: int,
        timeout: float,
        name: str,
        refuse_late: bool = True,
        executors: Sequence[Executor] = (),
        overtime: float = math.inf,
    ) -> None:
        self.name = name
        self.refuse_late = refuse_late
        self.max_queue_size = max_queue_size
        self.timeout = timeout
        self.overtime = overtime
        self.model: Model | None = None if model is None else as_model(model)
        self.ceiling = MemoryLimit()
        self.breaker = CircuitBreaker()
        #: makes spans, where that was asked for
        self.tracer: Tracer | None = None
        self._given = self.model is not None
        self._executors = executors or [ThreadExecutor(self.model, partial(_loaded, loader))]
        self._policy = policy
        self._fault: PolicyFault | None = None
        self._changes: deque[PolicyChange] = deque(maxlen=KEEP_CHANGES)
        self._streak = FailureStreak()
        self._batch_failures = BatchFailures()
        #: of answers on their way to clients, after the model has given them
        self._sending = FailureStreak()
        self._errors = NewestErrors(self.name)
        self._cause: ServeError | None = None
        self._state: State = "new"
        self._paused = False
        self._lock = threading.Lock()
        #: notified when the state changes or the last open entry is closed
        self._changed = threading.Condition(self._lock)
        self._ids = itertools.count(1)
        self._open: dict[int, Entry] = {}
        #: when the batch of each worker that has one began
        self._running: dict[int, float] = {}
        #: the workers whose model is still to be made ready
        self._loading: set[int] = set()
        #: the executor of each batch that is to be ended if it runs for too long, by a number
        #: below zero, which no entry has
        self._limited: dict[int, Executor] = {}
        self._recorder = Recorder(time.monotonic())
        self._backlog = WaitEstimate()
        self._make_threads()

    # -- life ---------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """``new, loading, ready, failing, paused, stopping, stopped, failed`` or ``dead``.

        ``failing`` is ``ready`` with a model whose newest requests all failed; see `failing`.
        """
        if self._state != "ready":
            return self._state
        if self._paused:
            return "paused"
        return "failing" if self._fails else "ready"

    @property
    def _fails(self) -> bool:
        return self._streak.failing or self._sending.failing

    @property
    def cause(self) -> ServeError | None:
        """Why the state is ``failed`` or ``dead``."""
        return self._cause

    @property
    def workers(self) -> int:
        """How many batches can run at the same time."""
        return len(self._executors)

    def start(self) -> None:
        """Start the threads, and load the model where that is still to be done.

        Does nothing if the engine runs. Waits where a model, and no loader, must be sent to a
        process, and raises what prevents it. Raises `StartError` while a worker that was stopped
        is still busy: two threads must never own one model.
        """
        with self._lock:
            if self._state in ("loading", "ready", "stopping"):
                return
            before = self._state
            self._set_state("loading")
        if not self._end_threads(1.0):
            with self._lock:
                self._set_state(before)
            raise StartError(
                "the worker of before is still in a forward that outlasted stop(); "
                "start again when it is through"
            )
        try:
            for executor in self._executors:
                executor.begin()
        except BaseException:
            self._end_executors()
            with self._lock:
                self._set_state(before)
            raise
        with self._lock:
            self._make_threads()
            self._cause, self._paused = None, False
            self.breaker = CircuitBreaker()
            self._recorder = Recorder(time.monotonic())
            self._changes.clear()
            self._streak, self._sending = FailureStreak(), FailureStreak()
            self._errors = NewestErrors(self.name)
            self._note_policy("start")
            self._backlog = WaitEstimate()
            self._loading = {n for n, one in enumerate(self._executors) if not one.ready}
            if not self._loading:
                self._set_state("ready")
        GC_THRESHOLD.hold(self)
        self._deadlines.start()
        self._desk.start()
        self._worker.start()
        if self._given:
            try:
                self.wait_ready()
            except BaseException:
                self.stop(drain=False)
                raise

    def stop(self, drain: bool = True, timeout: float = 10.0) -> None:
        """Refuse what is new, answer what is queued within `timeout` seconds, and end the threads.

        What could not be answered in time, or anything with ``drain=False``, is refused with
        `Stopping`. Does nothing if the engine does not run.
        """
        give_up = time.monotonic() + timeout
        with self._changed:
            if self._state == "stopping":
                self._changed.wait_for(lambda: self._state != "stopping", timeout)
                return
            if self._state in ("new", "stopped"):
                return
            runs = self._state == "ready"
            self._set_state("stopping")
        try:
            if drain and runs:
                self._worker.drain()
                with self._changed:
                    self._changed.wait_for(lambda: not self._open, timeout)
        finally:
            self._refuse_all(_stopped)
            if not self._end_threads(max(0.0, give_up - time.monotonic())):
                logger.warning("%s: a forward outlasts stop(); its thread ends with it", self.name)
            GC_THRESHOLD.release(self)
            with self._changed:
                self._set_state("stopped")

    def wait_ready(self, timeout: float | None = None, progress: bool | None = None) -> None:
        """Wait until the model is loaded; `progress` is that of `work_bar`.

        Raises what the loader raised (as the cause of `LoaderFailed`), or `NotReady` if that takes
        longer than `timeout` seconds or nothing was started.
        """
        give_up = math.inf if timeout is None else time.monotonic() + timeout
        with work_bar(progress, f"loading {self.name}", self.workers, "workers") as show:
            while not self._ended_loading(min(TICK, give_up - time.monotonic())):
                if time.monotonic() >= give_up:
                    break
                show(self.workers - len(self._loading))
        with self._lock:
            if self._state == "ready":
                return
            if self._cause is not None:
                raise self._cause
        if self._state == "loading":
            raise NotReady(f"the model is still loading after {timeout} s")
        raise NotReady(f"the server is {self._state}; call start()")

    def _ended_loading(self, seconds: float) -> bool:
        """Wait for at most so many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._state != "loading", max(0.0, seconds))

    def _make_threads(self) -> None:
        prefix = f"notebook-serve {self.name}"
        self._worker = WorkerThreads(self, self._policy, f"{prefix} worker", self.workers)
        self._deadlines = DeadlineTimer(self._due, f"{prefix} deadlines")
        self._desk = PrePostThread(self.died, f"{prefix} desk")

    def _end_threads(self, timeout: float) -> bool:
        self._worker.close()
        self._end_executors()
        self._desk.close()
        self._deadlines.stop()
        self._desk.join(max(timeout, 0.1))
        return self._worker.join(max(timeout, 0.1))

    def _end_executors(self) -> None:
        for executor in self._executors:
            executor.close()
        for executor in self._executors:
            executor.join()

    def _set_state(self, state: State) -> None:
        """Change the state; the lock is held."""
        self._state = state
        self._changed.notify_all()

    # -- requests -----------------------------------------------------------------------

    def submit(
        self,
        inputs: Sequence[Any],
        parameters: Mapping[str, Any],
        *,
        timeout: float | None = None,
        client: str = "",
    ) -> list[Future[Answer]]:
        """Accept all of `inputs`, each an entry of the queue, or refuse all.

        Each future gives an `Answer` or raises a `ServeError`; cancelling it takes the request out
        of the queue. `timeout`, in seconds, can shorten the engine's own. Raises `QueueFull` and
        the other kinds of `Unavailable` at once, and `InvalidInput` for more inputs than the queue
        could ever hold.
        """
        if len(inputs) > self.max_queue_size:
            raise InvalidInput(
                f"a list of {len(inputs)} inputs can never fit into a queue of "
                f"{self.max_queue_size}; send it in parts"
            )
        now = time.monotonic()
        patience = self.timeout if timeout is None else min(float(timeout), self.timeout)
        trace = None if self.tracer is None else self.tracer.current()
        with self._lock:
            entries = [
                Entry(next(self._ids), now, now + patience, client, given, parameters, trace=trace)
                for given in inputs
            ]
            refusal = self._refusal(len(entries), now, patience)
            if refusal is not None:
                for entry in entries:
                    self._record(entry, "rejected", now)
                raise refusal
            self._recorder.enqueued(len(entries), now)
            self.breaker.taken(now)
            for entry in entries:
                self._open[entry.id] = entry
            at_desk = self.model is not None and self.model.prepares
        try:
            for entry in entries:
                entry.future.add_done_callback(partial(self._when_done, entry.id))
                if entry.deadline < math.inf:
                    self._deadlines.add(entry.deadline, entry.id)
                if at_desk:
                    self._desk.put(partial(self._prepare, entry))
                else:
                    self._prepare(entry)
        except BaseException:  # a cell was interrupted just here: nobody will have the futures
            self._close([(entry, "cancelled", None) for entry in entries])
            raise
        return [entry.future for entry in entries]

    def check_open(self, client: str = "", timeout: float | None = None) -> None:
        """Raise what `submit` would raise for one more request; so no body need be read for it."""
        now = time.monotonic()
        patience = self.timeout if timeout is None else min(timeout, self.timeout)
        with self._lock:
            refusal = self._refusal(1, now, patience)
            if refusal is not None:
                self._record(Entry(next(self._ids), now, now, client, None, {}), "rejected", now)
                raise refusal

    def closed(self) -> Unavailable | None:
        """Why no request can be taken at all; None if only the queue may say no."""
        if self._state == "ready":
            wait = self.breaker.refuses(time.monotonic())
            if wait is None:
                return None
            return CircuitOpen(
                f"the model failed {self.breaker.failures} times in a row; it is tried again "
                f"in {math.ceil(wait)} s",
                max(1, math.ceil(wait)),
            )
        if self._state == "loading":
            return NotReady("the model is still loading; try again soon", 2)
        if self._state == "failed":
            return NotReady(f"the model could not be loaded: {self._cause}", MOST_RETRY_AFTER)
        if self._state == "dead":
            return WorkerDead(str(self._cause), MOST_RETRY_AFTER)
        if self._state == "new":
            return NotReady("the server has not been started; call start()", 2)
        again = "; call start()" if self._state == "stopped" else ""
        return Stopping(f"the server is {self._state}{again}", 2)

    def _refusal(self, count: int, now: float, patience: float) -> Unavailable | None:
        """Why `count` more requests cannot be taken at time `now`; the lock is held."""
        closed = self.closed()
        if closed is not None:
            return closed
        depth = self._recorder.depth
        if depth + count > self.max_queue_size:
            wait = self._back_in(depth, now)
            return QueueFull(
                f"{depth} requests wait, and the queue holds {self.max_queue_size}; "
                f"try again in {wait} s",
                wait,
            )
        return self._overload(depth, count, patience)

    def _back_in(self, depth: int, now: float) -> int:
        """Whole seconds after which what waits is through; the lock is held."""
        seconds = self._seconds(depth)
        # The rate of the last seconds counts those in which there was nothing to do.
        rate = self._recorder.drain_rate(now) if seconds is None else depth / max(seconds, 1e-9)
        return retry_after(depth, rate)

    def _seconds(self, depth: int) -> float | None:
        """Seconds that all workers take for `depth` waiting requests, if that can be told."""
        seconds = self._backlog.seconds(depth)
        return seconds if seconds is None else seconds / self.workers

    def _overload(self, depth: int, count: int, patience: float) -> Overloaded | None:
        """A refusal if `count` requests behind `depth` others cannot be through in their time."""
        # Where nothing waits there is nothing to come back after.
        if not self.refuse_late or not depth or self._paused:
            return None
        seconds = self._seconds(depth + count)
        if seconds is None or seconds <= USABLE * patience:
            return None
        wait = max(1, min(MOST_RETRY_AFTER, math.ceil(seconds - USABLE * patience)))
        return Overloaded(
            f"{depth} requests wait; with them in front this one takes about {seconds:.2g} s, "
            f"and it has {patience:g} s; try again in {wait} s",
            wait,
        )

    def _prepare(self, entry: Entry) -> None:
        """Make one entry ready and let it wait; or answer it with what is wrong with it."""
        if entry.id not in self._open or self.model is None:
            return  # its client has gone, or its time is up
        try:
            prepared = self.model.prepare(entry.inputs, entry.parameters)
            job = Job(entry.id, entry.arrived, prepared.length, entry.deadline, prepared.group)
        except Exception as error:
            ending = self._failed(entry, error)
            self._learn([ending])
            self._close([ending])
            return
        with self._lock:
            if entry.id not in self._open:
                return
            entry.prepared, entry.job = prepared, job
            self._backlog.add(job.length)
        self._worker.offer(job)

    def _when_done(self, entry_id: int, future: Future[Answer]) -> None:
        # Named by its id: a reference would make a cycle of every request.
        entry = self._open.get(entry_id) if future.cancelled() else None
        if entry is not None:
            self._close([(entry, "cancelled", None)])
            self._worker.withdraw(entry_id)

    def _due(self, number: int) -> None:
        """The time of a request ran out, or that of a batch, whose number is below zero."""
        if number >= 0:
            self._expire(number)
            return
        with self._lock:
            executor = self._limited.pop(number, None)
        # It may be through just now; then its process is replaced for nothing.
        if executor is not None:
            executor.interrupt(f"a forward took {self.overtime:g} times as long as it had")

    def _expire(self, entry_id: int) -> None:
        """The time of a request ran out: answer it now, wherever it is."""
        entry = self._open.get(entry_id)
        if entry is None:
            return
        where = "while it waited in the queue" if entry.started is None else "while it ran"
        seconds = entry.deadline - entry.arrived
        error = DeadlineExceeded(f"the request's {seconds:g} s ran out {where}")
        self._close([(entry, "expired", error)])
        self._worker.withdraw(entry_id)

    def _refuse_all(self, error: Callable[[Entry], Unavailable]) -> None:
        with self._lock:
            entries = list(self._open.values())
        self._close([(entry, "rejected", error(entry)) for entry in entries])

    def _close(self, endings: Iterable[Ending]) -> None:
        """Answer and record the entries that are still open, each with what `endings` says."""
        now = time.monotonic()
        with self._lock:
            closed = [
                (entry, self._record(entry, outcome, now), result)
                for entry, outcome, result in endings
                if self._open.pop(entry.id, None) is not None
            ]
            for entry, _, _ in closed:
                if entry.started is None:
                    self._left_queue(entry)
            self._recorder.closed(len(closed), now)
            if not self._open:
                self._changed.notify_all()
        self._deadlines.discard(*(entry.id for entry, _, _ in closed))
        for entry, _, _ in closed:
            entry.inputs = entry.prepared = None
        # Last, because whoever is woken by it wants the interpreter at once.
        for entry, record, result in closed:
            _deliver(entry.future, record, result)

    def _left_queue(self, entry: Entry) -> None:
        """A request waits no more; the lock is held."""
        self._recorder.depth -= 1
        if entry.job is not None:
            self._backlog.discard(entry.job.length)

    def _record(self, entry: Entry, outcome: Outcome, now: float) -> RequestRecord:
        """Note how an entry ended; the lock is held."""
        record = RequestRecord(
            id=entry.id,
            arrived=entry.arrived,
            started=entry.started,
            finished=now,
            outcome=outcome,
            batch_id=entry.batch_id,
            batch_size=entry.batch_size,
            length=1 if entry.job is None else entry.job.length,
            group="" if entry.job is None else entry.job.group,
            client=entry.client,
        )
        self._recorder.request(record)
        return record

    @staticmethod
    def _failed(entry: Entry, error: Exception) -> Ending:
        if isinstance(error, InvalidInput):
            return entry, "invalid", error
        said = f"{type(error).__name__}: {error}"
        if is_out_of_memory(error):
            length = 1 if entry.job is None else entry.job.length
            said = f"out of memory on this input alone, of length {length} ({said})"
        failure = ModelFailed(said)
        failure.__cause__ = error
        return entry, "failed", failure

    # -- what the worker asks for (on its thread, but for the finish) ---------------------

    def load(self, number: int) -> bool:
        """Make the model of a worker ready; False if that fails, and then none is."""
        error: StartError | None = None
        try:
            model = self._executors[number].load()
            if number == 0 and model is not None:
                self.model = model
        except LoaderFailed as cause:
            error = cause
        except BaseException as cause:
            error = LoaderFailed(f"the loader raised {type(cause).__name__}: {cause}")
            error.__cause__ = cause
        with self._changed:
            if error is not None:
                self._note_error(error.__cause__ or error)
            self._loading.discard(number)
            if self._state == "loading" and (error is not None or not self._loading):
                self._cause = error
                self._set_state("ready" if error is None else "failed")
        return error is None

    def run(self, batch: Batch, number: int = 0) -> BatchRecord | None:
        """Run those of a batch who still want an answer, and see to it that they get it."""
        begun, started = self._begin(batch, number)
        if not begun:
            return None
        executor = self._executors[number]
        entries, items = zip(*begun, strict=True)
        lengths = tuple(item.length for item in items)
        if self.overtime < math.inf:
            self._limit(-batch.id, executor, started, entries)
        wanted = dict(zip(map(id, items), entries, strict=True))
        memory = self.ceiling.limit
        outputs, retries = run_isolated(
            partial(self._run_wanted, executor, wanted),
            items,
            partial(self._run_failed, executor),
        )
        seconds = time.monotonic() - started
        record = BatchRecord(
            id=batch.id,
            reason=batch.reason,
            lengths=lengths,
            started=started,
            seconds=seconds,
            waiting=batch.waiting,
            retries=retries,
            worker=number,
            requests=tuple(entry.id for entry in entries),
        )
        with self._lock:
            self._running.pop(number, None)
            self._limited.pop(-batch.id, None)
            self._recorder.batch(record)
            self._backlog.learn(record)
            if self.ceiling.limit >= memory:  # want of memory has a warning of its own
                failures = sum(isinstance(output, Failure) for output in outputs)
                self._batch_failures.ran(len(items), retries, failures)
        if self.overtime < math.inf:
            self._deadlines.discard(-batch.id)
        if not retries:
            self.ceiling.fitted(record.padded_tokens)
        finish = partial(self._finish, record, entries, items, outputs)
        if self.model is not None and self.model.prepares:
            self._desk.put_urgent(finish)
        else:
            finish()
        return record

    def _run_wanted(
        self, executor: Executor, entries: Mapping[int, Entry], items: Sequence[Prepared]
    ) -> list[Any]:
        """Run `items`, unless nobody waits for any of them any more."""
        if not any(entries[id(item)].id in self._open for item in items):
            raise Unwanted("all who waited for it have gone")
        return executor.run(items)

    def _limit(
        self, key: int, executor: Executor, started: float, entries: Sequence[Entry]
    ) -> None:
        """See to it that a batch is ended if it runs far beyond the time of all its requests."""
        latest = max(entry.deadline for entry in entries)
        if latest < math.inf:
            with self._lock:
                self._limited[key] = executor
            self._deadlines.add(started + self.overtime * (latest - started), key)

    def _finish(
        self,
        record: BatchRecord,
        entries: Sequence[Entry],
        items: Sequence[Prepared],
        outputs: Sequence[Any],
    ) -> None:
        """Make answers of what the model put out, and answer a batch."""
        endings = list(map(self._ending, entries, items, outputs))
        self._learn(endings)
        self._tell_breaker(endings)
        if self.tracer is not None:
            self.tracer.batch(self.name, record, [entry.trace for entry in entries])
        self._close(endings)

    def _tell_breaker(self, endings: Sequence[Ending]) -> None:
        if self._state != "ready":
            return  # as in `_learn`
        succeeded = sum(outcome == "ok" for _, outcome, _ in endings)
        failed = sum(outcome == "failed" for _, outcome, _ in endings)
        with self._lock:
            changed = self.breaker.ran(succeeded, failed, time.monotonic())
        if changed:
            logger.warning("%s: the circuit breaker is %s", self.name, self.breaker.state)

    def _learn(self, endings: Sequence[Ending]) -> None:
        """Note the answers and the failures of a batch, and log it when the model turns failing."""
        if self._state != "ready":
            return  # a process that is ended to stop says nothing of its model
        failures = [(entry, result) for entry, outcome, result in endings if outcome == "failed"]
        answered = sum(outcome == "ok" for _, outcome, _ in endings)
        with self._lock:
            for entry, error in failures:
                self._note_error(error.__cause__ or error, str(entry.id))
            turn = self._streak.ran(answered, len(failures))
        if turn == "failing":
            self._log_failing(*failures[-1])
        elif turn == "recovered":
            logger.info("%s: the model answers again", self.name)

    def _log_failing(self, entry: Entry, error: ModelFailed) -> None:
        """Log the newest error of a failing model, with the traceback of its cause."""
        cause = error.__cause__ or error
        said = f"{type(cause).__name__}: {message_of(cause)}"
        logger.error(
            "%s: the model failed on %d requests in a row; the newest (request %d) raised %s",
            *(self.name, self._streak.count, entry.id, said),
            exc_info=cause,
        )

    def answer_failed(self, error: ModelFailed, request: str) -> None:
        """Count an answer that could not be sent to the client that asked for it."""
        with self._lock:
            self._note_error(error.__cause__ or error, request)
            turn = self._sending.ran(0, 1)
        if turn == "failing":
            logger.error(
                "%s: %d answers in a row could not be sent; the newest: %s",
                *(self.name, self._sending.count, message_of(error)),
            )

    def answer_sent(self) -> None:
        """Count an answer that reached its client, or is just about to be sent."""
        sending = self._sending
        if sending.answered and not sending.count:
            return  # as nearly always: there is nothing to change, and no lock to take
        with self._lock:
            turn = sending.ran(1, 0)
        if turn == "recovered":
            logger.info("%s: answers can be sent again", self.name)

    def _note_error(self, error: BaseException, request: str = "") -> None:
        """Keep an error to be looked at; the lock is held."""
        self._errors.add(error, time.monotonic(), time.time(), request)

    def _run_failed(self, executor: Executor, error: Exception, items: Sequence[Prepared]) -> bool:
        """Where memory ran out, free some before the halves are tried, and learn from it.

        Says whether the same is to be tried once more instead.
        """
        if is_out_of_memory(error):
            # The frames of the failed forward hold its tensors.
            traceback.clear_frames(error.__traceback__)
            free_memory()
            if len(items) > 1:
                self.ceiling.failed(len(items) * max(item.length for item in items))
        elif len(items) > 1:
            self._batch_failures.failed(error)
        return executor.again(error, items)

    def _begin(self, batch: Batch, number: int) -> tuple[list[tuple[Entry, Prepared]], float]:
        """Mark as running those of a batch that are still open; also says when they began."""
        now = time.monotonic()
        with self._lock:
            found = (self._open.get(job.id) for job in batch.jobs)
            begun = [(entry, entry.prepared) for entry in found if entry and entry.prepared]
            for entry, _ in begun:
                entry.started, entry.batch_id, entry.batch_size = now, batch.id, len(begun)
                self._left_queue(entry)
            if begun:
                self._running[number] = now
        return begun, now

    def _ending(self, entry: Entry, item: Prepared, output: Any) -> Ending:
        if isinstance(output, Failure):
            if isinstance(output.error, Unwanted):
                return entry, "cancelled", None  # and answered already
            return self._failed(entry, output.error)
        assert self.model is not None
        try:
            return entry, "ok", self.model.finish(item, output)
        except Exception as error:
            return self._failed(entry, error)

    def expire(self, job_ids: Iterable[int]) -> None:
        """Answer the requests whose time ran out before they could run."""
        for job_id in job_ids:
            self._expire(job_id)

    def give_up(self, job_ids: Iterable[int]) -> None:
        """Refuse the requests that the policy will not run, because too much waits."""
        now = time.monotonic()
        with self._lock:
            found = [self._open.get(job_id) for job_id in job_ids]
            wait = self._back_in(self._recorder.depth, now)
        self._close(
            (entry, "rejected", _gave_up(entry, now, wait)) for entry in found if entry is not None
        )

    def policy_failed(self, fault: PolicyFault) -> None:
        """Show what the policy did, and who decides now."""
        logger.error("%s: %s", self.name, fault, exc_info=fault.error)
        with self._lock:
            self._fault = fault
            self._note_error(fault.error)
            self._note_policy("fault")

    def died(self, error: BaseException) -> None:
        """Answer everybody, and say why from now on: something escaped on the worker or desk."""
        logger.critical("%s: the worker died", self.name, exc_info=error)
        said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        cause = WorkerDead(f"the worker died of {said}; call start()")
        cause.__cause__ = error
        with self._changed:
            self._running.clear()
            self._cause = cause
            self._note_error(error)
            if self._state != "stopping":
                self._set_state("dead")
        refuse = partial(self._refuse_all, lambda entry: WorkerDead(str(cause), MOST_RETRY_AFTER))
        if self._desk.is_current():
            refuse()
        else:
            # Behind the answers to the batch before, which only have to be made presentable.
            self._desk.put_urgent(refuse)

    # -- looking and steering -------------------------------------------------------------

    @property
    def policy(self) -> Policy:
        """The policy in effect; setting another acts on the next batch."""
        fault = self._fault
        return self._policy if fault is None else FALLBACK

    @policy.setter
    def policy(self, policy: Policy) -> None:
        with self._lock:
            self._policy, self._fault = policy, None
            self._worker.use(policy)
            self._note_policy("set")

    def policy_changes(self) -> list[PolicyChange]:
        """The policies that took effect since the start, the oldest first."""
        with self._lock:
            return list(self._changes)

    def _note_policy(self, reason: str) -> None:
        """Record the policy now in effect; the lock is held."""
        policy = self._policy if self._fault is None else FALLBACK
        self._changes.append(PolicyChange(time.monotonic(), label(policy), reason))

    def pause(self, paused: bool = True) -> None:
        """Let the queue fill without running it, or go on."""
        with self._lock:
            self._paused = paused
            self._worker.pause(paused)

    def on_own_thread(self) -> bool:
        """Whether the caller is the model itself, which must not wait for its own queue."""
        return self._worker.is_current() or self._desk.is_current()

    @property
    def depth(self) -> int:
        """How many accepted requests have not started to run."""
        return self._recorder.depth

    def recorded(self) -> Recorder:
        """A snapshot of all counts and of the newest records."""
        with self._lock:
            return self._recorder.copy()

    def stats(self, recorder: Recorder | None = None) -> Stats:
        """Statistics as of now; of `recorder`, where such a snapshot was just taken."""
        now = time.monotonic()
        with self._lock:
            recorder = self._recorder.copy() if recorder is None else recorder
            running = dict(self._running)
        return recorder.stats(
            now,
            running_since=running.get(0),
            workers=tuple(
                self._worker_stats(number, executor, recorder, running.get(number), now)
                for number, executor in enumerate(self._executors)
            ),
            state=self.state,
            model="not loaded" if self.model is None else self.model.name,
            policy=label(self.policy),
            breaker=self.breaker.state,
            memory_ceiling=None if self.ceiling.limit == math.inf else int(self.ceiling.limit),
            error=self.error,
            queue_limit=self.max_queue_size,
            failing=self.failing,
            last_error=self.last_error,
            warnings=tuple(self.warnings),
        )

    def _worker_stats(
        self, number: int, executor: Executor, recorder: Recorder, since: float | None, now: float
    ) -> WorkerStats:
        return WorkerStats(
            number=number,
            kind=executor.kind,
            device=executor.device,
            pid=executor.pid(),
            batches=recorder.worker_batches[number],
            requests=recorder.worker_requests[number],
            utilisation=recorder.utilisation(now, since, number),
            restarts=executor.restarts(),
            busy=recorder.worker_seconds.get(number, 0.0) + (0.0 if since is None else now - since),
        )

    @property
    def last_error(self) -> LastError | None:
        """The newest error since the start, if there was any."""
        newest = self._errors.last
        return None if newest is None else LastError.of(newest, time.monotonic())

    @property
    def failing(self) -> LastError | None:
        """The newest error, and what happens next, while the model is failing; else None.

        It is failing when its newest 3 requests that ran all failed, or all of them where fewer
        ran; or when so many of its answers could not be sent. See `FailureStreak`.
        """
        error = self.last_error
        if self._state != "ready" or not self._fails or error is None:
            return None
        outlook = self.breaker.outlook(time.monotonic())
        times = max(self._streak.count, self._sending.count)
        return replace(error, times=times, next=outlook)

    def errors(self) -> list[ErrorRecord]:
        """The newest errors since the start, newest first."""
        with self._lock:
            return self._errors.newest_first()

    @property
    def warnings(self) -> list[str]:
        """Sentences about what slows the server down; empty when all is well, or it is stopped.

        What is broken is in `error` and `failing`.
        """
        if self.state == "stopped":
            return []
        own = [self._memory_warning(), self._restart_warning(), self._batch_warning()]
        slow = [sentence for executor in self._executors for sentence in executor.warnings()]
        return [sentence for sentence in dict.fromkeys([*own, *slow]) if sentence]

    def _memory_warning(self) -> str:
        if self.ceiling.limit == math.inf:
            return ""
        tokens = int(self.ceiling.limit)
        return f"A batch ran out of memory: batches are limited to {tokens:,} padded tokens."

    def _batch_warning(self) -> str:
        name = "" if self.model is None else self.model.name
        if not isinstance(self.model, FunctionModel):
            return self._batch_failures.warning(name)
        function = name if name.isidentifier() else "..."
        advice = f"; return one output per input, or serve(each({function}))"
        return self._batch_failures.warning(name, advice)

    def _restart_warning(self) -> str:
        reasons: Counter[str] = Counter()
        for executor in self._executors:
            reasons.update(executor.restarts())
        if not reasons:
            return ""
        said = ", ".join(f"{reason}: {count}" for reason, count in reasons.items())
        return f"A worker process ended and was started again ({said})."

    @property
    def error(self) -> str:
        """Why it failed or died, or what the policy did wrong; empty when all is well."""
        error = self._cause or self._fault
        return "" if error is None else str(error)

    def news(self, seen: tuple[int, int, float]) -> News:
        """What has ended since a look that had `seen` so much, and who is not through."""
        with self._lock:
            unfinished = [
                Unfinished(e.id, e.arrived, e.started, e.batch_id, e.batch_size)
                for e in self._open.values()
            ]
            return self._recorder.since(seen, unfinished)

    def records(self) -> list[RequestRecord]:
        """The newest request records, oldest first."""
        with self._lock:
            return list(self._recorder.requests)

    def batches(self) -> list[BatchRecord]:
        """The newest batch records, oldest first."""
        with self._lock:
            return list(self._recorder.batches)

    def queue(self) -> Queue:
        """What waits now."""
        with self._lock:
            waiting = [entry for entry in self._open.values() if entry.started is None]
        jobs = tuple(entry.job for entry in waiting if entry.job is not None)
        return Queue(jobs, time.monotonic(), len(waiting) - len(jobs))


def _stopped(entry: Entry) -> Stopping:
    if entry.started is None:
        return Stopping("the server stopped before it came to this request")
    return Stopping("the server stopped while this request ran, and did not wait for its answer")


def _loaded(loader: Callable[[], Any] | None) -> Model:
    assert loader is not None
    return as_model(loader())


def retry_after(depth: int, rate: float) -> int:
    """Whole seconds until `depth` waiting requests are through, at `rate` a second; at least 1."""
    if rate <= 0:
        return 1
    return max(1, min(MOST_RETRY_AFTER, math.ceil(depth / rate)))


def _gave_up(entry: Entry, now: float, wait: int) -> Overloaded:
    return Overloaded(
        f"after {now - entry.arrived:.2g} s in the queue the policy gave this request up, because "
        f"too much waits; try again in {wait} s",
        wait,
    )


def _deliver(future: Future[Answer], record: RequestRecord, result: Any) -> None:
    try:
        if isinstance(result, ServeError):
            result.record = record
            future.set_exception(result)
        else:
            future.set_result(Answer(result, record))
    except InvalidStateError:
        pass  # it was cancelled
