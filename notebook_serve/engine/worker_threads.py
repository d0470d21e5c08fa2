"""The thread that owns the model: it asks the scheduler what to run, and has it run.

Everybody else leaves messages. Where there are several workers, each has a thread, and those that
are idle take turns at the scheduler: the first waits for messages until it has a batch, and while
it runs that, the next waits. So nobody else touches the scheduler, and no message is read twice. A
thread sleeps until a message comes or the time that the policy named.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

from ..queueing.jobs import Batch, Job
from ..queueing.policies import Policy
from ..queueing.scheduler import PolicyFault, Scheduler
from ..records import BatchRecord
from ..workers.out_of_memory import MemoryLimit


class Host(Protocol):
    """Whom a worker works for. Everything here is called on a worker's thread."""

    #: the most padded tokens that fit into memory
    ceiling: MemoryLimit

    def load(self, number: int) -> bool:
        """Make a worker's model ready; False ends that worker."""

    def run(self, batch: Batch, number: int) -> BatchRecord | None:
        """Run a batch on a worker and answer its requests; None if nobody wanted it any more."""

    def expire(self, job_ids: Iterable[int]) -> None:
        """The time of these jobs ran out before they could run."""

    def give_up(self, job_ids: Iterable[int]) -> None:
        """The policy refused these jobs, because too much waits."""

    def policy_failed(self, fault: PolicyFault) -> None:
        """The policy broke its contract and was replaced."""

    def died(self, error: BaseException) -> None:
        """Something escaped, and the worker ends."""


class WorkerThreads:
    """A scheduler, and the threads that drive it on the real clock, one for each worker."""

    def __init__(self, host: Host, policy: Policy, name: str, count: int = 1) -> None:
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
        #: held by the one that is at the scheduler
        self._turn = threading.Lock()
        self._threads = [
            threading.Thread(
                target=self._work,
                args=(number,),
                name=name if count == 1 else f"{name} {number}",
                daemon=True,
            )
            for number in range(count)
        ]

    # -- from any thread ----------------------------------------------------------------

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

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
        """End the threads once their current batches are through; what waits is not run."""
        self._mail.put(partial(setattr, self, "_closed", True))

    def join(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds for the threads to end; says whether they have."""
        give_up = time.monotonic() + timeout
        for thread in self._threads:
            if thread.is_alive() and thread is not threading.current_thread():
                thread.join(max(0.0, give_up - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def is_current(self) -> bool:
        """Whether the caller runs on a thread of the worker's own."""
        return threading.current_thread() in self._threads

    # -- on the threads -----------------------------------------------------------------

    def _work(self, number: int) -> None:
        try:
            if self._host.load(number):
                while (batch := self._take_turn()) is not None:
                    record = self._host.run(batch, number)
                    if record is not None:
                        # Another may be at the scheduler, and reads of it there.
                        self._mail.put(partial(self._finish, record))
        except BaseException as error:
            self.close()
            self._host.died(error)

    def _take_turn(self) -> Batch | None:
        """The next batch, once it is this worker's turn and there is one; None once closed."""
        with self._turn:
            return self._next_batch()

    def _finish(self, record: BatchRecord) -> None:
        self._scheduler.max_tokens = self._host.ceiling.limit
        self._scheduler.finish(record)
        self._show_fault()

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
