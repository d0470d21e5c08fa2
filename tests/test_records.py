"""Records of requests, batches, policy changes and errors."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args

import pytest

from notebook_serve.records import (
    MOST_NUMBERS,
    OUTCOMES,
    BatchRecord,
    ErrorRecord,
    Outcome,
    PolicyChange,
    RequestRecord,
)

RECORDS = [
    RequestRecord(0, 0.5, 0.75, 1.5, "ok", 4, 2, 17, "g", "predict"),
    BatchRecord(1, "full", (1,), 0.0, 1.0),
    PolicyChange(1.0, "Greedy()"),
    ErrorRecord("KeyError", "x", 1.0, 2.0),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_records_are_frozen(record: Any) -> None:
    """No field can be changed, so a record handed out never changes."""
    for item in dataclasses.fields(record):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(record, item.name, None)


def test_outcomes_lists_every_outcome() -> None:
    """The tuple has the values of the type, in the same order."""
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
    """Waiting and running add up to the latency; a request that never ran only waited."""
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
    """Every request is padded to the longest; padding is the share of tokens that are not input."""
    record = BatchRecord(1, "full", lengths, 0.0, 1.0)

    assert (record.size, record.padded_tokens) == (size, padded)
    assert record.padding == pytest.approx(padding)


def test_the_repr_of_a_request_has_durations_and_no_empty_fields() -> None:
    """Clock times have no meaning of their own."""
    assert repr(RECORDS[0]) == (
        "RequestRecord(id=0, outcome='ok', queue_time=0.25, inference_time=0.75, latency=1, "
        "length=17, batch_id=4, batch_size=2, group='g', client='predict')"
    )
    assert "group" not in repr(RequestRecord(1, 0.6, None, 0.6, "rejected"))


def test_the_repr_of_a_batch_has_its_size_padding_and_requests() -> None:
    """Long tuples are cut, and unknown requests are left out."""
    assert repr(BatchRecord(1, "full", (10, 10, 4), 3.0, 0.25, 7, requests=(1, 2, 3))) == (
        "BatchRecord(id=1, reason='full', size=3, requests=(1, 2, 3), lengths=(10, 10, 4), "
        "padding=0.2, seconds=0.25, waiting=7, retries=0, worker=0)"
    )
    many = BatchRecord(1, "full", tuple(range(1000)), 0.0, 1.0)
    assert f"{MOST_NUMBERS - 1}, … 1000 in all)" in repr(many)
    assert "requests" not in repr(many)
