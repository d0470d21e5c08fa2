from __future__ import annotations

import dataclasses
import math
from typing import Any, get_args

import pytest

from notebook_serve.queueing.jobs import Batch, Decision, Job
from notebook_serve.records import OUTCOMES, BatchRecord, Outcome, RequestRecord

JOB = Job(1, 0.0)


def test_two_jobs_are_equal_only_if_they_are_one() -> None:
    """A job stands for one request, so a job that looks the same is another."""
    assert Job(1, 0.0) != Job(1, 0.0)
    assert JOB == JOB
    assert len({JOB, JOB, Job(1, 0.0)}) == 2


def test_a_job_wants_nothing_special_by_default() -> None:
    """Unless told otherwise a job has length 1, no deadline, no group and no priority."""
    job = Job(5, 2.5)

    assert (job.length, job.deadline, job.group, job.priority) == (1, math.inf, "", 0)


def test_a_decision_takes_nothing_and_never_wakes_by_default() -> None:
    """An empty decision is to wait for ever, which a scheduler refuses."""
    assert Decision() == Decision(take=(), wake_at=math.inf, reason="")


@pytest.mark.parametrize(
    "value",
    [
        JOB,
        Decision((JOB,)),
        Batch(1, (JOB,), "full", 0),
        RequestRecord(1, 0.0, None, 1.0, "ok"),
        BatchRecord(1, "full", (1,), 0.0, 1.0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_everything_that_travels_is_frozen(value: Any) -> None:
    """No field can be changed, so a record handed out is a record for good."""
    for item in dataclasses.fields(value):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, item.name, None)


def test_outcomes_lists_every_outcome() -> None:
    """The tuple to iterate over has what the type allows, in the same order."""
    assert get_args(Outcome) == OUTCOMES


@pytest.mark.parametrize(
    ("arrived", "started", "finished", "queue", "inference", "latency"),
    [
        (1.0, 3.0, 7.0, 2.0, 4.0, 6.0),
        (1.0, 1.0, 1.0, 0.0, 0.0, 0.0),
        (1.0, None, 4.0, 3.0, 0.0, 3.0),
    ],
)
def test_times_of_a_request(
    arrived: float,
    started: float | None,
    finished: float,
    queue: float,
    inference: float,
    latency: float,
) -> None:
    """Waiting and running add up to the latency; what never ran only waited."""
    record = RequestRecord(1, arrived, started, finished, "ok")

    assert (record.queue_time, record.inference_time, record.latency) == (queue, inference, latency)


@pytest.mark.parametrize(
    ("lengths", "size", "padded", "padding"),
    [
        ((4, 4, 4), 3, 12, 0.0),
        ((1, 3), 2, 6, 1 / 3),
        ((10, 1, 1), 3, 30, 0.6),
        ((7,), 1, 7, 0.0),
        ((0, 0), 2, 0, 0.0),
        ((), 0, 0, 0.0),
    ],
)
def test_padding_of_a_batch(
    lengths: tuple[int, ...], size: int, padded: int, padding: float
) -> None:
    """Every request is padded to the longest; the padding is the share that nobody sent."""
    record = BatchRecord(1, "full", lengths, 0.0, 1.0)

    assert (record.size, record.padded_tokens) == (size, padded)
    assert record.padding == pytest.approx(padding)
