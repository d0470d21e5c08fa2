"""What became of one HTTP request: noted on its way, for whoever logs or traces it."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from ...records import RequestRecord

#: where it is noted in an ASGI scope
REQUEST_ID = "notebook_serve.request_id"
MODEL = "notebook_serve.model"
RECORDS = "notebook_serve.records"

Scope = MutableMapping[str, Any]


@dataclass(frozen=True, slots=True)
class RequestContext:
    """A request and its answer. Of a list's items the times are the slowest's."""

    request_id: str
    method: str
    #: escaped as in a URL, without the query, which may hold a token
    path: str
    status: int
    #: who asked: address and port
    client: str
    #: the model that was asked; empty where none was
    model: str
    #: what became of its places in the queue
    records: Sequence[RequestRecord]

    @classmethod
    def of(cls, scope: Scope, status: int) -> RequestContext:
        """What is noted in the `scope` of a request that was answered with `status`."""
        client = scope.get("client")
        return cls(
            request_id=scope.get(REQUEST_ID, ""),
            method=scope["method"],
            path=quote(scope["path"]),
            status=status,
            client=f"{client[0]}:{client[1]}" if client else "",
            model=scope.get(MODEL, ""),
            records=scope.get(RECORDS, ()),
        )

    @property
    def queue_time(self) -> float | None:
        """Seconds that it waited in the queue; None if it never did."""
        return max((record.queue_time for record in self.records), default=None)

    @property
    def inference_time(self) -> float | None:
        """Seconds that its batch ran; None if it never was in the queue."""
        return max((record.inference_time for record in self.records), default=None)

    @property
    def batches(self) -> list[int]:
        """The numbers of the batches that it was in."""
        return sorted({each.batch_id for each in self.records if each.batch_id is not None})

    @property
    def batch_size(self) -> int | None:
        """The size of the largest batch that it was in; None if it was in none."""
        return max((each.batch_size for each in self.records if each.batch_size), default=None)
