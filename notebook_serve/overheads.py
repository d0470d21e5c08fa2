"""What a server takes besides waiting and running, as its records tell."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

from .cost import CostModel
from .jobs import BatchRecord, RequestRecord

#: fewer cases than this say nothing
FEW = 10


@dataclass(frozen=True, slots=True)
class Turn:
    """Two batches, one after the other, of which the policy did not hold back the second."""

    #: when the first was done
    ended: float
    #: when the oldest request of the second had come, and when it ran
    arrived: float
    started: float


def with_overheads(
    cost: CostModel, requests: Iterable[RequestRecord], batches: Iterable[BatchRecord]
) -> CostModel:
    """The same cost, with the `handling` and the `turnaround` that these records show.

    Both are medians, and 0 where fewer than `FEW` cases tell. Handling is how long a request waits
    that comes while nothing runs: it is prepared and handed over. The turnaround is how long the
    next batch is held up by the last, though somebody waits: answers are handed out, and the
    policy decides.
    """
    turns = _turns(requests, batches)
    handling = _median([turn.started - turn.arrived for turn in turns if turn.arrived > turn.ended])
    ready = [turn for turn in turns if turn.arrived + handling < turn.ended]
    turnaround = _median([turn.started - turn.ended for turn in ready])
    return replace(cost, handling=handling, turnaround=turnaround)


def _turns(requests: Iterable[RequestRecord], batches: Iterable[BatchRecord]) -> list[Turn]:
    came: dict[int | None, float] = {}
    for request in requests:
        known = came.get(request.batch_id, request.arrived)
        came[request.batch_id] = min(known, request.arrived)
    ran = sorted(batches, key=lambda batch: batch.started)
    return [
        Turn(before.started + before.seconds, came[after.id], after.started)
        for before, after in pairwise(ran)
        if after.id == before.id + 1 and after.id in came and after.reason != "deadline"
    ]


def _median(seconds: list[float]) -> float:
    return max(0.0, median(seconds)) if len(seconds) >= FEW else 0.0
