"""What a server takes besides waiting and running, as its records tell."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

from ..queueing.cost_model import CostModel
from ..records import BatchRecord, RequestRecord

#: fewer cases than this say nothing
FEW = 10
#: seconds that are nothing: what rounding leaves of a difference
LEAST = 1e-9
#: so many batches are wanted to tell what an arrival takes from one, and it must be so many
#: standard errors from nothing
MANY, SURE = 100, 2.0
#: the share of a batch's expected seconds in which arrivals are counted, and the seconds on either
#: side that say how many would have come anyway
FIRST, AROUND = 0.8, 1.0


@dataclass(frozen=True, slots=True)
class Turn:
    """Two batches of one worker, one after the other; no policy held back the second."""

    #: when the first was done
    ended: float
    #: when the oldest request of the second had come, and when it ran
    arrived: float
    started: float


def with_overheads(
    cost: CostModel, requests: Iterable[RequestRecord], batches: Iterable[BatchRecord]
) -> CostModel:
    """The cost of `batches`, with what these records show that a server takes besides.

    Handling is how long a request waits that comes while nothing runs: it is prepared and handed
    over. The turnaround is how long the next batch is held up by the last, though somebody waits:
    answers are handed out, and the policy decides. Both are medians, and 0 where fewer than `FEW`
    cases tell. Answering is what lies between the end of a batch and its answers, and grows with
    their number. Requests that came while a batch ran held it up by `per_arrival` each; where that
    can be told, the law is fitted again to what batches take without.
    """
    requests, batches = list(requests), list(batches)
    turns = _turns(requests, batches)
    handling = _median([turn.started - turn.arrived for turn in turns if turn.arrived > turn.ended])
    ready = [turn for turn in turns if turn.arrived + handling < turn.ended]
    turnaround = _median([turn.started - turn.ended for turn in ready])
    arrivals = sorted(request.arrived for request in requests)
    each = _per_arrival(cost, arrivals, batches)
    if each:
        alone = [
            replace(batch, seconds=batch.seconds - each * came)
            for batch in batches
            if (came := _between(arrivals, batch.started, batch.seconds)) * each < batch.seconds
        ]
        cost = CostModel.fit(alone)
    answers = _answers(requests, batches)
    return replace(
        cost,
        handling=handling,
        turnaround=turnaround,
        answering=answers.fixed,
        per_answer=answers.per_item,
        per_arrival=each,
    )


def _answers(requests: Iterable[RequestRecord], batches: Iterable[BatchRecord]) -> CostModel:
    """What it takes to answer a batch that has run, for the batch and for each request of it."""
    answered = {
        request.batch_id: request.finished for request in requests if request.outcome == "ok"
    }
    # All answers of a batch are there at once; to a law they are a batch of inputs without length.
    later = [
        replace(batch, lengths=(1,) * batch.size, seconds=seconds)
        for batch in batches
        if (seconds := answered.get(batch.id, 0.0) - batch.started - batch.seconds) > LEAST
    ]
    return CostModel.fit(later) if len(later) >= FEW else CostModel()


def _per_arrival(
    cost: CostModel, arrivals: Sequence[float], batches: Sequence[BatchRecord]
) -> float:
    """By how much one more arrival than usual makes a batch longer; 0 where that is in doubt.

    Least squares of what batches took beyond their cost, over how many came in the first part of
    each beyond what came around that time anyway.
    """
    across = along = 0.0
    cases = []
    for batch in batches:
        expected = cost(batch.lengths)
        # A batch that takes longer has more arrivals for that alone; its first part has not.
        part = FIRST * expected
        if not part or batch.seconds < part:
            continue
        usual = _between(arrivals, batch.started - AROUND, 2 * AROUND) * part / (2 * AROUND)
        more = (_between(arrivals, batch.started, part) - usual) / expected
        longer = batch.seconds / expected - 1
        across += more * longer
        along += more * more
        cases.append((more, longer))
    if len(cases) < MANY or not along:
        return 0.0
    slope = across / along
    rest = math.fsum((longer - slope * more) ** 2 for more, longer in cases) / len(cases)
    return slope if slope > SURE * math.sqrt(rest / along) else 0.0


def _between(arrivals: Sequence[float], start: float, seconds: float) -> int:
    """How many arrived in so many seconds from `start` on."""
    return bisect_right(arrivals, start + seconds) - bisect_right(arrivals, start)


def _turns(requests: Iterable[RequestRecord], batches: Iterable[BatchRecord]) -> list[Turn]:
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
        # Of those between, other workers ran each.
        and kept.issuperset(range(before.id + 1, after.id))
        and after.id in came
        and after.reason != "deadline"
    ]


def _median(seconds: list[float]) -> float:
    return max(0.0, median(seconds)) if len(seconds) >= FEW else 0.0
