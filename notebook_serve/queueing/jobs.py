"""Jobs, decisions and batches: what a policy sees and what it returns. All frozen.

All times are seconds on one monotonic clock (``time.monotonic`` in a server, virtual in a
simulation), so they compare with each other and mean nothing by themselves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import OptionError


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """What a policy may see of one waiting request.

    Two jobs are equal only if they are the same object: a job stands for one request.
    """

    #: unique within a server, rising in the order of arrival
    id: int
    #: when the request was accepted
    arrived: float
    #: how long the input is: tokens for text, 1 where length means nothing
    length: int = 1
    #: when the answer is no longer wanted
    deadline: float = math.inf
    #: only jobs of one group (same parameters, same kind of input) may share a batch
    group: str = ""
    #: higher is more urgent; the policies that ship do not look at it
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """What a policy wants: jobs to run now, or the time to be asked again, and why."""

    #: the jobs to run as one batch, all of one group; empty to wait
    take: tuple[Job, ...] = ()
    #: with nothing to take: the *absolute* time to ask again if nothing arrives before
    wake_at: float = math.inf
    #: why the batch is released now: ``full``, ``deadline``, ``idle``, ``budget``, ``group``, ...
    reason: str = ""
    #: the jobs to refuse rather than run, because too much waits; where nothing else is decided,
    #: the policy is asked again at once
    drop: tuple[Job, ...] = ()

    def __post_init__(self) -> None:
        # One is made for each batch: tuples, the rule, are let through at once.
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
    """Jobs that the scheduler has released to be run together."""

    id: int
    jobs: tuple[Job, ...]
    reason: str
    #: how many jobs were left waiting
    waiting: int
