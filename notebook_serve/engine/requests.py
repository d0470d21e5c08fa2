"""Open requests: each accepted request from its acceptance to its one answer."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any

from ..errors import DeadlineExceeded, InvalidInput, ModelFailed, ServeError, Stopping
from ..models.base import Prepared
from ..queueing.jobs import Batch, Job
from ..queueing.stats import News, Queue, Recorder, Unfinished
from ..queueing.wait_estimate import WaitEstimate
from ..records import BatchRecord, Outcome, RequestRecord
from ..workers.out_of_memory import is_out_of_memory
from .deadline_timer import DeadlineTimer
from .status import Status


@dataclass(frozen=True, slots=True)
class Answer:
    """The model's answer to one input, and the record of the request."""

    value: Any
    record: RequestRecord


class AnswerFuture(Future[Answer]):
    """The future of one answer. Cancelling it calls `on_cancel`, unless it is done."""

    def __init__(self) -> None:
        super().__init__()
        self.on_cancel: Callable[[], None] | None = None

    def cancel(self) -> bool:
        """Cancel the request; return False if it is answered already."""
        if self.done():
            return super().cancel()
        done = super().cancel()
        if done and self.on_cancel is not None:
            self.on_cancel()
        return done


@dataclass(slots=True, eq=False)
class Entry:
    """One accepted request, from acceptance to answer."""

    id: int
    arrived: float
    deadline: float
    client: str
    inputs: Any
    parameters: Mapping[str, Any]
    future: AnswerFuture = field(default_factory=AnswerFuture)
    prepared: Prepared | None = None
    job: Job | None = None
    started: float | None = None
    batch_id: int | None = None
    batch_size: int = 0
    #: the span of the caller, if there is one
    trace: Any = None


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of one request: its answer, or the error in place of the answer."""

    entry: Entry
    outcome: Outcome
    result: Any = None

    @classmethod
    def of_error(cls, entry: Entry, error: Exception) -> Ending:
        """Return the ending of a request whose input is invalid or whose model failed."""
        if isinstance(error, InvalidInput):
            return cls(entry, "invalid", error)
        said = f"{type(error).__name__}: {error}"
        if is_out_of_memory(error):
            length = 1 if entry.job is None else entry.job.length
            said = f"out of memory on this input alone, of length {length} ({said})"
        failure = ModelFailed(said)
        failure.__cause__ = error
        return cls(entry, "failed", failure)


class OpenRequests:
    """The requests that still need an answer, and the records of those that had one.

    The thread that takes an entry out of this table, under the lock, answers it. So several threads
    may find a reason to: the model, a deadline, a disconnect, a stop, or the death of the worker.
    """

    def __init__(self, status: Status) -> None:
        self._status = status
        self._ids = itertools.count(1)
        self._open: dict[int, Entry] = {}
        #: the timer of the deadlines; the engine makes one for each start
        self.deadlines: DeadlineTimer
        self.reset()

    def reset(self, estimate: WaitEstimate | None = None) -> None:
        """Begin new records, with another estimate of the wait."""
        self.recorder = Recorder(time.monotonic())
        self.estimate = WaitEstimate() if estimate is None else estimate

    @property
    def depth(self) -> int:
        """Number of accepted requests that have not started to run."""
        return self.recorder.depth

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, entry_id: int) -> bool:
        return entry_id in self._open

    def get(self, entry_id: int) -> Entry | None:
        """Return an entry that is still open."""
        return self._open.get(entry_id)

    # -- accept and reject ----------------------------------------------------------------

    def make(
        self,
        inputs: Sequence[Any],
        parameters: Mapping[str, Any],
        *,
        now: float,
        patience: float,
        client: str,
        trace: Any = None,
    ) -> list[Entry]:
        """Return an entry for each of `inputs`, not yet accepted."""
        deadline = now + patience
        return [
            Entry(next(self._ids), now, deadline, client, given, parameters, trace=trace)
            for given in inputs
        ]

    def accept(self, entries: Sequence[Entry], now: float) -> None:
        """Add entries to the table. The lock must be held."""
        self.recorder.enqueued(len(entries), now)
        for entry in entries:
            self._open[entry.id] = entry

    def reject(self, entries: Sequence[Entry], now: float) -> None:
        """Record entries that are not accepted. The lock must be held."""
        for entry in entries:
            self._record(entry, "rejected", now)

    def prepare(self, entry: Entry, prepared: Prepared, job: Job) -> bool:
        """Note that an entry is ready to run; return False if it was closed before."""
        with self._status.lock:
            if entry.id not in self._open:
                return False
            entry.prepared, entry.job = prepared, job
            self.estimate.add(job.length)
        return True

    # -- run ------------------------------------------------------------------------------

    def begin(self, batch: Batch, now: float) -> list[tuple[Entry, Prepared]]:
        """Mark the jobs of a batch that are still open as running.

        Returns each entry with its prepared input, which the entry loses when it is closed.
        """
        begun = []
        with self._status.lock:
            for job in batch.jobs:
                entry = self._open.get(job.id)
                if entry is not None and entry.prepared is not None:
                    begun.append((entry, entry.prepared))
            for entry, _ in begun:
                entry.started, entry.batch_id, entry.batch_size = now, batch.id, len(begun)
                self._leave_queue(entry)
        return begun

    def _leave_queue(self, entry: Entry) -> None:
        """Count an entry as waiting no more. The lock must be held."""
        self.recorder.depth -= 1
        if entry.job is not None:
            self.estimate.discard(entry.job.length)

    # -- close ----------------------------------------------------------------------------

    def close(self, endings: Iterable[Ending]) -> None:
        """Answer and record the entries that are still open."""
        now = time.monotonic()
        with self._status.lock:
            closed = [
                (ending, self._record(ending.entry, ending.outcome, now))
                for ending in endings
                if self._open.pop(ending.entry.id, None) is not None
            ]
            for ending, _ in closed:
                if ending.entry.started is None:
                    self._leave_queue(ending.entry)
            self.recorder.closed(len(closed), now)
            if not self._open:
                self._status.changed.notify_all()
        ids = []
        for ending, _ in closed:
            ids.append(ending.entry.id)
            ending.entry.inputs = ending.entry.prepared = None
        self.deadlines.discard(ids)
        # Last, because the thread that waits for an answer wants the GIL at once.
        for ending, record in closed:
            _deliver(ending.entry.future, record, ending.result)

    def cancel(self, entry_id: int) -> bool:
        """Close a request whose caller wants no answer; return False if it was closed before."""
        entry = self._open.get(entry_id)
        if entry is not None:
            self.close([Ending(entry, "cancelled")])
        return entry is not None

    def expire(self, entry_id: int) -> bool:
        """Answer a request whose deadline has come; return False if it was closed before."""
        entry = self._open.get(entry_id)
        if entry is None:
            return False
        where = "while it waited in the queue" if entry.started is None else "while it ran"
        seconds = entry.deadline - entry.arrived
        error = DeadlineExceeded(f"the request's {seconds:g} s ran out {where}")
        self.close([Ending(entry, "expired", error)])
        return True

    def reject_all(self, error: Callable[[Entry], ServeError]) -> None:
        """Close all open requests, each with its `error`."""
        with self._status.lock:
            entries = list(self._open.values())
        self.close([Ending(entry, "rejected", error(entry)) for entry in entries])

    def _record(self, entry: Entry, outcome: Outcome, now: float) -> RequestRecord:
        """Record the end of an entry. The lock must be held."""
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
        self.recorder.request(record)
        return record

    # -- look -----------------------------------------------------------------------------

    def news(self, seen: tuple[int, int, float]) -> News:
        """Return the records since a look that had `seen` so much, and the open requests."""
        with self._status.lock:
            unfinished = [
                Unfinished(e.id, e.arrived, e.started, e.batch_id, e.batch_size)
                for e in self._open.values()
            ]
            return self.recorder.since(seen, unfinished)

    def copy_recorder(self) -> Recorder:
        """Return a snapshot of all counts and of the newest records."""
        with self._status.lock:
            return self.recorder.copy()

    def records(self) -> list[RequestRecord]:
        """Return the newest request records, oldest first."""
        with self._status.lock:
            return list(self.recorder.requests)

    def batches(self) -> list[BatchRecord]:
        """Return the newest batch records, oldest first."""
        with self._status.lock:
            return list(self.recorder.batches)

    def queue(self) -> Queue:
        """Return a snapshot of the waiting requests."""
        with self._status.lock:
            waiting = [entry for entry in self._open.values() if entry.started is None]
        jobs = tuple(entry.job for entry in waiting if entry.job is not None)
        return Queue(jobs, time.monotonic(), len(waiting) - len(jobs))


def _deliver(future: Future[Answer], record: RequestRecord, result: Any) -> None:
    """Give a request its answer or its error, unless the caller has cancelled it."""
    try:
        if isinstance(result, ServeError):
            result.record = record
            future.set_exception(result)
        else:
            future.set_result(Answer(result, record))
    except InvalidStateError:
        pass  # cancelled


def stopped_error(entry: Entry) -> Stopping:
    """Return the error of a request that the server does not answer because it stops."""
    if entry.started is None:
        return Stopping("the server stopped before it ran this request")
    return Stopping("the server stopped while this request ran, and did not wait for its answer")
