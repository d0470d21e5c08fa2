from __future__ import annotations

from dataclasses import fields

import pytest

from notebook_serve.jobs import RequestRecord
from notebook_serve.log import RequestLog

RECORDS = [
    RequestRecord(0, 0.5, 0.75, 1.5, "ok", 4, 2, 17, "g", "predict"),
    RequestRecord(1, 0.6, None, 0.6, "rejected"),
    RequestRecord(2, 0.7, 0.75, 1.5, "failed", 4, 2, 9),
]


def test_the_columns_are_the_fields_of_a_record() -> None:
    """A record's field, added some day, is a column too."""
    assert RequestLog.columns() == tuple(item.name for item in fields(RequestRecord))


def test_records_become_columns() -> None:
    """Each column has one field of all records, in their order."""
    log = RequestLog.of(iter(RECORDS))

    assert log.id == [0, 1, 2]
    assert log.started == [0.75, None, 0.75]
    assert log.outcome == ["ok", "rejected", "failed"]
    assert (log.batch_id, log.batch_size, log.length) == ([4, None, 4], [2, 0, 2], [17, 1, 9])
    assert (log.group, log.client) == (["g", "", ""], ["predict", "", ""])


def test_a_log_reads_as_its_records() -> None:
    """It can be counted, indexed from both ends, looped over, reversed and searched."""
    log = RequestLog.of(RECORDS)

    assert len(log) == 3
    assert list(log) == RECORDS
    assert (log[0], log[-1]) == (RECORDS[0], RECORDS[2])
    assert list(reversed(log)) == RECORDS[::-1]
    assert log.index(RECORDS[1]) == 1
    assert RECORDS[2] in log


def test_a_slice_is_a_log() -> None:
    """A part of a log is a log again, and changing it leaves the whole as it was."""
    log = RequestLog.of(RECORDS)
    part = log[1:]
    part.client[0] = "other"

    assert isinstance(part, RequestLog)
    assert list(part)[1:] == RECORDS[2:]
    assert list(log) == RECORDS


def test_an_index_beyond_the_end_raises() -> None:
    """As with any sequence."""
    with pytest.raises(IndexError):
        RequestLog.of(RECORDS)[3]


def test_a_log_of_a_log_is_itself() -> None:
    """A million records are not copied to be read."""
    log = RequestLog.of(RECORDS)

    assert RequestLog.of(log) is log


def test_a_log_of_nothing_is_empty() -> None:
    """It has all its columns, and nothing in them; two such share none."""
    log, other = RequestLog.of([]), RequestLog()
    other.id.append(1)

    assert (len(log), list(log)) == (0, [])
    assert all(getattr(log, name) == [] for name in RequestLog.columns())
    assert RequestLog().id == []


def test_a_long_log_prints_short() -> None:
    """A log at the end of a cell is not ten million numbers."""
    assert repr(RequestLog.of(RECORDS * 1000)) == "<RequestLog: 3000 requests>"
