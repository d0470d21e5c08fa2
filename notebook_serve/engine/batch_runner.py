"""The batch runner: prepares inputs, runs batches on executors and answers their requests."""

from __future__ import annotations

import logging
import math
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Protocol

from ..errors import InvalidInput, LoaderFailed, NotReady, StartError
from ..models.base import Model, Prepared
from ..models.bisection import Failure, check_count, retry
from ..models.generation import Prompt
from ..progress import TICK, work_bar
from ..queueing.jobs import Batch, Job
from ..records import BatchRecord
from ..workers.executors import Executor
from ..workers.out_of_memory import MemoryLimit, free_memory, is_out_of_memory
from .admission import Admission
from .health import Health
from .pre_post_thread import PrePostThread
from .requests import Ending, Entry, OpenRequests
from .status import Status

logger = logging.getLogger("notebook_serve")


class Tracer(Protocol):
    """Makes spans of calls and batches. Its methods must not raise."""

    def current(self) -> Any:
        """Return the span of the caller that submits a request."""

    def batch(self, model: str, record: BatchRecord, requests: Sequence[Any]) -> None:
        """Make the span of a batch from the spans of its requests, on the answering thread."""

    def call(self, name: str, model: str) -> AbstractContextManager[None]:
        """Return the span of a call without HTTP, as a context manager."""

    def lasting(self, name: str, model: str) -> AbstractContextManager[AbstractContextManager[Any]]:
        """Return the span of a call that goes on between two steps of its caller."""


class Unwanted(Exception):
    """All requests that would share a run are answered already."""


class KnownTooLarge(Exception):
    """A part of a failed batch is not run, because one of its size ran out of memory before."""


def count_padded_tokens(items: Sequence[Prepared]) -> int:
    """Return the number of tokens that a forward pass computes for `items`."""
    return len(items) * max([item.length for item in items])


def count_failures(outputs: Sequence[Any]) -> int:
    """Return the number of inputs that failed alone."""
    return sum([isinstance(output, Failure) for output in outputs])


def is_of_model(error: Exception) -> bool:
    """Return True for an error of the model, and not of the input or of a closed request."""
    return not isinstance(error, (InvalidInput, Unwanted))


def answers(executor: Executor, item: Prepared) -> bool:
    """Return True if the model of `executor` answers this input."""
    try:
        (output,) = executor.run([item])
    except Exception:
        return False
    return not isinstance(output, Failure)


