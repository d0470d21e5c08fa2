"""The facts about one HTTP request that the access log and traces report."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from ...records import RequestRecord

#: keys of an ASGI scope
REQUEST_ID = "notebook_serve.request_id"
MODEL = "notebook_serve.model"
RECORDS = "notebook_serve.records"

Scope = MutableMapping[str, Any]


@dataclass(frozen=True, slots=True)
class RequestContext:
    """A request and its response. For a list of inputs, the times are those of the slowest."""

    request_id: str
    method: str
    #: escaped as in a URL, without the query, which may contain a token
    path: str
    status: int
    #: address and port of the client
    client: str
    #: the model's name; empty for a request to no model
    model: str
    #: records of its inputs, one each
    records: Sequence[RequestRecord]

    @classmethod
    def of(cls, scope: Scope, status: int) -> RequestContext:
        """Return the context of the request with this ASGI `scope`, answered with `status`."""
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
        """Seconds in the queue; None if it was never queued."""
        return max((record.queue_time for record in self.records), default=None)

    @property
    def inference_time(self) -> float | None:
        """Seconds that its batch ran; None if it was never queued."""
        return max((record.inference_time for record in self.records), default=None)

    @property
    def batches(self) -> list[int]:
        """Ids of its batches."""
        return sorted({each.batch_id for each in self.records if each.batch_id is not None})

    @property
    def batch_size(self) -> int | None:
        """Size of its largest batch; None if it was in none."""
        return max((each.batch_size for each in self.records if each.batch_size), default=None)
