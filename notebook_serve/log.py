"""Many records, kept as plain columns and rows: a million of them need not be a million objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, overload

from .display import Table, duration, percent
from .jobs import BatchRecord, Outcome, RequestRecord


@dataclass(eq=False)
class RequestLog(Sequence[RequestRecord]):
    """Reads as a sequence of `RequestRecord`; its columns are lists of one length.

    Whoever writes it fills the columns; a record is made when one is looked at.
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
        """The same records as columns; a log as it is."""
        if isinstance(records, cls):
            return records
        rows = list(records)
        return cls(*([getattr(row, name) for row in rows] for name in cls.columns()))

    @classmethod
    def columns(cls) -> tuple[str, ...]:
        """The names of the columns, in the order of a record's fields."""
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

    def __repr__(self) -> str:
        return f"<RequestLog: {len(self)} requests>"

    def _repr_mimebundle_(self, **options: Any) -> dict[str, str]:
        return requests_table(self).bundle()


class BatchLog(Sequence[BatchRecord]):
    """Reads as a sequence of `BatchRecord`, numbered from 0; each is made when it is looked at."""

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
    def __getitem__(self, index: slice) -> list[BatchRecord]: ...
    def __getitem__(self, index: int | slice) -> BatchRecord | list[BatchRecord]:
        if isinstance(index, slice):
            return [self[n] for n in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        return BatchRecord(number, *(column[number] for column in self.columns))

    def __iter__(self) -> Iterator[BatchRecord]:
        return map(BatchRecord, count(), *self.columns)

    @property
    def columns(self) -> tuple[list[Any], ...]:
        """What is kept of the batches, in the order of `add`."""
        return self.reason, self.lengths, self.started, self.seconds, self.waiting

    def __repr__(self) -> str:
        return f"<BatchLog: {len(self)} batches>"

    def _repr_mimebundle_(self, **options: Any) -> dict[str, str]:
        return batches_table(self).bundle()


class Requests(list[RequestRecord]):
    """A list that reads as a table."""

    def __repr__(self) -> str:
        return str(requests_table(self))

    def _repr_html_(self) -> str:
        return requests_table(self).markup()


class Batches(list[BatchRecord]):
    """A list that reads as a table."""

    def __repr__(self) -> str:
        return str(batches_table(self))

    def _repr_html_(self) -> str:
        return batches_table(self).markup()


# -- as tables ----------------------------------------------------------------------------

REQUEST_HEADS = (
    *("id", "arrived", "queue_time", "inference_time", "latency"),
    *("outcome", "batch", "size", "length", "parameters", "client"),
)
BATCH_HEADS = (
    *("id", "started", "seconds", "reason", "size", "longest", "padding", "waiting"),
    "worker",
)


def requests_table(records: Sequence[RequestRecord]) -> Table:
    """What became of each request; arrivals count from the first one's."""
    first = records[0].arrived if records else 0.0

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
        )

    return Table.of(f"{len(records)} requests", REQUEST_HEADS, records, row)


def batches_table(batches: Sequence[BatchRecord]) -> Table:
    """Each batch that ran; starts count from the first one's."""
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
        )

    return Table.of(f"{len(batches)} batches", BATCH_HEADS, batches, row)
