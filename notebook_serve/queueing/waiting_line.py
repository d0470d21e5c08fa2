"""The queue: jobs in the order of arrival, indexed so that a decision need not read them all."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import overload

from .jobs import Job
from .online_cost import OnlineCost


class Group:
    """Waiting jobs of one group, in the order of arrival and, from the first use on, by length."""

    def __init__(self) -> None:
        # The first key of a plain dict is slow to reach once many keys before it are deleted;
        # that of an OrderedDict is not.
        self.jobs: OrderedDict[int, Job] = OrderedDict()
        self._by_length: list[tuple[int, int, Job]] | None = None

    def by_length(self) -> list[tuple[int, int, Job]]:
        """Return ``(length, id, job)`` in ascending order, kept up to date from now on."""
        if self._by_length is None:
            self._by_length = sorted([(job.length, job.id, job) for job in self.jobs.values()])
        return self._by_length

    def add(self, job: Job) -> None:
        """Append `job`."""
        self.jobs[job.id] = job
        if self._by_length is not None:
            insort(self._by_length, (job.length, job.id, job))

    def discard(self, job: Job) -> None:
        """Remove `job`."""
        del self.jobs[job.id]
        if self._by_length is not None:
            del self._by_length[bisect_left(self._by_length, (job.length, job.id))]


class WaitingLine(Sequence[Job]):
    """The queue of a scheduler: its jobs in the order of arrival.

    A policy reads it as a sequence; `mates` and `by_length` use its indexes.
    """

    def __init__(self, online_cost: OnlineCost | None = None) -> None:
        #: the cost model that the owner of this queue keeps up to date, if it has one
        self.online_cost = online_cost
        self._jobs: OrderedDict[int, Job] = OrderedDict()
        self._groups: dict[str, Group] = {}
        self._listed: list[Job] | None = None

    def add(self, job: Job) -> None:
        """Append `job`, which must be new."""
        if job.id in self._jobs:
            raise ValueError(f"job {job.id} is already in the queue")
        self._jobs[job.id] = job
        group = self._groups.get(job.group)
        if group is None:
            group = self._groups[job.group] = Group()
        group.add(job)
        self._listed = None

    def discard(self, job_id: int) -> Job | None:
        """Remove a job and return it; return None if it is not in the queue."""
        job = self._jobs.pop(job_id, None)
        if job is None:
            return None
        group = self._groups[job.group]
        group.discard(job)
        if not group.jobs:
            del self._groups[job.group]
        self._listed = None
        return job

    def group(self, name: str) -> Group:
        """Return the waiting jobs of one group, which must not be empty."""
        return self._groups[name]

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Job]:
        return iter(self._jobs.values())

    def __reversed__(self) -> Iterator[Job]:
        return reversed(self._jobs.values())

    def __contains__(self, job: object) -> bool:
        return isinstance(job, Job) and self._jobs.get(job.id) is job

    @overload
    def __getitem__(self, index: int) -> Job: ...
    @overload
    def __getitem__(self, index: slice) -> list[Job]: ...
    def __getitem__(self, index: int | slice) -> Job | list[Job]:
        # Most policies read only the two ends, which need no copy of the queue.
        if index == 0 and self._jobs:
            return next(iter(self._jobs.values()))
        if index == -1 and self._jobs:
            return next(reversed(self._jobs.values()))
        if self._listed is None:
            self._listed = list(self._jobs.values())
        return self._listed[index]

    def __repr__(self) -> str:
        return f"<WaitingLine: {len(self)} jobs in {len(self._groups)} groups>"


def mates(waiting: Sequence[Job], job: Job | None = None, limit: int | None = None) -> list[Job]:
    """Return the waiting jobs that may share a batch with `job`, itself included, oldest first.

    `job` defaults to the oldest job, `limit` to all of its group. With a `WaitingLine` the cost is
    proportional to the number of jobs returned, not to the length of the queue.
    """
    if not waiting:
        return []
    job = waiting[0] if job is None else job
    if isinstance(waiting, WaitingLine):
        return list(islice(waiting.group(job.group).jobs.values(), limit))
    return list(islice((other for other in waiting if other.group == job.group), limit))


def by_length(waiting: Sequence[Job], job: Job) -> tuple[list[tuple[int, int, Job]], int]:
    """Return the group of `job` as sorted ``(length, id, job)``, and the index of `job` in it."""
    if isinstance(waiting, WaitingLine):
        ranked = waiting.group(job.group).by_length()
    else:
        ranked = sorted((other.length, other.id, other) for other in mates(waiting, job))
    return ranked, bisect_left(ranked, (job.length, job.id))