class BatchRunner:
    """A model with its executors: one for each worker, which runs the batches of that worker.

    A batch that runs for `overtime` times as long as its requests had time for it is ended, if its
    executor can do that.
    """

    def __init__(
        self,
        name: str,
        model: Model | None,
        executors: Sequence[Executor],
        overtime: float,
        status: Status,
        requests: OpenRequests,
        admission: Admission,
        health: Health,
    ) -> None:
        self._name = name
        self._use(model)
        self.executors = executors
        self._status, self._requests = status, requests
        self._admission, self._health = admission, health
        self._overtime = overtime
        self.tracer: Tracer | None = None
        self.memory = MemoryLimit()
        #: the thread that prepares and finishes; the engine makes one for each start
        self.pre_post: PrePostThread
        #: when the batch of each busy worker began
        self.running: dict[int, float] = {}
        #: the workers whose model is still to be made ready
        self.loading: set[int] = set()
        #: the executor of each batch with a time limit, by a key below zero, which no request has
        self._limited: dict[int, Executor] = {}

    def _use(self, model: Model | None) -> None:
        self.model = model
        #: an input that the model has answered, to test whether it still answers
        self._answered: Prepared | None = None
        #: True if a thread of its own prepares inputs and finishes outputs
        self.prepares_apart = model is not None and model.prepares

    # -- load -----------------------------------------------------------------------------

    def load(self, number: int) -> bool:
        """Make the model of a worker ready; if that fails, no worker starts and it is False."""
        error: StartError | None = None
        try:
            model = self.executors[number].load()
            if number == 0 and model is not None:
                self._use(model)
        except LoaderFailed as cause:
            error = cause
        except BaseException as cause:
            error = LoaderFailed(f"the loader raised {type(cause).__name__}: {cause}")
            error.__cause__ = cause
        with self._status.lock:
            if error is not None:
                self._health.note(error.__cause__ or error)
            self.loading.discard(number)
            if self._status.state == "loading" and (error is not None or not self.loading):
                self._status.cause = error
                self._status.become("ready" if error is None else "failed")
        return error is None

    def wait_ready(self, timeout: float | None, progress: bool | None) -> None:
        """Wait until the model is loaded; `progress` is that of `work_bar`.

        Raises `LoaderFailed`, with the loader's error as its cause. Raises `NotReady` if loading
        takes longer than `timeout` seconds or the engine was not started.
        """
        give_up = math.inf if timeout is None else time.monotonic() + timeout
        status, workers = self._status, len(self.executors)
        with work_bar(progress, f"loading {self._name}", workers, "workers") as show:
            while not status.wait_while("loading", min(TICK, give_up - time.monotonic())):
                if time.monotonic() >= give_up:
                    break
                show(workers - len(self.loading))
        with status.lock:
            if status.state == "ready":
                return
            if status.cause is not None:
                raise status.cause
        if status.state == "loading":
            raise NotReady(f"the model is still loading after {timeout} s")
        raise NotReady(f"the server is {status.state}; call start()")

    # -- prepare --------------------------------------------------------------------------

    def prepare(self, entry: Entry) -> Job | None:
        """Return the job of an entry; or None where it is answered, because its input is wrong."""
        inputs = entry.inputs  # before the check: a request loses them after it has left the table
        if entry.id not in self._requests or self.model is None:
            return None
        try:
            prepared = self.model.prepare(inputs, entry.parameters)
            job = Job(entry.id, entry.arrived, prepared.length, entry.deadline, prepared.group)
        except Exception as error:
            ending = Ending.of_error(entry, error)
            if self._status.state == "ready":
                self._health.learn(0, [ending] if ending.outcome == "failed" else [])
            self._requests.close([ending])
            return None
        return job if self._requests.prepare(entry, prepared, job) else None

    # -- run ------------------------------------------------------------------------------

    def run(self, batch: Batch, number: int) -> BatchRecord | None:
        """Run the open requests of a batch on a worker and answer them; None if all are closed."""
        started = time.monotonic()
        begun = self._requests.begin(batch, started)
        if not begun:
            return None
        entries, items = zip(*begun, strict=True)
        self.running[number] = started
        if self._overtime < math.inf:
            self._limit(-batch.id, self.executors[number], started, entries)
        executor, failures = self.executors[number], self.memory.failures
        outputs, retries = self._run_items(executor, entries, items)
        failed = count_failures(outputs) if Failure in set(map(type, outputs)) else 0
        lengths = tuple([item.length for item in items])
        padded = len(lengths) * max(lengths)
        if not (retries or failed) and (failures or padded > self.memory.fits):
            self.memory.fitted(padded)
        record = BatchRecord(
            id=batch.id,
            reason=batch.reason,
            lengths=lengths,
            started=started,
            seconds=time.monotonic() - started,
            waiting=batch.waiting,
            retries=retries,
            worker=number,
            requests=tuple([entry.id for entry in entries]),
        )
        self._record(record)
        # A lack of memory has a warning of its own.
        if len(items) > 1 and self.memory.failures == failures:
            self._health.batches.ran(len(items), retries, failed)
        known = self._input_for_test(outputs) if failed == len(items) else None
        finish = partial(self._finish, record, entries, items, outputs, known is None)
        if self.prepares_apart:
            self.pre_post.put_urgent(finish)
        else:
            finish()
        if known is not None:  # after the answers, which the test does not delay
            self._tell_breaker(answers(executor, known), failed)
        elif not failed and Prompt not in (type(items[0].inputs), type(items[0].source)):
            self._answered = items[0]
        return record

    def _input_for_test(self, failures: Sequence[Failure]) -> Prepared | None:
        """Return an input that the model has answered, if the circuit breaker would open now.

        If the model answers it again, it is the inputs that fail, and not the model.
        """
        breaker = self._admission.breaker
        count = sum([is_of_model(failure.error) for failure in failures])
        opens = count > 0 and breaker.failures + count >= breaker.threshold
        return self._answered if opens and self._status.state == "ready" else None

    def forget(self) -> None:
        """Drop the input that the model has answered: it may be large."""
        self._answered = None

    def _record(self, record: BatchRecord) -> None:
        with self._status.lock:
            self.running.pop(record.worker, None)
            self._limited.pop(-record.id, None)
            self._requests.recorder.batch(record)
            self._requests.estimate.learn(record)
        if self._overtime < math.inf:
            self._requests.deadlines.discard([-record.id])

    def _run_items(
        self, executor: Executor, entries: Sequence[Entry], items: Sequence[Prepared]
    ) -> tuple[list[Any], int]:
        """Return an output or a `Failure` for each item, and the number of extra runs."""
        try:
            return check_count(executor.run(items), items), 0
        except Exception as error:
            again = self._run_failed(executor, error, items)
            if len(items) == 1 and not again:
                return [Failure(error)], 0
        # Outside the handler, whose error would keep alive the memory that the retry needs.
        ids = {id(item): entry.id for item, entry in zip(items, entries, strict=True)}
        skipped: list[int] = []
        run = partial(self._run_wanted, executor, ids, skipped)
        outputs, extra = retry(run, items, partial(self._run_failed, executor), again)
        return outputs, extra - len(skipped)

    def _run_wanted(
        self,
        executor: Executor,
        ids: Mapping[int, int],
        skipped: list[int],
        items: Sequence[Prepared],
    ) -> list[Any]:
        """Run `items`, unless all their requests are closed or they are too large."""
        requests = self._requests
        if len(items) > 1 and self.memory.is_exceeded(count_padded_tokens(items)):
            skipped.append(len(items))
            raise KnownTooLarge("a batch of this size ran out of memory before")
        for item in items:
            if ids[id(item)] in requests:
                outputs = executor.run(items)
                self.memory.fitted(count_padded_tokens(items))
                return outputs
        skipped.append(len(items))
        raise Unwanted("all their requests are closed")

    def _run_failed(self, executor: Executor, error: Exception, items: Sequence[Prepared]) -> bool:
        """Free memory if it ran out, and return True if the same items are to be run once more."""
        if isinstance(error, KnownTooLarge):
            return False
        if is_out_of_memory(error):
            # The frames of the failed forward pass hold its tensors.
            traceback.clear_frames(error.__traceback__)
            free_memory()
            if len(items) > 1:
                self.memory.failed(count_padded_tokens(items))
        elif len(items) > 1:
            self._health.batches.failed(error)
        return executor.again(error, items)

    # -- finish ---------------------------------------------------------------------------

    def _finish(
        self,
        record: BatchRecord,
        entries: Sequence[Entry],
        items: Sequence[Prepared],
        outputs: Sequence[Any],
        tell: bool,
    ) -> None:
        """Turn the outputs of a batch into answers, and send them.

        `tell` is True if the circuit breaker is to be told of the failures.
        """
        rows = zip(entries, items, outputs, strict=True)
        endings = [self._ending(*row) for row in rows]
        # A process that is ended because the server stops tells nothing about its model.
        if self._status.state == "ready":
            answered = sum([ending.outcome == "ok" for ending in endings])
            failures = [ending for ending in endings if ending.outcome == "failed"]
            self._health.learn(answered, failures)
            if tell and (failures or self._admission.breaker.failures):
                self._tell_breaker(answered > 0, len(failures))
        if self.tracer is not None:
            self.tracer.batch(self._name, record, [entry.trace for entry in entries])
        self._requests.close(endings)

    def _ending(self, entry: Entry, item: Prepared, output: Any) -> Ending:
        if isinstance(output, Failure):
            if isinstance(output.error, Unwanted):
                return Ending(entry, "cancelled")  # it is closed already
            return Ending.of_error(entry, output.error)
        assert self.model is not None
        try:
            return Ending(entry, "ok", self.model.finish(item, output))
        except Exception as error:
            return Ending.of_error(entry, error)

    def _tell_breaker(self, works: bool, failed: int) -> None:
        with self._status.lock:
            changed = self._admission.breaker.ran(works, failed, time.monotonic())
        if changed:
            logger.warning(
                "%s: the circuit breaker is %s", self._name, self._admission.breaker.state
            )

    # -- time out -------------------------------------------------------------------------

    def _limit(
        self, key: int, executor: Executor, started: float, entries: Sequence[Entry]
    ) -> None:
        """Set a time limit for a batch by the latest deadline of its requests."""
        latest = max(entry.deadline for entry in entries)
        if latest < math.inf:
            with self._status.lock:
                self._limited[key] = executor
            self._requests.deadlines.add(started + self._overtime * (latest - started), key)

    def end_late(self, key: int) -> None:
        """End the forward pass of a batch whose time limit has come."""
        with self._status.lock:
            executor = self._limited.pop(key, None)
        # If it ends just now, its process is replaced for nothing.
        if executor is not None:
            executor.interrupt(f"a forward took {self._overtime:g} times as long as it had")

    def expire(self, job_ids: Iterable[int]) -> None:
        """Answer the jobs whose deadline came before they could run."""
        for job_id in job_ids:
            self._requests.expire(job_id)

    def drop(self, job_ids: Iterable[int]) -> None:
        """Reject the jobs that the policy dropped."""
        with self._status.lock:
            found = [self._requests.get(job_id) for job_id in job_ids]
            wait = self._admission.retry_after(time.monotonic())
        self._requests.close(
            Ending(entry, "rejected", self._admission.dropped(entry, wait))
            for entry in found
            if entry is not None
        )
