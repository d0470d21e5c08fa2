"""Logs of records, stored as columns: a million records need not be a million objects."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import count, groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeVar, overload

from ..display import MOST_ROWS, Table, duration, percent
from ..extras import require
from ..records import BatchRecord, ErrorRecord, Outcome, RequestRecord

if TYPE_CHECKING:
    from pandas import DataFrame

T = TypeVar("T")

#: runs of request ids that a table lists for a batch
MOST_RUNS = 4


def _fields(*names: str) -> dict[str, Callable[[Any], Any]]:
    """Return a getter for each field of a record, by its name."""
    return {name: attrgetter(name) for name in names}


@dataclass(eq=False)
class RequestLog(Sequence[RequestRecord]):
    """A sequence of `RequestRecord`, stored as columns of equal length.

    Writers append to the columns. A record is created when it is read.
    """

    id: list[int] = field(default_factory=list)
    arrived: list[float] = field(default_factory=list)
    started: list[float | None] = field(default_factory=list)
    finished: list[float] = field(default_factory=list)
    outcome: list[Outcome] = field(default_factory=list)
    batch_id: list[int | None] = field(default_factory=list)
    batch_size: list[int] = field(default_factory=list)
    length: list[int] = field(default_factory=list)
    group: list[str] = field(default_factory=list)
    client: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, records: Iterable[RequestRecord]) -> RequestLog:
        """Return `records` as a log; a log is returned unchanged."""
        if isinstance(records, cls):
            return records
        rows = list(records)
        return cls(*([getattr(row, name) for row in rows] for name in cls.columns()))

    @classmethod
    def columns(cls) -> tuple[str, ...]:
        """Return the names of the columns, in the order of a record's fields."""
        return tuple(cls.__dataclass_fields__)

    def __len__(self) -> int:
        return len(self.arrived)

    @overload
    def __getitem__(self, index: int) -> RequestRecord: ...
    @overload
    def __getitem__(self, index: slice) -> RequestLog: ...
    def __getitem__(self, index: int | slice) -> RequestRecord | RequestLog:
        picked = (getattr(self, name)[index] for name in self.columns())
        return RequestLog(*picked) if isinstance(index, slice) else RequestRecord(*picked)

    def __iter__(self) -> Iterator[RequestRecord]:
        return map(RequestRecord, *(getattr(self, name) for name in self.columns()))

    def to_frame(self) -> DataFrame:
        """Return one row for each request; see `Requests.to_frame`."""
        return requests_frame(self)

    def __repr__(self) -> str:
        return f"<RequestLog: {len(self)} requests>"

    def _repr_mimebundle_(self, **options: Any) -> dict[str, str]:
        return requests_table(self).bundle()


class BatchLog(Sequence[BatchRecord]):
    """A sequence of `BatchRecord`, numbered from 0 and stored as columns.

    A record is created when it is read.
    """

    def __init__(self) -> None:
        self.reason: list[str] = []
        self.lengths: list[tuple[int, ...]] = []
        self.started: list[float] = []
        self.seconds: list[float] = []
        self.waiting: list[int] = []

    def add(
        self, reason: str, lengths: tuple[int, ...], started: float, seconds: float, waiting: int
    ) -> None:
        """Append a batch."""
        self.reason.append(reason)
        self.lengths.append(lengths)
        self.started.append(started)
        self.seconds.append(seconds)
        self.waiting.append(waiting)

    def __len__(self) -> int:
        return len(self.reason)

    @overload
    def __getitem__(self, index: int) -> BatchRecord: ...
    @overload
    def __getitem__(self, index: slice) -> Batches: ...
    def __getitem__(self, index: int | slice) -> BatchRecord | Batches:
        if isinstance(index, slice):
            return Batches(self[n] for n in range(*index.indices(len(self))))
        number = range(len(self))[index]
        return BatchRecord(number, *(column[number] for column in self.columns))

    def __iter__(self) -> Iterator[BatchRecord]:
        return map(BatchRecord, count(), *self.columns)

    @property
    def columns(self) -> tuple[list[Any], ...]:
        """The columns, in the order of the arguments of `add`."""
        return self.reason, self.lengths, self.started, self.seconds, self.waiting

    def to_frame(self) -> DataFrame:
        """Return one row for each batch; see `Batches.to_frame`."""
        return batches_frame(self)

    def __repr__(self) -> str:
        return f"<BatchLog: {len(self)} batches>"

    def _repr_mimebundle_(self, **options: Any) -> dict[str, str]:
        return batches_table(self).bundle()


