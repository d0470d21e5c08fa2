"""Frozen jobs, decisions and batches: the input and output of a policy.

All times are seconds on one monotonic clock: ``time.monotonic`` in a server, virtual in a
simulation. Only their differences have a meaning.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import OptionError


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """The attributes of a waiting request that a policy may read.

    Two jobs are equal only if they are the same object: a job stands for one request.
    """

    #: unique within a server, increasing in the order of arrival
    id: int
    #: when the request was accepted
    arrived: float
    #: length of the input: tokens for text, 1 for inputs that have no length
    length: int = 1
    #: when the request times out
    deadline: float = math.inf
    #: only jobs of one group (same parameters, same kind of input) may share a batch
    group: str = ""
    #: higher is more urgent; the built-in policies ignore it
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer of a policy: jobs to run now, or the time of its next call."""

    #: the jobs to run as one batch, all of one group; empty to wait
    take: tuple[Job, ...] = ()
    #: if `take` is empty: the *absolute* time of the next call, unless a job arrives earlier
    wake_at: float = math.inf
    #: why the batch is released now: ``full``, ``deadline``, ``idle``, ``budget``, ``group``, ...
    reason: str = ""
    #: the jobs to drop because of overload; if `take` is empty, the policy is called again at once
    drop: tuple[Job, ...] = ()

    def __post_init__(self) -> None:
        # A decision is made for each batch, so the usual case, two tuples, must be cheap.
        if type(self.take) is not tuple or type(self.drop) is not tuple:
            _check_jobs(self)


def _check_jobs(decision: Decision) -> None:
    for name in ("take", "drop"):
        value = getattr(decision, name)
        if not isinstance(value, Iterable) or isinstance(value, (str, bytes)):
            raise OptionError(
                f"`{name}` must be a tuple of jobs, got {value!r}; write ({value!r},)"
            )


@dataclass(frozen=True, slots=True)
class Batch:
    """Jobs that the scheduler has released to run together."""

    id: int
    jobs: tuple[Job, ...]
    reason: str
    #: number of jobs left in the queue
    waiting: int
