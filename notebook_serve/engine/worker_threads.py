"""Worker threads: each asks the scheduler for a batch and runs it.

All other threads leave messages. The worker threads take turns at the scheduler: one waits for
messages until it has a batch, and while it runs that batch, the next one waits. So only one thread
at a time uses the scheduler, and each message is read once. A thread sleeps until a message comes,
or until the time that the policy named.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..queueing.jobs import Batch, Job
from ..queueing.scheduler import Scheduler
from ..records import BatchRecord
from .batch_runner import BatchRunner
from .status import Status


@dataclass(frozen=True, slots=True)
class NewJobs:
    """Jobs were offered since the scheduler last looked."""


@dataclass(frozen=True, slots=True)
class Withdraw:
    """The job is closed; it must leave the queue."""

    job_id: int


@dataclass(frozen=True, slots=True)
class BatchDone:
    """A batch ran."""

    record: BatchRecord


@dataclass(frozen=True, slots=True)
class Wake:
    """The policy or the pause has changed; the scheduler must be asked again."""


@dataclass(frozen=True, slots=True)
class Drain:
    """Run the queue without waiting for more requests."""


@dataclass(frozen=True, slots=True)
class Close:
    """End the threads; the queue is not run."""


Message = NewJobs | Withdraw | BatchDone | Wake | Drain | Close


class WorkerThreads:
    """The threads that drive a scheduler on the real clock, one for each worker.

    `died` is called with an error that escapes on one of them; then all of them end.
    """

    def __init__(
        self,
        runner: BatchRunner,
        scheduler: Scheduler,
        status: Status,
        died: Callable[[BaseException], None],
        name: str,
    ) -> None:
        self._runner, self._scheduler = runner, scheduler
        self._status, self._died = status, died
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        #: jobs that no thread has read yet; a job that is withdrawn before leaves at once
        self._offered: dict[int, Job] = {}
        self._announced = False
        self._offers = threading.Lock()
        self._closed = False
        #: held by the thread that uses the scheduler
        self._turn = threading.Lock()
        count = len(runner.executors)
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
        """Add a job to the queue."""
        with self._offers:
            self._offered[job.id] = job
            if not self._announced:
                self._messages.put(NewJobs())
                self._announced = True  # last: an interrupt before makes one message too many

    def withdraw(self, job_id: int) -> None:
        """Take a job out of the queue, if it still waits."""
        with self._offers:
            unread = self._offered.pop(job_id, None)
        if unread is None:
            self._messages.put(Withdraw(job_id))

    def wake(self) -> None:
        """Ask the scheduler again, because the policy or the pause has changed."""
        self._messages.put(Wake())

    def drain(self) -> None:
        """Run the queue without waiting for more requests."""
        self._messages.put(Drain())

    def close(self) -> None:
        """End the threads after their current batches; the queue is not run."""
        self._messages.put(Close())

    def join(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds for the threads; return True if all have ended."""
        give_up = time.monotonic() + timeout
        for thread in self._threads:
            if thread.is_alive() and thread is not threading.current_thread():
                thread.join(max(0.0, give_up - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def is_current(self) -> bool:
        """Return True if the caller runs on one of the threads."""
        return threading.current_thread() in self._threads

    # -- on the threads -----------------------------------------------------------------

    def _work(self, number: int) -> None:
        alone = len(self._threads) == 1
        try:
            if self._runner.load(number):
                while (batch := self._take_turn()) is not None:
                    record = self._runner.run(batch, number)
                    if record is not None and alone:
                        self._receive(BatchDone(record))
                    elif record is not None:
                        # Another thread may use the scheduler; it reads this there.
                        self._messages.put(BatchDone(record))
        except BaseException as error:
            self.close()
            self._died(error)

    def _take_turn(self) -> Batch | None:
        """Wait for the scheduler and for a batch; return it, or None once closed."""
        with self._turn:
            wait: float | None = 0.0
            while True:
                self._read_messages(wait)
                if self._closed:
                    return None
                wait = None
                if self._scheduler.waiting:
                    batch = self._poll(time.monotonic())
                    if batch is not None:
                        return batch
                    wake_at = math.inf if self._status.paused else self._scheduler.wake_at
                    wait = None if wake_at == math.inf else wake_at - time.monotonic()

    def _poll(self, now: float) -> Batch | None:
        """Ask the scheduler for a batch, and answer the jobs that leave without having run."""
        expired = self._scheduler.expire(now)
        if expired:
            self._runner.expire([job.id for job in expired])
        batch = None if self._status.paused else self._scheduler.poll(now)
        dropped = self._scheduler.dropped()
        if dropped:
            self._runner.drop([job.id for job in dropped])
        return batch

    def _read_messages(self, wait: float | None) -> None:
        """Handle all messages; wait at most `wait` seconds (None: for ever) for the first."""
        if wait is not None:
            wait = min(max(wait, 0.0), threading.TIMEOUT_MAX)
        try:
            self._receive(self._messages.get(timeout=wait))
            while not self._messages.empty():
                self._receive(self._messages.get_nowait())
        except queue.Empty:
            pass

    def _receive(self, message: Message) -> None:
        match message:
            case NewJobs():
                with self._offers:
                    offered, self._offered, self._announced = self._offered, {}, False
                for job in offered.values():
                    self._scheduler.offer(job)
            case BatchDone(record):
                if self._runner.memory.failures:
                    self._scheduler.max_tokens = self._runner.memory.limit
                self._scheduler.finish(record)
            case Withdraw(job_id):
                self._scheduler.withdraw(job_id)
            case Drain():
                self._scheduler.drain()
            case Close():
                self._closed = True
            case Wake():
                pass