S = TypeVar("S", bound="TableList[Any]")


class TableList(list[T]):
    """A list that a cell shows as a table, and each slice of it too."""

    def table(self) -> Table:
        """Return the table that a cell shows."""
        raise NotImplementedError

    @overload
    def __getitem__(self, index: SupportsIndex) -> T: ...
    @overload
    def __getitem__(self: S, index: slice) -> S: ...
    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return type(self)(found) if isinstance(index, slice) else found

    def __repr__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table().markup()


class Requests(TableList[RequestRecord]):
    """Request records, oldest first: a list, and a table in a cell."""

    def table(self) -> Table:
        """Return a table with one row for each request."""
        return requests_table(self)

    def to_frame(self) -> DataFrame:
        """Return one row for each request: its record, and its three durations in seconds.

        Requests with the same ``batch_id`` shared a batch. Raises `MissingExtra` without pandas.
        """
        return requests_frame(self)


class Batches(TableList[BatchRecord]):
    """Batch records, oldest first: a list, and a table in a cell."""

    def table(self) -> Table:
        """Return a table with one row for each batch."""
        return batches_table(self)

    def to_frame(self) -> DataFrame:
        """Return one row for each batch: its record, size and padding (a share from 0 to 1).

        ``requests`` has the ids of its requests. Raises `MissingExtra` without pandas.
        """
        return batches_frame(self)


class Errors(TableList[ErrorRecord]):
    """The latest errors of a server or a model, newest first: a list, and a table in a cell.

    Consecutive equal errors are one record with a count. Messages are cut to 500 characters.
    """

    def table(self) -> Table:
        """Return a table with one row for each error."""
        return errors_table(self)

    def to_frame(self) -> DataFrame:
        """Return one row for each error. Raises `MissingExtra` without pandas."""
        frame = _frame(self, ERROR_COLUMNS)
        pandas = require("pandas", "notebook")
        return frame.assign(when=pandas.to_datetime(frame["when"], unit="s", utc=True))


# -- as tables ----------------------------------------------------------------------------

REQUEST_HEADS = (
    *("id", "arrived", "queue_time", "inference_time", "latency"),
    *("outcome", "batch", "size", "length", "parameters", "client", "batch mates"),
)
BATCH_HEADS = (
    *("id", "started", "seconds", "reason", "size", "longest", "padding", "waiting"),
    *("worker", "requests"),
)
ERROR_HEADS = ("when", "model", "type", "message", "times", "request")


def requests_table(records: Sequence[RequestRecord]) -> Table:
    """Return a table of requests; arrival times are relative to the first request."""
    first = records[0].arrived if records else 0.0
    mates = _mates(records)

    def row(record: RequestRecord) -> tuple[Any, ...]:
        return (
            record.id,
            duration(record.arrived - first),
            duration(record.queue_time),
            duration(record.inference_time),
            duration(record.latency),
            record.outcome,
            record.batch_id,
            record.batch_size or None,
            record.length,
            record.group or "default",
            record.client,
            _ids_in_words([mate for mate in mates.get(record.batch_id, ()) if mate != record.id]),
        )

    return Table.of(_count_in_words(len(records), "request"), REQUEST_HEADS, records, row)


