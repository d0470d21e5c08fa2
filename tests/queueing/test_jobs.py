from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from notebook_serve.queueing.jobs import Batch, Decision, Job

JOB = Job(1, 0.0)


def test_two_jobs_are_equal_only_if_they_are_one() -> None:
    """A job stands for one request, so an identical job is another one."""
    assert Job(1, 0.0) != Job(1, 0.0)
    assert JOB == JOB
    assert len({JOB, JOB, Job(1, 0.0)}) == 2


def test_a_job_wants_nothing_special_by_default() -> None:
    """By default a job has length 1, no deadline, no group and no priority."""
    job = Job(5, 2.5)

    assert (job.length, job.deadline, job.group, job.priority) == (1, math.inf, "", 0)


def test_a_decision_takes_nothing_and_never_wakes_by_default() -> None:
    """An empty decision waits forever, which breaks the contract."""
    assert Decision() == Decision(take=(), wake_at=math.inf, reason="")


@pytest.mark.parametrize(
    "value",
    [
        JOB,
        Decision((JOB,)),
        Batch(1, (JOB,), "full", 0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_everything_that_travels_is_frozen(value: Any) -> None:
    """No field can be changed."""
    for item in dataclasses.fields(value):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, item.name, None)
