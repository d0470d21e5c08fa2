"""The engine: takes requests from any thread and answers each exactly once.

    submit ──> pre/post thread ──> worker thread ──> pre/post thread ──> futures
    (any       (prepares:          (scheduler,       (finishes:
    thread)     tokenises)          executor)         labels)

Its parts, each below the next: `OpenRequests` (the table of requests), `Admission` (accepts or
rejects), `BatchRunner` (runs a batch and answers it), `WorkerThreads` (asks the scheduler for
batches). `Engine` starts and stops them, and is what other rooms use.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from ..errors import InvalidInput, StartError, WorkerDead
from ..models.base import Model
from ..models.generation import Prompt
from ..queueing.online_cost import OnlineCost
from ..queueing.policies import Policy
from ..queueing.scheduler import PolicyFault, Scheduler
from ..queueing.stats import LastError, Recorder, Stats
from ..queueing.wait_estimate import WaitEstimate
from ..records import PolicyChange
from ..workers.executors import Executor
from ..workers.runtime_tuning import GC_THRESHOLD
from .admission import MOST_RETRY_AFTER, Admission
from .batch_runner import BatchRunner
from .circuit_breaker import CircuitBreaker
from .deadline_timer import DeadlineTimer
from .health import Health
from .inspection import collect_stats, find_warnings
from .policy_log import PolicyLog
from .pre_post_thread import PrePostThread
from .requests import Answer, Entry, OpenRequests, stopped_error
from .status import Status
from .worker_threads import WorkerThreads

logger = logging.getLogger("notebook_serve")


class Engine:
    """A model, a queue and the threads between them; knows nothing of HTTP.

    There is a worker for each of `executors`, which load the `model` if it is None. `timeout` is in
    seconds. A batch that runs for `overtime` times as long as its requests had time for it is
    ended, if its executor can do that.
    """

    def __init__(
        self,
        model: Model | None,
        policy: Policy,
        executors: Sequence[Executor],
        *,
        max_queue_size: int,
        timeout: float,
        name: str,
        refuse_late: bool = True,
        overtime: float = math.inf,
    ) -> None:
        self.name = name
        self.timeout = timeout
        self._given = model is not None
        self._status = status = Status()
        self.requests = OpenRequests(status)
        self.admission = Admission(
            status, self.requests, len(executors), max_queue_size, refuse_late
        )
        self.health = Health(name, status)
        self.runner = BatchRunner(
            name, model, executors, overtime, status, self.requests, self.admission, self.health
        )
        self._policies = PolicyLog()
        self._make_threads(policy)

    # -- life cycle -----------------------------------------------------------------------

    @property
    def state(self) -> str:
        """``new, loading, ready, failing, paused, stopping, stopped, failed`` or ``dead``.

        ``failing`` is ``ready`` with a model whose newest requests all failed; see `failing`.
        """
        if self._status.state != "ready":
            return self._status.state
        if self._status.paused:
            return "paused"
        return "failing" if self.health.is_failing else "ready"

    def start(self) -> None:
        """Start the threads, and load the model if that is still to be done.

        Does nothing if the engine runs. Waits if a model, and no loader, must be sent to a process,
        and raises what prevents it. Raises `StartError` while a worker that was stopped is still
        busy: two threads must never own one model.
        """
        status = self._status
        with status.lock:
            if status.state in ("loading", "ready", "stopping"):
                return
            before = status.state
            status.become("loading")
        try:
            if not self._end_threads(1.0):
                raise StartError(
                    "cannot start: the previous worker still runs a forward pass; "
                    "call start() again when that has ended"
                )
            for executor in self.runner.executors:
                executor.begin()
        except BaseException:
            self._end_executors()
            with status.lock:
                status.become(before)
            raise
        self._begin()
        if self._given:
            try:
                self.wait_ready()
            except BaseException:
                self.stop(drain=False)
                raise

    def _begin(self) -> None:
        """Begin new records with new threads."""
        executors = self.runner.executors
        with self._status.lock:
            self._make_threads(self._scheduler.chosen, self._scheduler.online_cost)
            self._status.cause, self._status.paused = None, False
            self.admission.breaker = CircuitBreaker()
            self.health.reset()
            self._policies.clear()
            self._policies.add(self.policy, "start")
            self.runner.loading = {n for n, one in enumerate(executors) if not one.ready}
            if not self.runner.loading:
                self._status.become("ready")
        GC_THRESHOLD.hold(self)
        self._deadlines.start()
        self._pre_post.start()
        self._workers.start()

    def stop(self, drain: bool = True, timeout: float = 10.0) -> None:
        """Reject new requests, answer queued ones within `timeout` seconds, and end the threads.

        Requests that could not be answered in time, or all with ``drain=False``, are rejected with
        `Stopping`. Does nothing if the engine does not run.
        """
        give_up = time.monotonic() + timeout
        status = self._status
        with status.changed:
            if status.state == "stopping":
                status.changed.wait_for(lambda: status.state != "stopping", timeout)
                return
            if status.state in ("new", "stopped"):
                return
            runs = status.state == "ready"
            status.become("stopping")
        try:
            if drain and runs:
                status.paused = False
                self._workers.drain()
                with status.changed:
                    status.changed.wait_for(lambda: not len(self.requests), timeout)
        finally:
            self.requests.reject_all(stopped_error)
            if not self._end_threads(max(0.0, give_up - time.monotonic())):
                logger.warning(
                    "%s: a forward pass outlasts stop(); its thread ends with it", self.name
                )
            GC_THRESHOLD.release(self)
            self.runner.forget()
            with status.lock:
                status.become("stopped")

    def wait_ready(self, timeout: float | None = None, progress: bool | None = None) -> None:
        """Wait until the model is loaded; see `BatchRunner.wait_ready`."""
        self.runner.wait_ready(timeout, progress)

    def _make_threads(self, policy: Policy, online_cost: OnlineCost | None = None) -> None:
        prefix = f"notebook-serve {self.name}"
        self._scheduler = Scheduler(policy, self.policy_failed, online_cost)
        self._scheduler.max_tokens = self.runner.memory.limit
        self.requests.reset(WaitEstimate(self._scheduler.online_cost))
        self._workers = WorkerThreads(
            self.runner, self._scheduler, self._status, self.died, f"{prefix} worker"
        )
        self._deadlines = self.requests.deadlines = DeadlineTimer(self._due, f"{prefix} deadlines")
        self._pre_post = self.runner.pre_post = PrePostThread(self.died, f"{prefix} pre/post")

    def _end_threads(self, timeout: float) -> bool:
        self._workers.close()
        self._end_executors()
        self._pre_post.close()
        self._deadlines.stop()
        self._pre_post.join(max(timeout, 0.1))
        return self._workers.join(max(timeout, 0.1))

    def _end_executors(self) -> None:
        for executor in self.runner.executors:
            executor.close()
        for executor in self.runner.executors:
            executor.join()

    def died(self, error: BaseException) -> None:
        """Answer all open requests after an error that ended a thread, and reject new ones."""
        logger.critical("%s: the worker died", self.name, exc_info=error)
        said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        cause = WorkerDead(f"the worker died of {said}; call start()")
        cause.__cause__ = error
        with self._status.lock:
            self.runner.running.clear()
            self._status.cause = cause
            self.health.note(error)
            if self._status.state != "stopping":
                self._status.become("dead")
        reject = partial(
            self.requests.reject_all, lambda entry: WorkerDead(str(cause), MOST_RETRY_AFTER)
        )
        if self._pre_post.is_current():
            reject()
        else:
            # After the answers to the batch before, which only have to be finished.
            self._pre_post.put_urgent(reject)

    # -- requests -------------------------------------------------------------------------

    def submit(
        self,
        inputs: Sequence[Any],
        parameters: Mapping[str, Any],
        *,
        timeout: float | None = None,
        client: str = "",
    ) -> list[Future[Answer]]:
        """Accept all of `inputs`, each an entry of the queue, or reject all.

        Each future gives an `Answer` or raises a `ServeError`; cancelling it takes the request out
        of the queue. `timeout`, in seconds, can shorten the engine's own. Raises `QueueFull` and
        the other kinds of `Unavailable` at once, and `InvalidInput` for more inputs than the queue
        could ever hold.
        """
        if len(inputs) > self.admission.max_queue_size:
            raise InvalidInput(
                f"a list of {len(inputs)} inputs can never fit into a queue of "
                f"{self.admission.max_queue_size}; send it in parts"
            )
        now = time.monotonic()
        patience = self.timeout if timeout is None else min(float(timeout), self.timeout)
        tracer = self.runner.tracer
        trace = None if tracer is None else tracer.current()
        with self._status.lock:
            entries = self.requests.make(
                inputs, parameters, now=now, patience=patience, client=client, trace=trace
            )
            rejection = self.admission.rejection(len(entries), now, patience)
            if rejection is not None:
                self.requests.reject(entries, now)
                raise rejection
            self.requests.accept(entries, now)
            if self.admission.breaker.state != "closed":
                self.admission.breaker.taken(now)
        try:
            for entry in entries:
                self._enqueue(entry)
        except BaseException:  # a cell was interrupted just here: its caller has no futures
            for entry in entries:
                self._cancel(entry.id)
            raise
        return [entry.future for entry in entries]

    def _enqueue(self, entry: Entry) -> None:
        """Watch an accepted entry for its deadline and for its caller, and prepare it."""
        # By its id: a reference to the entry would make a cycle of every request.
        entry.future.on_cancel = partial(self._cancel, entry.id)
        if isinstance(entry.inputs, Prompt):
            # However the request ends, the rest of its text is not wanted then.
            entry.future.add_done_callback(entry.inputs.end)
        if entry.deadline < math.inf:
            self._deadlines.add(entry.deadline, entry.id)
        if self.runner.prepares_apart:
            self._pre_post.put(partial(self._prepare, entry))
        else:
            self._prepare(entry)

    def _prepare(self, entry: Entry) -> None:
        job = self.runner.prepare(entry)
        if job is not None:
            self._workers.offer(job)

    def _cancel(self, entry_id: int) -> None:
        if self.requests.cancel(entry_id):
            self._workers.withdraw(entry_id)

    def _due(self, key: int) -> None:
        """End a request whose deadline has come; or a batch, whose key is below zero."""
        if key < 0:
            self.runner.end_late(key)
        elif self.requests.expire(key):
            self._workers.withdraw(key)

    def check_open(self, client: str = "", timeout: float | None = None) -> None:
        """Raise what `submit` would raise for one more request, before its body is read."""
        now = time.monotonic()
        patience = self.timeout if timeout is None else min(timeout, self.timeout)
        with self._status.lock:
            rejection = self.admission.rejection(1, now, patience)
            if rejection is not None:
                entries = self.requests.make([None], {}, now=now, patience=0.0, client=client)
                self.requests.reject(entries, now)
                raise rejection

    # -- policy and pause -----------------------------------------------------------------

    @property
    def policy(self) -> Policy:
        """The policy in effect; setting another acts on the next batch."""
        return self._scheduler.policy

    @policy.setter
    def policy(self, policy: Policy) -> None:
        with self._status.lock:
            self._scheduler.policy = policy
            self._policies.add(policy, "set")
        self._workers.wake()

    def policy_changes(self) -> list[PolicyChange]:
        """Return the policies that took effect since the start, the oldest first."""
        with self._status.lock:
            return self._policies.changes()

    def policy_failed(self, fault: PolicyFault) -> None:
        """Log and record that the policy broke its contract and was replaced."""
        with self._status.lock:
            replaced = self._scheduler.fault is fault  # else another policy was set meanwhile
            self.health.note(fault.error)
            if replaced:
                self._policies.add(self.policy, "fault")
        said = str(fault) if replaced else f"the previous policy failed: {fault.error}"
        logger.error("%s: %s", self.name, said, exc_info=fault.error)

    def pause(self, paused: bool = True) -> None:
        """Let the queue fill without running it, or go on."""
        self._status.paused = paused
        self._workers.wake()

    # -- inspection -----------------------------------------------------------------------

    @property
    def model(self) -> Model | None:
        """The model, once it is loaded."""
        return self.runner.model

    def on_own_thread(self) -> bool:
        """Return True if the caller is the model itself, which must not wait for its own queue."""
        return self._workers.is_current() or self._pre_post.is_current()

    @property
    def error(self) -> str:
        """The error behind ``failed`` or ``dead``, or the policy's; empty when all is well."""
        error = self._status.cause or self._scheduler.fault
        return "" if error is None else str(error)

    @property
    def failing(self) -> LastError | None:
        """The newest error and the outlook while the model is failing (`FailureStreak`)."""
        if self._status.state != "ready":
            return None
        return self.health.failing(self.admission.breaker)

    @property
    def warnings(self) -> list[str]:
        """Sentences about what slows the server down; empty when all is well, or it is stopped."""
        if self._status.state == "stopped":
            return []
        return find_warnings(self.runner, self.health)

    def stats(self, recorder: Recorder | None = None) -> Stats:
        """Return statistics as of now; of `recorder`, if such a snapshot was just taken."""
        with self._status.lock:
            recorder = self.requests.recorder.copy() if recorder is None else recorder
            running = dict(self.runner.running)
        return collect_stats(
            recorder,
            running,
            self.runner,
            self.admission,
            self.health,
            state=self.state,
            policy=self.policy,
            error=self.error,
            failing=self.failing,
            warnings=self.warnings,
        )
