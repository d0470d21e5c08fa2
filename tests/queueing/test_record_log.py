from __future__ import annotations

import re
from dataclasses import fields
from datetime import datetime
from typing import Any

import pytest

from notebook_serve import BatchRecord, ErrorRecord
from notebook_serve.queueing.record_log import Batches, BatchLog, Errors, RequestLog, Requests
from notebook_serve.records import RequestRecord

RECORDS = [
    RequestRecord(0, 0.5, 0.75, 1.5, "ok", 4, 2, 17, "g", "predict"),
    RequestRecord(1, 0.6, None, 0.6, "rejected"),
    RequestRecord(2, 0.7, 0.75, 1.5, "failed", 4, 2, 9),
]


def test_the_columns_are_the_fields_of_a_record() -> None:
    """Every field of a record is a column."""
    assert RequestLog.columns() == tuple(item.name for item in fields(RequestRecord))


def test_records_become_columns() -> None:
    """Each column has one field of all records, in order."""
    log = RequestLog.of(iter(RECORDS))

    assert log.id == [0, 1, 2]
    assert log.started == [0.75, None, 0.75]
    assert log.outcome == ["ok", "rejected", "failed"]
    assert (log.batch_id, log.batch_size, log.length) == ([4, None, 4], [2, 0, 2], [17, 1, 9])
    assert (log.group, log.client) == (["g", "", ""], ["predict", "", ""])


def test_a_log_reads_as_its_records() -> None:
    """A log can be counted, indexed from both ends, iterated, reversed and searched."""
    log = RequestLog.of(RECORDS)

    assert len(log) == 3
    assert list(log) == RECORDS
    assert (log[0], log[-1]) == (RECORDS[0], RECORDS[2])
    assert list(reversed(log)) == RECORDS[::-1]
    assert log.index(RECORDS[1]) == 1
    assert RECORDS[2] in log


def test_a_slice_is_a_log() -> None:
    """A slice is an independent log."""
    log = RequestLog.of(RECORDS)
    part = log[1:]
    part.client[0] = "other"

    assert isinstance(part, RequestLog)
    assert list(part)[1:] == RECORDS[2:]
    assert list(log) == RECORDS


def test_an_index_beyond_the_end_raises() -> None:
    """An index out of range raises, as in any sequence."""
    with pytest.raises(IndexError):
        RequestLog.of(RECORDS)[3]


def test_a_log_of_a_log_is_itself() -> None:
    """A million records are not copied for reading."""
    log = RequestLog.of(RECORDS)

    assert RequestLog.of(log) is log


def test_a_log_of_nothing_is_empty() -> None:
    """Empty logs have all columns, and share none."""
    log, other = RequestLog.of([]), RequestLog()
    other.id.append(1)

    assert (len(log), list(log)) == (0, [])
    assert all(getattr(log, name) == [] for name in RequestLog.columns())
    assert RequestLog().id == []


def test_a_long_log_prints_short() -> None:
    """The repr of a long log is short."""
    assert repr(RequestLog.of(RECORDS * 1000)) == "<RequestLog: 3000 requests>"


# -- lists that read as tables --------------------------------------------------------------

BATCHES = [
    BatchRecord(1, "full", (10, 10, 4), 5.0, 0.25, 7, requests=(1, 2, 3)),
    BatchRecord(2, "idle", (6,), 6.0, 0.5, requests=(4,)),
]
ERRORS = [
    ErrorRecord("KeyError", "'x'", 7.0, 1_000_000_000.0, 3, "4", "m"),
    ErrorRecord("OSError", "no disk", 5.0, 999_999_000.0),
]


def rows(value: object) -> list[list[str]]:
    """Return the cells of a printed table, without its title."""
    return [re.split(" {2,}", line) for line in repr(value).splitlines()[1:]]


def test_requests_list_the_others_of_their_batch() -> None:
    """The other requests of a batch are listed by id, runs of ids as one; alone, there are none."""
    made = [RequestRecord(n, 0.0, 1.0, 2.0, "ok", 1, 9) for n in (1, 2, 3, 5, 9, 11, 13, 14, 15)]
    made.append(RequestRecord(20, 0.0, 1.0, 2.0, "ok", 2, 1))
    heads, *found = rows(Requests(made))
    mates = [row[heads.index("batch mates") - len(heads)] for row in found]

    assert mates[0] == "2–3, 5, 9, 11 and 3 more"
    assert mates[4] == "1–3, 5, 11, 13–15"
    assert mates[-1] == "–"
    assert "1–3, 5, 11, 13–15" in RequestLog.of(made)._repr_mimebundle_()["text/plain"]


def test_batches_say_their_padding_and_their_requests() -> None:
    """A batch shows its share of padding, and the ids of its requests."""
    heads, first, second = rows(Batches(BATCHES))

    assert heads[-4:] == ["padding", "waiting", "worker", "requests"]
    assert first[-4:] == ["20%", "7", "0", "1–3"]
    assert second[-4:] == ["0%", "0", "0", "4"]


def test_errors_say_when_in_local_time() -> None:
    """Each row has the number of occurrences and the newest request."""
    heads, first, second = rows(Errors(ERRORS))
    local = datetime.fromtimestamp(1_000_000_000).strftime("%Y-%m-%d %H:%M:%S")  # noqa: DTZ006

    assert heads == ["when", "model", "type", "message", "times", "request"]
    assert first == [local, "m", "KeyError", "'x'", "3", "4"]
    assert second[-3:] == ["no disk", "1", "–"]


@pytest.mark.parametrize("whole", [Requests(RECORDS), Batches(BATCHES), Errors(ERRORS)])
def test_a_part_of_a_list_reads_as_a_table_too(whole: Any) -> None:
    """A slice keeps its class; an item is the record."""
    part = whole[:1]

    assert type(part) is type(whole)
    assert part == [whole[0]]
    assert repr(part).splitlines()[0].startswith("1 ")
    assert repr(part).splitlines()[0] == part._repr_html_().split("<caption>")[1].split("<")[0]


def test_a_part_of_a_simulated_log_of_batches_reads_as_a_table() -> None:
    """A slice of simulated batches behaves like those of a server."""
    log = BatchLog()
    log.add("full", (3, 5), 1.0, 0.5, 0)

    assert isinstance(log[:1], Batches)
    assert log[:1][0].lengths == (3, 5)


def test_each_list_becomes_a_data_frame() -> None:
    """A frame has a row for each record, with computed columns; an empty frame has all columns."""
    pytest.importorskip("pandas")
    requests, batches = Requests(RECORDS).to_frame(), Batches(BATCHES).to_frame()
    errors = Errors(ERRORS).to_frame()

    assert list(requests["queue_time"]) == pytest.approx([0.25, 0.0, 0.05])
    assert list(batches["padding"]) == pytest.approx([0.2, 0.0])
    assert list(batches["requests"]) == [(1, 2, 3), (4,)]
    assert str(errors["when"][0]) == "2001-09-09 01:46:40+00:00"
    assert list(requests.columns) == list(RequestLog().to_frame().columns)
    assert list(batches.columns) == list(BatchLog().to_frame().columns)
    assert list(errors.columns) == list(Errors().to_frame().columns)
    both = requests.merge(batches, left_on="batch_id", right_on="id", how="left")
    assert len(both) == len(requests)
