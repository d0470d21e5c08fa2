"""Overheads of a server in addition to waiting and running, estimated from its records."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

from ..queueing.cost_model import CostModel
from ..records import BatchRecord, RequestRecord

#: the number of cases needed for an estimate
FEW = 10
#: differences below this many seconds are rounding errors
LEAST = 1e-9
#: the number of batches needed to estimate `per_arrival`, and the least number of standard errors
#: between the estimate and 0
MANY, SURE = 100, 2.0
#: the share of a batch's expected seconds in which arrivals are counted, and the seconds on either
#: side of its start from which the usual number of arrivals is computed
FIRST, AROUND = 0.8, 1.0


@dataclass(frozen=True, slots=True)
class Turn:
    """Two consecutive batches of one worker, of which no policy delayed the second."""

    #: end of the first batch
    ended: float
    #: arrival of the oldest request of the second batch, and start of that batch
    arrived: float
    started: float


def with_overheads(
    cost: CostModel, requests: Iterable[RequestRecord], batches: Iterable[BatchRecord]
) -> CostModel:
    """Return `cost` with the overheads of the server that these records show.

    `handling` is the wait of a request that arrives while the worker is idle: preprocessing and
    the switch of threads. `turnaround` is the time between two batches although requests wait:
    answers are delivered, and the policy decides. Both are medians, and 0 if there are fewer than
    `FEW` cases. `answering` and `per_answer` are the time from the end of a batch to its answers,
    which grows with their number. `per_arrival` is the delay of a running batch by each arrival. If
    it is significant, the cost model is fitted again to the durations without it.
    """
    requests, batches = list(requests), list(batches)
    turns = _turns(requests, batches)
    handling = _median([turn.started - turn.arrived for turn in turns if turn.arrived > turn.ended])
    ready = [turn for turn in turns if turn.arrived + handling < turn.ended]
    turnaround = _median([turn.started - turn.ended for turn in ready])
    arrivals = sorted(request.arrived for request in requests)
    each = _per_arrival(cost, arrivals, batches)
    if each:
        undisturbed = [
            replace(batch, seconds=batch.seconds - each * came)
            for batch in batches
            if (came := _count(arrivals, batch.started, batch.seconds)) * each < batch.seconds
        ]
        cost = CostModel.fit(undisturbed)
    answers = _fit_answering(requests, batches)
    return replace(
        cost,
        handling=handling,
        turnaround=turnaround,
        answering=answers.fixed,
        per_answer=answers.per_item,
        per_arrival=each,
    )


def _fit_answering(requests: Iterable[RequestRecord], batches: Iterable[BatchRecord]) -> CostModel:
    """Fit the time to answer a batch that has run: a fixed part and a part for each request."""
    answered = {
        request.batch_id: request.finished for request in requests if request.outcome == "ok"
    }
    # All answers of a batch come at once, so they can be fitted as a batch of inputs of length 1.
    delays = [
        replace(batch, lengths=(1,) * batch.size, seconds=seconds)
        for batch in batches
        if (seconds := answered.get(batch.id, 0.0) - batch.started - batch.seconds) > LEAST
    ]
    return CostModel.fit(delays) if len(delays) >= FEW else CostModel()


def _per_arrival(
    cost: CostModel, arrivals: Sequence[float], batches: Sequence[BatchRecord]
) -> float:
    """Return the seconds by which one arrival more than usual delays a batch; 0 if in doubt.

    A least-squares fit of the excess duration of batches to the excess arrivals in the first part
    of each, where the usual number of arrivals is taken from the time around the batch.
    """
    across = along = 0.0
    cases = []
    for batch in batches:
        expected = cost(batch.lengths)
        # A longer batch has more arrivals for that reason alone; its first part does not.
        part = FIRST * expected
        if not part or batch.seconds < part:
            continue
        usual = _count(arrivals, batch.started - AROUND, 2 * AROUND) * part / (2 * AROUND)
        more = (_count(arrivals, batch.started, part) - usual) / expected
        longer = batch.seconds / expected - 1
        across += more * longer
        along += more * more
        cases.append((more, longer))
    if len(cases) < MANY or not along:
        return 0.0
    slope = across / along
    rest = math.fsum((longer - slope * more) ** 2 for more, longer in cases) / len(cases)
    return slope if slope > SURE * math.sqrt(rest / along) else 0.0


def _count(arrivals: Sequence[float], start: float, seconds: float) -> int:
    """Count the arrivals in the `seconds` after `start`."""
    return bisect_right(arrivals, start + seconds) - bisect_right(arrivals, start)


def _turns(requests: Iterable[RequestRecord], batches: Iterable[BatchRecord]) -> list[Turn]:
    """Return the pairs of consecutive batches of each worker."""
    came: dict[int | None, float] = {}
    for request in requests:
        known = came.get(request.batch_id, request.arrived)
        came[request.batch_id] = min(known, request.arrived)
    ran = sorted(batches, key=lambda batch: (batch.worker, batch.started))
    kept = {batch.id for batch in ran}
    return [
        Turn(before.started + before.seconds, came[after.id], after.started)
        for before, after in pairwise(ran)
        if after.worker == before.worker
        # Other workers ran the batches between them; if one of those is missing, it may be this
        # worker's.
        and kept.issuperset(range(before.id + 1, after.id))
        and after.id in came
        and after.reason != "deadline"
    ]


def _median(seconds: list[float]) -> float:
    return max(0.0, median(seconds)) if len(seconds) >= FEW else 0.0