def _mates(records: Sequence[RequestRecord]) -> Mapping[int | None, list[int]]:
    """Return the request ids of each batch that the shown rows of a table refer to."""
    ends = [*records[: MOST_ROWS // 2], *records[-MOST_ROWS:]]
    shown = {record.batch_id for record in ends if record.batch_size > 1}
    mates: defaultdict[int | None, list[int]] = defaultdict(list)
    for batch_id, number in _batch_ids(records) if shown else ():
        if batch_id in shown:
            mates[batch_id].append(number)
    return mates


def _batch_ids(records: Sequence[RequestRecord]) -> Iterable[tuple[int | None, int]]:
    """Return the batch id and the id of each request, without creating the records of a log."""
    if isinstance(records, RequestLog):
        return zip(records.batch_id, records.id, strict=True)
    return map(attrgetter("batch_id", "id"), records)


def _ids_in_words(numbers: Sequence[int]) -> str:
    """Return ids as text: ``3, 5–9``; only the first few runs of many, a dash for none."""
    ordered = enumerate(sorted(numbers))
    runs = [[n for _, n in run] for _, run in groupby(ordered, lambda pair: pair[1] - pair[0])]
    spans = [f"{run[0]}–{run[-1]}" if run[1:] else str(run[0]) for run in runs]
    rest = sum(map(len, runs[MOST_RUNS:]))
    more = f" and {rest} more" if rest else ""
    return ", ".join(spans[:MOST_RUNS]) + more or "–"


def _count_in_words(count: int, thing: str, plural: str = "s") -> str:
    return f"{count} {thing}{plural if count != 1 else ''}"


def batches_table(batches: Sequence[BatchRecord]) -> Table:
    """Return a table of batches; start times are relative to the first batch."""
    first = batches[0].started if batches else 0.0

    def row(batch: BatchRecord) -> tuple[Any, ...]:
        return (
            batch.id,
            duration(batch.started - first),
            duration(batch.seconds),
            batch.reason,
            batch.size,
            max(batch.lengths, default=0),
            percent(batch.padding),
            batch.waiting,
            batch.worker,
            _ids_in_words(batch.requests),
        )

    return Table.of(_count_in_words(len(batches), "batch", "es"), BATCH_HEADS, batches, row)


def errors_table(errors: Sequence[ErrorRecord]) -> Table:
    """Return a table of errors; times are the latest occurrence, in local time."""

    def row(error: ErrorRecord) -> tuple[Any, ...]:
        when = datetime.fromtimestamp(error.when, timezone.utc).astimezone()
        return (
            f"{when:%Y-%m-%d %H:%M:%S}",
            error.model,
            error.type,
            error.message,
            error.times,
            error.request or "–",
        )

    return Table.of(_count_in_words(len(errors), "error"), ERROR_HEADS, errors, row)


# -- as data frames -----------------------------------------------------------------------

ERROR_COLUMNS = _fields("when", "model", "type", "message", "times", "request")
BATCH_COLUMNS = {
    **_fields("id", "started", "seconds", "reason", "size"),
    "longest": lambda batch: max(batch.lengths, default=0),
    **_fields("padding", "padded_tokens", "waiting", "retries", "worker", "requests", "lengths"),
}


def _frame(items: Iterable[Any], columns: Mapping[str, Callable[[Any], Any]]) -> DataFrame:
    """Return a data frame with one row for each of `items`."""
    pandas = require("pandas", "notebook")
    rows = list(items)
    return pandas.DataFrame({name: list(map(read, rows)) for name, read in columns.items()})


def batches_frame(batches: Iterable[BatchRecord]) -> DataFrame:
    """Return one row for each batch: its record, its size and its padding."""
    return _frame(batches, BATCH_COLUMNS)


def requests_frame(records: Iterable[RequestRecord]) -> DataFrame:
    """Return one row for each request: its record, and its three durations in seconds.

    Unknown durations are missing values. Raises `MissingExtra` without pandas.
    """
    pandas = require("pandas", "notebook")
    log = RequestLog.of(records)
    columns = {name: getattr(log, name) for name in RequestLog.columns()}
    times = dict.fromkeys(("arrived", "started", "finished"), float)
    frame = pandas.DataFrame(columns).astype({**times, "batch_id": "Int64"})
    known = frame["started"].notna() | (frame["outcome"] != "ok")
    left = frame["started"].fillna(frame["finished"])
    return frame.assign(
        queue_time=(left - frame["arrived"]).where(known),
        inference_time=(frame["finished"] - left).where(known),
        latency=frame["finished"] - frame["arrived"],
    )
