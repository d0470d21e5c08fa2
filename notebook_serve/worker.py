"""The one thread that owns the model: it asks the scheduler what to run, and has it run.

Everybody else leaves messages; nothing but this thread touches the scheduler, so no lock is held
while a policy decides. The thread sleeps until a message comes or the time that the policy named.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

from .jobs import Batch, BatchRecord, Job
from .memory import Ceiling
from .policies import Policy
from .scheduler import PolicyFault, Scheduler


class Host(Protocol):
    """Whom a worker works for. Everything here is called on the worker's thread."""

    #: the most padded tokens that fit into memory
    ceiling: Ceiling

    def load(self) -> bool:
        """Make the model ready; False ends the worker."""

    def run(self, batch: Batch) -> BatchRecord | None:
        """Run a batch and answer its requests; None if nobody wanted it any more."""

    def expire(self, job_ids: Iterable[int]) -> None:
        """The time of these jobs ran out before they could run."""

    def give_up(self, job_ids: Iterable[int]) -> None:
        """The policy refused these jobs, because too much waits."""

    def policy_failed(self, fault: PolicyFault) -> None:
        """The policy broke its contract and was replaced."""

    def died(self, error: BaseException) -> None:
        """Something escaped, and the worker ends."""


class Worker:
    """A scheduler, and the thread that drives it on the real clock."""

    def __init__(self, host: Host, policy: Policy, name: str) -> None:
        self._host = host
        self._scheduler = Scheduler(policy)
        self._mail: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        #: the jobs that the thread has still to read of; what leaves before is not kept till then
        self._offered: dict[int, Job] = {}
        self._announced = False
        self._offers = threading.Lock()
        self._paused = False
        self._closed = False
        self._shown: PolicyFault | None = None
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    # -- from any thread ----------------------------------------------------------------

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def offer(self, job: Job) -> None:
        """Let a job wait."""
        with self._offers:
            self._offered[job.id] = job
            if not self._announced:
                self._mail.put(self._read_offers)
                self._announced = True  # last: an interrupt before makes one message too many

    def withdraw(self, job_id: int) -> None:
        """Forget a job, if it still waits."""
        with self._offers:
            unread = self._offered.pop(job_id, None)
        if unread is None:
            self._mail.put(partial(self._withdraw, job_id))

    def use(self, policy: Policy) -> None:
        """Decide by `policy` from the next batch on."""
        self._mail.put(partial(setattr, self._scheduler, "policy", policy))

    def pause(self, paused: bool) -> None:
        """Release no batch until told otherwise."""
        self._mail.put(partial(setattr, self, "_paused", paused))

    def drain(self) -> None:
        """Run what waits without waiting for more, paused or not."""
        self.pause(False)
        self._mail.put(self._scheduler.drain)

    def close(self) -> None:
        """End the thread once its current batch is through; what waits is not run."""
        self._mail.put(partial(setattr, self, "_closed", True))

    def join(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds for the thread to end; says whether it has."""
        if self._thread.is_alive() and not self.is_current():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def is_current(self) -> bool:
        """Whether the caller runs on the worker's own thread."""
        return threading.current_thread() is self._thread

    # -- on the thread ------------------------------------------------------------------

    def _work(self) -> None:
        try:
            if self._host.load():
                while (batch := self._next_batch()) is not None:
                    record = self._host.run(batch)
                    self._scheduler.max_tokens = self._host.ceiling.limit
                    if record is not None:
                        self._scheduler.finish(record)
                        self._show_fault()
        except BaseException as error:
            self._host.died(error)

    def _next_batch(self) -> Batch | None:
        """Wait for the next batch to run; None once closed."""
        wait: float | None = 0.0
        while True:
            self._read_mail(wait)
            if self._closed:
                return None
            now = time.monotonic()
            expired = self._scheduler.expire(now)
            if expired:
                self._host.expire(job.id for job in expired)
            batch = None if self._paused else self._scheduler.poll(now)
            dropped = self._scheduler.dropped()
            if dropped:
                self._host.give_up(job.id for job in dropped)
            self._show_fault()
            if batch is not None:
                return batch
            wake_at = math.inf if self._paused else self._scheduler.wake_at
            wait = None if wake_at == math.inf else wake_at - time.monotonic()

    def _read_mail(self, wait: float | None) -> None:
        """Do what messages say; wait at most `wait` seconds (None: for ever) for the first."""
        if wait is not None:
            wait = min(max(wait, 0.0), threading.TIMEOUT_MAX)
        try:
            self._mail.get(timeout=wait)()
            while not self._mail.empty():
                self._mail.get_nowait()()
        except queue.Empty:
            pass

    def _read_offers(self) -> None:
        with self._offers:
            offered, self._offered, self._announced = self._offered, {}, False
        for job in offered.values():
            self._scheduler.offer(job)

    def _withdraw(self, job_id: int) -> None:
        self._scheduler.withdraw(job_id)

    def _show_fault(self) -> None:
        fault = self._scheduler.fault
        if fault is not None and fault is not self._shown:
            self._host.policy_failed(fault)
        self._shown = fault
